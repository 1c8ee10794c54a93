"""What people answer to the exercises of lesson 5."""

import torch
import torch.nn.functional as F

from gligen_lessons import guidance as reference
from gligen_lessons import nets
from gligen_lessons.ddpm import ddpm_step, posterior, predict_eps, predict_x0
from gligen_lessons.schedule import expand_like, extract, look_up

# classifier_gradient


def without_enable_grad(log_prob, xt, t):
    xt = xt.detach().requires_grad_()
    return torch.autograd.grad(log_prob(xt, t).sum(), xt)[0]


def leaf_forgotten(log_prob, xt, t):
    with torch.enable_grad():
        return torch.autograd.grad(log_prob(xt, t).sum(), xt)[0]


def of_the_mean(log_prob, xt, t):
    with torch.enable_grad():
        xt = xt.detach().requires_grad_()
        return torch.autograd.grad(log_prob(xt, t).mean(), xt)[0]


def of_the_probability(log_prob, xt, t):
    with torch.enable_grad():
        xt = xt.detach().requires_grad_()
        return torch.autograd.grad(log_prob(xt, t).exp().sum(), xt)[0]


def of_a_loss(log_prob, xt, t):
    with torch.enable_grad():
        xt = xt.detach().requires_grad_()
        return torch.autograd.grad((-log_prob(xt, t)).sum(), xt)[0]


def of_length_one(log_prob, xt, t):
    gradient = reference.classifier_gradient(log_prob, xt, t)
    return gradient / gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


def whole_tuple(log_prob, xt, t):
    with torch.enable_grad():
        xt = xt.detach().requires_grad_()
        return torch.autograd.grad(log_prob(xt, t).sum(), xt)


def callers_xt(log_prob, xt, t):
    with torch.enable_grad():
        xt.requires_grad_()
        return torch.autograd.grad(log_prob(xt, t).sum(), xt)[0]


def keeps_the_graph(log_prob, xt, t):
    with torch.enable_grad():
        xt = xt.detach().requires_grad_()
        return torch.autograd.grad(log_prob(xt, t).sum(), xt, create_graph=True)[0]


def by_backward(log_prob, xt, t):
    leaf = xt.detach().clone()
    leaf.requires_grad = True
    with torch.enable_grad():
        log_prob(leaf, t).sum().backward()
    return leaf.grad


def with_a_vector_of_ones(log_prob, xt, t):
    with torch.enable_grad():
        leaf = xt.detach().requires_grad_()
        each = log_prob(leaf, t)
        gradient, = torch.autograd.grad(each, leaf, torch.ones_like(each))
    return gradient


# classifier_eps

def plus_the_gradient(eps_hat, gradient, t, schedule, guidance_scale):
    return eps_hat + guidance_scale * extract((1 - schedule.alpha_bar).sqrt(), t,
                                              eps_hat) * gradient


def root_missing(eps_hat, gradient, t, schedule, guidance_scale):
    return eps_hat - guidance_scale * extract(1 - schedule.alpha_bar, t, eps_hat) * gradient


def signal_for_noise(eps_hat, gradient, t, schedule, guidance_scale):
    return eps_hat - guidance_scale * extract(schedule.alpha_bar.sqrt(), t, eps_hat) * gradient


def factor_missing(eps_hat, gradient, t, schedule, guidance_scale):
    return eps_hat - guidance_scale * gradient


def divided(eps_hat, gradient, t, schedule, guidance_scale):
    return eps_hat - guidance_scale * gradient / extract((1 - schedule.alpha_bar).sqrt(), t,
                                                         eps_hat)


def unscaled_eps(eps_hat, gradient, t, schedule, guidance_scale):
    return reference.classifier_eps(eps_hat, gradient, t, schedule, 1.)


def betas_for_noise(eps_hat, gradient, t, schedule, guidance_scale):
    return eps_hat - guidance_scale * extract(schedule.betas.sqrt(), t, eps_hat) * gradient


def eps_in_float64(eps_hat, gradient, t, schedule, guidance_scale):
    noise = (1 - schedule.alpha_bar[t]).sqrt().view(-1, *[1] * (eps_hat.ndim - 1))
    return (eps_hat.double() - guidance_scale * noise * gradient.double()).to(eps_hat.dtype)


def eps_by_spread(eps_hat, gradient, t, schedule, guidance_scale):
    score = -eps_hat / expand_like((1 - look_up(schedule.alpha_bar, t))**.5, eps_hat)
    score = score + guidance_scale * gradient
    return -score * expand_like((1 - look_up(schedule.alpha_bar, t))**.5, eps_hat)


# guide

def with_w(eps_uncond, eps_cond, guidance_scale):
    return (1 + guidance_scale) * eps_cond - guidance_scale * eps_uncond


def exchanged(eps_uncond, eps_cond, guidance_scale):
    return eps_cond + guidance_scale * (eps_uncond - eps_cond)


def turned(eps_uncond, eps_cond, guidance_scale):
    return eps_uncond - guidance_scale * (eps_cond - eps_uncond)


def unsubtracted(eps_uncond, eps_cond, guidance_scale):
    return eps_uncond + guidance_scale * eps_cond


def clamped_scale(eps_uncond, eps_cond, guidance_scale):
    return torch.lerp(eps_uncond, eps_cond, min(guidance_scale, 1.))


def by_lerp(eps_uncond, eps_cond, guidance_scale):
    return torch.lerp(eps_uncond, eps_cond, guidance_scale)


def by_weights(eps_uncond, eps_cond, guidance_scale):
    w = guidance_scale - 1
    return (1 + w) * eps_cond - w * eps_uncond


# classifier_ddpm_step

def stepped(change, clip_anyway=None):
    """A step whose shift is `change(variance)` times s times the gradient."""
    def step(eps_hat, xt, t, schedule, noise, gradient, guidance_scale, clip=False):
        x0_hat = predict_x0(eps_hat, xt, t, schedule)
        if clip and clip_anyway is None:
            x0_hat = x0_hat.clamp(-1, 1)
        mean, variance = posterior(x0_hat, xt, t, schedule)
        shift = guidance_scale * change(variance) * gradient
        return mean + shift + variance.sqrt() * noise
    return step


def unscaled_step(eps_hat, xt, t, schedule, noise, gradient, guidance_scale, clip=False):
    return reference.classifier_ddpm_step(eps_hat, xt, t, schedule, noise, gradient, 1., clip)


def step_without_guidance(eps_hat, xt, t, schedule, noise, gradient, guidance_scale, clip=False):
    return ddpm_step(eps_hat, xt, t, schedule, noise, clip=clip)


def step_without_noise(eps_hat, xt, t, schedule, noise, gradient, guidance_scale, clip=False):
    return reference.classifier_ddpm_step(eps_hat, xt, t, schedule, 0 * noise, gradient,
                                          guidance_scale, clip)


def eps_corrected_step(eps_hat, xt, t, schedule, noise, gradient, guidance_scale, clip=False):
    eps_hat = reference.classifier_eps(eps_hat, gradient, t, schedule, guidance_scale)
    return ddpm_step(eps_hat, xt, t, schedule, noise, clip=clip)


def step_with_noise_of_beta(eps_hat, xt, t, schedule, noise, gradient, guidance_scale, clip=False):
    still = step_without_noise(eps_hat, xt, t, schedule, noise, gradient, guidance_scale, clip)
    return still + extract(schedule.betas.sqrt(), t, xt) * noise


def step_with_much_noise(eps_hat, xt, t, schedule, noise, gradient, guidance_scale, clip=False):
    x0_hat = predict_x0(eps_hat, xt, t, schedule)
    mean, variance = posterior(x0_hat.clamp(-1, 1) if clip else x0_hat, xt, t, schedule)
    return mean + guidance_scale * variance * gradient + variance * noise


def prediction_moved(eps_hat, xt, t, schedule, noise, gradient, guidance_scale, clip=False):
    x0_hat = predict_x0(eps_hat, xt, t, schedule) + guidance_scale * gradient
    mean, variance = posterior(x0_hat.clamp(-1, 1) if clip else x0_hat, xt, t, schedule)
    return mean + variance.sqrt() * noise


def posterior_turned(eps_hat, xt, t, schedule, noise, gradient, guidance_scale, clip=False):
    x0_hat = predict_x0(eps_hat, xt, t, schedule)
    mean, variance = posterior(xt, x0_hat.clamp(-1, 1) if clip else x0_hat, t, schedule)
    return mean + guidance_scale * variance * gradient + variance.sqrt() * noise


def betas_for_variance(eps_hat, xt, t, schedule, noise, gradient, guidance_scale, clip=False):
    step = ddpm_step(eps_hat, xt, t, schedule, noise, clip=clip)
    return step + guidance_scale * extract(schedule.betas, t, xt) * gradient


def ddpm_step_then_shift(eps_hat, xt, t, schedule, noise, gradient, guidance_scale, clip=False):
    x_prev = ddpm_step(eps_hat, xt, t, schedule, noise, clip=clip)
    variance = posterior(xt, xt, t, schedule)[1]
    return x_prev + guidance_scale * variance * gradient


def noise_and_push_together(eps_hat, xt, t, schedule, noise, gradient, guidance_scale,
                            clip=False):
    x0_hat = predict_x0(eps_hat, xt, t, schedule)
    if clip:
        eps_hat = predict_eps(torch.clamp(x0_hat, -1, 1), xt, t, schedule)
        x0_hat = predict_x0(eps_hat, xt, t, schedule)
    mean, variance = posterior(x0_hat, xt, t, schedule)
    sigma = variance**.5
    return mean + sigma * (noise + guidance_scale * sigma * gradient)


def with_noise_level(eps_hat, xt, t, schedule, noise, gradient, guidance_scale, clip=False):
    level = extract((1 - schedule.alpha_bar).sqrt(), t, xt)
    step = ddpm_step(eps_hat, xt, t, schedule, noise, clip=clip)
    return step + guidance_scale * level * gradient


def mean_clamped(eps_hat, xt, t, schedule, noise, gradient, guidance_scale, clip=False):
    mean, variance = posterior(predict_x0(eps_hat, xt, t, schedule), xt, t, schedule)
    mean = mean + guidance_scale * variance * gradient
    return (mean.clamp(-1, 1) if clip else mean) + variance.sqrt() * noise


def mean_clamped_early(eps_hat, xt, t, schedule, noise, gradient, guidance_scale, clip=False):
    mean, variance = posterior(predict_x0(eps_hat, xt, t, schedule), xt, t, schedule)
    mean = mean.clamp(-1, 1) if clip else mean
    return mean + guidance_scale * variance * gradient + variance.sqrt() * noise


# drop

def keeps_instead(cond, null_cond, p_drop, g):
    return reference.drop(cond, null_cond, 1 - p_drop, g)


def one_coin(cond, null_cond, p_drop, g):
    if torch.rand(1, generator=g) < p_drop:
        return null_cond.to(cond).expand_as(cond).clone()
    return cond


def a_coin_a_number(cond, null_cond, p_drop, g):
    return torch.where(torch.rand(cond.shape, generator=g) < p_drop, null_cond.to(cond), cond)


def weakened(cond, null_cond, p_drop, g):
    return torch.lerp(cond.float(), null_cond.float().expand_as(cond), p_drop).to(cond.dtype)


def global_coins(cond, null_cond, p_drop, g):
    dropped = torch.rand(len(cond)) < p_drop
    return torch.where(dropped.view(-1, *[1] * (cond.ndim - 1)), null_cond.to(cond), cond)


def the_first_ones(cond, null_cond, p_drop, g):
    cond = cond.clone()
    cond[:round(p_drop * len(cond))] = null_cond.to(cond)
    return cond


def half_of_them(cond, null_cond, p_drop, g):
    return reference.drop(cond, null_cond, p_drop and .5, g)


def by_index(cond, null_cond, p_drop, g):
    kept = cond.clone()
    kept[torch.rand(len(cond), generator=g) < p_drop] = null_cond.to(cond)
    return kept


def by_bernoulli(cond, null_cond, p_drop, g):
    coins = torch.bernoulli(torch.full((len(cond),), float(p_drop)), generator=g).bool()
    return torch.stack([null_cond.to(one) if coin else one
                        for one, coin in zip(cond, coins.tolist(), strict=True)])


def in_place(cond, null_cond, p_drop, g):
    cond[torch.rand(len(cond), generator=g) < p_drop] = null_cond.to(cond)
    return cond


def equally_many(cond, null_cond, p_drop, g):
    kept = cond.clone()
    kept[torch.randperm(len(cond), generator=g)[:round(p_drop * len(cond))]] = null_cond.to(cond)
    return kept


def zeros_for_null(cond, null_cond, p_drop, g):
    return reference.drop(cond, 0 * null_cond, p_drop, g)


# classifier_free

def halves_exchanged(model, cond, null_cond, guidance_scale):

    def guided(xt, t):
        if guidance_scale == 1:
            return model(xt, t, cond)
        eps_hat = model(torch.cat([xt, xt]), torch.cat([t, t]), torch.cat([cond, null_cond]))
        return reference.guide(*eps_hat.chunk(2), guidance_scale)
    return guided


def scale_ignored(model, cond, null_cond, guidance_scale):
    return lambda xt, t: model(xt, t, cond)


def free_with_w(model, cond, null_cond, guidance_scale):
    return reference.classifier_free(model, cond, null_cond, guidance_scale + 1)


def two_calls(model, cond, null_cond, guidance_scale):
    return lambda xt, t: reference.guide(model(xt, t, null_cond), model(xt, t, cond),
                                         guidance_scale)


def order_turned(model, cond, null_cond, guidance_scale):

    def guided(xt, t):
        if guidance_scale == 1:
            return model(xt, t, cond)
        eps_hat = model(torch.cat([xt, xt]), torch.cat([t, t]), torch.cat([cond, null_cond]))
        return reference.guide(*eps_hat.chunk(2)[::-1], guidance_scale)
    return guided


def always_both(model, cond, null_cond, guidance_scale):

    def guided(xt, t):
        eps_hat = model(xt.repeat(2, 1, 1, 1), t.repeat(2), torch.cat([null_cond, cond]))
        return reference.guide(*eps_hat.chunk(2), guidance_scale)
    return guided


def pictures_once(model, cond, null_cond, guidance_scale):
    return lambda xt, t: reference.guide(*model(xt, t, torch.cat([null_cond, cond])).chunk(2),
                                         guidance_scale)


def uncut(model, cond, null_cond, guidance_scale):
    both = torch.cat([null_cond, cond])
    return lambda xt, t: guidance_scale * model(torch.cat([xt, xt]), torch.cat([t, t]), both)


def cut_along_channels(model, cond, null_cond, guidance_scale):

    def guided(xt, t):
        eps_hat = model(torch.cat([xt, xt]), torch.cat([t, t]), torch.cat([null_cond, cond]))
        return reference.guide(*eps_hat.chunk(2, dim=1), guidance_scale)
    return guided


def interleaved(model, cond, null_cond, guidance_scale):
    both = torch.cat([null_cond, cond])
    return lambda xt, t: reference.guide(*model(
        xt.repeat_interleave(2, 0), t.repeat_interleave(2), both).chunk(2), guidance_scale)


def nothing_returned(*given):
    def guided(xt, t):
        return xt


def called_already(model, cond, null_cond, guidance_scale):
    return model(torch.zeros(3, 2, 4, 5), torch.zeros(3).long(), cond)


def any_scale(model, cond, null_cond, guidance_scale):
    def guided(xt, t):
        if guidance_scale == 1:
            return model(xt, t, cond)
        eps_hat = model(torch.cat([xt, xt]), torch.cat([t, t]), torch.cat([null_cond, cond]))
        return reference.guide(*eps_hat.chunk(2), guidance_scale)
    return guided


def free_by_split(model, cond, null_cond, guidance_scale):

    def one(xt, t):
        return model(xt, t, cond)

    def two(xt, t):
        twice = [torch.cat([x, x]) for x in (xt, t)]
        without, with_c = model(*twice, torch.cat([null_cond, cond])).split(len(xt))
        return without + guidance_scale * (with_c - without)
    return one if guidance_scale == 1 else two


def free_by_repeat(model, cond, null_cond, guidance_scale):
    plain, both = guidance_scale == 1, torch.cat((null_cond, cond), dim=0)

    def guided(xt, t):
        b = len(xt)
        if plain:
            return model(xt, t, cond)
        eps_hat = model(xt.repeat(2, *[1] * (xt.ndim - 1)), t.repeat(2), both)
        return torch.lerp(eps_hat[:b], eps_hat[b:], guidance_scale)
    return guided


# classifier_guided

def steered(change):
    """A guided model made of `change(model, log_prob, schedule, s, xt, t)`."""
    def classifier_guided(model, log_prob, schedule, guidance_scale):
        return lambda xt, t: change(model, log_prob, schedule, guidance_scale, xt, t)
    return classifier_guided


def model_alone(model, log_prob, schedule, s, xt, t):
    return model(xt, t)


def gradient_alone(model, log_prob, schedule, s, xt, t):
    return reference.classifier_gradient(log_prob, xt, t)


def at_the_prediction(model, log_prob, schedule, s, xt, t):
    eps_hat = model(xt, t)
    gradient = reference.classifier_gradient(log_prob, predict_x0(eps_hat, xt, t, schedule), t)
    return reference.classifier_eps(eps_hat, gradient, t, schedule, s)


def at_step_zero(model, log_prob, schedule, s, xt, t):
    gradient = reference.classifier_gradient(log_prob, xt, torch.zeros_like(t))
    return reference.classifier_eps(model(xt, t), gradient, t, schedule, s)


def scale_twice(model, log_prob, schedule, s, xt, t):
    gradient = s * reference.classifier_gradient(log_prob, xt, t)
    return reference.classifier_eps(model(xt, t), gradient, t, schedule, s)


def bare_sum(model, log_prob, schedule, s, xt, t):
    return model(xt, t) + s * reference.classifier_gradient(log_prob, xt, t)


def bare_difference(model, log_prob, schedule, s, xt, t):
    return model(xt, t) - s * reference.classifier_gradient(log_prob, xt, t)


def scale_left_out(model, log_prob, schedule, s, xt, t):
    gradient = reference.classifier_gradient(log_prob, xt, t)
    return reference.classifier_eps(model(xt, t), gradient, t, schedule, 1.)


def guided_at_any_scale(model, log_prob, schedule, guidance_scale):
    def guided(xt, t):
        gradient = reference.classifier_gradient(log_prob, xt, t)
        return reference.classifier_eps(model(xt, t), gradient, t, schedule, guidance_scale)
    return guided


@reference.checked_scale
def guided_with_a_typo(model, log_prob, schedule, guidance_scale):
    def guided(xt, t):
        return model(xt, t) - guidance_scale * log_prob.gradient(xt)
    return guided


def by_scores(model, log_prob, schedule, s, xt, t):
    noise = extract((1 - schedule.alpha_bar).sqrt(), t, xt)
    score = -model(xt, t) / noise + s * reference.classifier_gradient(log_prob, xt, t)
    return -noise * score


def scaled_gradient(model, log_prob, schedule, s, xt, t):
    def louder(x, step):
        return s * log_prob(x, step)
    return reference.classifier_eps(model(xt, t), reference.classifier_gradient(louder, xt, t), t,
                                    schedule, 1.)


# ResnetBlock2D

def block(forward):
    """A ResBlock with another forward."""
    return type("ResnetBlock2D", (nets.ResnetBlock2D,), {"forward": forward})


def first(self, x):
    return self.conv1(F.silu(self.norm1(x)))


def last(self, y):
    return self.conv2(F.silu(self.norm2(y)))


def side(self, x):
    return x if self.conv_shortcut is None else self.conv_shortcut(x)


def shift(self, temb):
    return 0. if temb is None else self.time_emb_proj(F.silu(temb))[:, :, None, None]


def block_without_step(self, x, temb=None):
    return side(self, x) + last(self, first(self, x))


def block_without_residual(self, x, temb=None):
    return last(self, first(self, x) + shift(self, temb))


def block_without_shortcut(self, x, temb=None):
    return x + last(self, first(self, x) + shift(self, temb))


def block_raw_step(self, x, temb=None):
    raw = 0. if temb is None else self.time_emb_proj(temb)[:, :, None, None]
    return side(self, x) + last(self, first(self, x) + raw)


def block_late_step(self, x, temb=None):
    return side(self, x) + last(self, first(self, x)) + shift(self, temb)


def block_step_behind_the_norm(self, x, temb=None):
    y = F.silu(self.norm2(first(self, x)) + shift(self, temb))
    return side(self, x) + self.conv2(y)


def block_silu_first(self, x, temb=None):
    y = self.conv1(self.norm1(F.silu(x))) + shift(self, temb)
    return side(self, x) + self.conv2(self.norm2(F.silu(y)))


def block_step_behind_the_silu(self, x, temb=None):
    return side(self, x) + self.conv2(F.silu(self.norm2(first(self, x))) + shift(self, temb))


def block_times_step(self, x, temb=None):
    return side(self, x) + last(self, first(self, x) * shift(self, temb))


def block_of_relus(self, x, temb=None):
    y = self.conv1(F.relu(self.norm1(x))) + self.time_emb_proj(F.relu(temb))[:, :, None, None]
    return side(self, x) + self.conv2(F.relu(self.norm2(y)))


def block_silu_last(self, x, temb=None):
    y = F.silu(self.conv1(self.norm1(x))) + shift(self, temb)
    return side(self, x) + F.silu(self.conv2(self.norm2(y)))


def block_linear(self, x, temb=None):
    y = self.conv1(self.norm1(x)) + shift(self, temb)
    return side(self, x) + self.conv2(self.norm2(y))


def block_without_norms(self, x, temb=None):
    y = self.conv1(F.silu(x)) + shift(self, temb)
    return side(self, x) + self.conv2(F.silu(y))


def block_step_unfolded(self, x, temb=None):
    return side(self, x) + last(self, first(self, x) + self.time_emb_proj(F.silu(temb)))


def block_always_a_step(self, x, temb=None):
    step = self.time_emb_proj(F.silu(temb))[:, :, None, None]
    return side(self, x) + last(self, first(self, x) + step)


def block_in_one_line(self, x, temb=None):
    return last(self, first(self, x) + shift(self, temb)) + side(self, x)


def block_by_functional(self, x, temb=None):
    def normed(y, norm):
        y = F.group_norm(y, norm.num_groups, norm.weight, norm.bias, norm.eps)
        return y * torch.sigmoid(y)
    y = F.conv2d(normed(x, self.norm1), self.conv1.weight, self.conv1.bias, padding=1)
    if temb is not None:
        step = F.linear(F.silu(temb), self.time_emb_proj.weight, self.time_emb_proj.bias)
        y = y + step.unsqueeze(-1).unsqueeze(-1)
    return F.conv2d(normed(y, self.norm2), self.conv2.weight, self.conv2.bias,
                    padding=1) + side(self, x)


def block_by_broadcast(self, x, temb=None):
    y = first(self, x)
    if temb is not None:
        step = self.time_emb_proj(F.silu(temb))
        y = torch.stack([y[i] + step[i].view(-1, 1, 1) for i in range(len(y))])
    return side(self, x) + last(self, y)


# Attention

def attention(forward):
    """Attention with another forward."""
    return type("Attention", (nets.Attention,), {"forward": forward})


def heads_of(self, x, source):
    return [nets.split_heads(y, self.heads)
            for y in (self.to_q(x), self.to_k(source), self.to_v(source))]


def joined(self, y):
    return self.to_out[0](nets.join_heads(y))


def attends_to_itself(self, x, context=None):
    return joined(self, F.scaled_dot_product_attention(*heads_of(self, x, x)))


def attends_the_wrong_way(self, x, context=None):
    q, k, v = heads_of(self, x if context is None else context, x)
    return joined(self, F.scaled_dot_product_attention(q, k, v))


def attends_with_own_values(self, x, context=None):
    source = x if context is None else context
    q, k, _ = heads_of(self, x, source)
    return joined(self, F.scaled_dot_product_attention(
        q, k, nets.split_heads(self.to_v(x), self.heads)))


def attends_to_context_or_x(self, x, context=None):
    return joined(self, F.scaled_dot_product_attention(*heads_of(self, x, context or x)))


def attends_keys_for_values(self, x, context=None):
    q, k, v = heads_of(self, x, x if context is None else context)
    return joined(self, F.scaled_dot_product_attention(q, v, k))


def attends_with_one_head(self, x, context=None):
    source = x if context is None else context
    q, k, v = self.to_q(x), self.to_k(source), self.to_v(source)
    return self.to_out[0](F.scaled_dot_product_attention(q, k, v))


def attends_without_out(self, x, context=None):
    return nets.join_heads(F.scaled_dot_product_attention(
        *heads_of(self, x, x if context is None else context)))


def attends_and_mixes_tokens(self, x, context=None):
    y = F.scaled_dot_product_attention(*heads_of(self, x, x if context is None else context))
    return self.to_out[0](y.reshape(x.shape))


def attends_and_adds(self, x, context=None):
    return x + nets.Attention.forward(self, x, context)


def attends_twice_scaled(self, x, context=None):
    q, k, v = heads_of(self, x, x if context is None else context)
    return joined(self, F.scaled_dot_product_attention(q / q.shape[-1] ** .5, k, v))


def attends_unscaled(self, x, context=None):
    q, k, v = heads_of(self, x, x if context is None else context)
    return joined(self, (q @ k.mT).softmax(-1) @ v)


def attends_to_both(self, x, context=None):
    source = x if context is None else torch.cat([x, context], 1)
    return joined(self, F.scaled_dot_product_attention(*heads_of(self, x, source)))


def attends_to_a_context_only(self, x, context=None):
    return joined(self, F.scaled_dot_product_attention(*heads_of(self, x, context)))


def attends_by_einsum(self, x, context=None):
    source = x if context is None else context
    q, k, v = (y.view(len(x), -1, self.heads, y.shape[2] // self.heads)
               for y in (self.to_q(x), self.to_k(source), self.to_v(source)))
    p = (torch.einsum("bnkd,bmkd->bknm", q, k) / q.shape[-1] ** .5).softmax(3)
    return self.to_out[0](torch.einsum("bknm,bmkd->bnkd", p, v).reshape(x.shape))


def attends_head_by_head(self, x, context=None):
    source = x if context is None else context
    parts = (y.chunk(self.heads, -1) for y in (self.to_q(x), self.to_k(source), self.to_v(source)))
    found = [(q @ k.transpose(1, 2) / q.shape[-1] ** .5).softmax(-1) @ v
             for q, k, v in zip(*parts, strict=True)]
    return self.to_out[0](torch.cat(found, -1))


def attends_by_own_function(self, x, context=None):
    q, k, v = heads_of(self, x, x if context is None else context)
    return joined(self, nets.dot_product_attention(q, k, v))


# one more spelling of the older ones

def gradient_one_by_one(log_prob, xt, t):
    found = []
    for x, step in zip(xt, t, strict=True):
        with torch.enable_grad():
            leaf = x[None].clone().requires_grad_(True)
            log_prob(leaf, step[None]).backward()
        found.append(leaf.grad)
    return torch.cat(found)


def eps_by_loop(eps_hat, gradient, t, schedule, guidance_scale):
    noise = [(1 - float(schedule.alpha_bar[step])) ** .5 for step in t]
    return torch.stack([e - guidance_scale * n * g
                        for e, n, g in zip(eps_hat, noise, gradient, strict=True)])


def guide_from_the_condition(eps_uncond, eps_cond, guidance_scale):
    return eps_cond + (guidance_scale - 1) * (eps_cond - eps_uncond)


def ddpm_step_by_hand(eps_hat, xt, t, schedule, noise, gradient, guidance_scale, clip=False):
    found = []
    for i, step in enumerate(t.tolist()):
        ab, beta = float(schedule.alpha_bar[step]), float(schedule.betas[step])
        before = float(schedule.alpha_bar[step - 1]) if step else 1.
        x0 = (xt[i] - (1 - ab) ** .5 * eps_hat[i]) / ab**.5
        x0 = x0.clamp(-1, 1) if clip else x0
        mean = before**.5 * beta / (1 - ab) * x0
        mean = mean + (1 - beta) ** .5 * (1 - before) / (1 - ab) * xt[i]
        variance = (1 - before) / (1 - ab) * beta
        found.append(mean + guidance_scale * variance * gradient[i] + variance**.5 * noise[i])
    return torch.stack(found)


def drop_by_loop(cond, null_cond, p_drop, g):
    return torch.stack([null_cond.to(one) if float(torch.rand((), generator=g)) < p_drop else one
                        for one in cond])


WRONG = {
    "ResnetBlock2D": [
        (block(block_without_step), "step does not take part"),
        (block(block_without_residual), "residual connection"),
        (block(block_without_shortcut), "your line"),
        (block(block_raw_step), "through the SiLU"), (block(block_late_step), "BETWEEN"),
        (block(block_step_behind_the_norm), "comes before it"),
        (block(block_step_behind_the_silu), "behind the second SiLU"),
        (block(block_times_step), "it is added"), (block(block_of_relus), "ReLUs"),
        (block(block_silu_last), "behind each convolution"),
        (block(block_silu_first), "Norm first"), (block(block_linear), "SiLUs are missing"),
        (block(block_without_norms), "norms are missing"),
        (block(block_step_unfolded), "your line"), (block(block_always_a_step), "TypeError")],
    "Attention": [
        (attention(attends_to_itself), "self-attention"),
        (attention(attends_the_wrong_way), "x that asks"),
        (attention(attends_with_own_values), "to_v(context)"),
        (attention(attends_keys_for_values), "Keys and values are exchanged"),
        (attention(attends_with_one_head), "one wide head"),
        (attention(attends_without_out), "never meet"),
        (attention(attends_and_mixes_tokens), "mixes up tokens"),
        (attention(attends_and_adds), "block around it"),
        (attention(attends_twice_scaled), "width twice"),
        (attention(attends_unscaled), "not divided"), (attention(attends_to_both), "joined to x"),
        (attention(attends_to_context_or_x), "is None"),
        (attention(attends_to_a_context_only), "TypeError")],
    "classifier_gradient": [
        (without_enable_grad, "torch.enable_grad"), (leaf_forgotten, "torch.enable_grad"),
        (of_the_mean, "gradient of the mean"), (of_the_probability, "of the probability"),
        (of_a_loss, "sign is turned"), (of_length_one, "direction of length 1"),
        (whole_tuple, "take [0]"), (callers_xt, "caller's xt"),
        (keeps_the_graph, "still requires a gradient")],
    "classifier_eps": [
        (plus_the_gradient, "gradient is subtracted"), (root_missing, "root is missing"),
        (signal_for_noise, "root of alpha_bar"), (factor_missing, "factor sqrt(1 - alpha_bar)"),
        (divided, "must be multiplied"), (unscaled_eps, "scale is missing"),
        (betas_for_noise, "uses betas")],
    "guide": [
        (with_w, "Ho and Salimans"), (exchanged, "exchanged"), (turned, "difference is turned"),
        (unsubtracted, "not subtracted"), (clamped_scale, "not be clamped"),
        (lambda u, c, s: c + s * (c - u), "it starts at eps_cond")],
    "classifier_ddpm_step": [
        (stepped(torch.sqrt), "standard deviation"), (stepped(torch.ones_like), "as large at"),
        (stepped(lambda v: -v), "sign is turned"), (stepped(lambda v: v, True), "not clamped"),
        (unscaled_step, "scale is missing"), (step_without_guidance, "not moved"),
        (step_without_noise, "No noise"), (step_with_much_noise, "needs the root"),
        (eps_corrected_step, "leave eps_hat"), (step_with_noise_of_beta, "root of beta"),
        (prediction_moved, "prediction of x0 was moved"), (betas_for_variance, "betas stand"),
        (with_noise_level, "belongs to classifier_eps"), (mean_clamped, "mean was clamped."),
        (mean_clamped_early, "before its shift"), (posterior_turned, "x0 first, then xt")],
    "drop": [
        (keeps_instead, "keeps the part"), (one_coin, "batch as a whole"),
        (a_coin_a_number, "one coin a sample"), (weakened, "neither the condition"),
        (global_coins, "generator `g`"), (the_first_ones, "side by side"),
        (half_of_them, "where p_drop is 20%"), (in_place, "caller's cond"),
        (equally_many, "equally many"), (zeros_for_null, "not 0")],
    "classifier_free": [
        (halves_exchanged, "halves are exchanged"), (scale_ignored, "scale is not used"),
        (free_with_w, "Ho and Salimans"), (two_calls, "called 2 times"),
        (order_turned, "empty condition first"), (always_both, "call the model once"),
        (pictures_once, "repeat xt and t"), (uncut, "twice as many"),
        (cut_along_channels, "twice as many"), (called_already, "inner function itself"),
        (interleaved, "conditions of others"), (nothing_returned, "return guided"),
        (lambda model, cond, null_cond, s: lambda xt, t: reference.guide(
            model(xt, t, cond), model(xt, t, cond), s), "scale is not used")],
    "classifier_guided": [
        (steered(model_alone), "does not take part"), (steered(gradient_alone), "gradient alone"),
        (steered(at_the_prediction), "prediction of x0"), (steered(at_step_zero), "step 0"),
        (steered(scale_twice), "works twice"), (steered(bare_sum), "without sqrt"),
        (steered(scale_left_out), "scale is missing"),
        (nothing_returned, "return guided"),
        (steered(bare_difference), "let classifier_eps subtract"),
        (guided_with_a_typo, "your line"),
        (lambda model, log_prob, schedule, s: model(torch.zeros(3, 2, 4, 5), torch.zeros(3).long()),
         "inner function itself")],
}
RIGHT = {
    "ResnetBlock2D": [block(block_in_one_line), block(block_by_functional),
                      block(block_by_broadcast)],
    "Attention": [attention(attends_by_einsum), attention(attends_head_by_head),
                  attention(attends_by_own_function)],
    "classifier_gradient": [by_backward, with_a_vector_of_ones, gradient_one_by_one],
    "classifier_eps": [eps_in_float64, eps_by_spread, eps_by_loop],
    "guide": [by_lerp, by_weights, guide_from_the_condition],
    "classifier_ddpm_step": [ddpm_step_then_shift, noise_and_push_together,
                             ddpm_step_by_hand],
    "drop": [by_index, by_bernoulli, drop_by_loop],
    "classifier_free": [free_by_split, free_by_repeat, any_scale],
    "classifier_guided": [steered(by_scores), steered(scaled_gradient), guided_at_any_scale],
}
