"""Parts that several networks of the course share, with diffusers' parameter names.

Shapes: b pictures, c channels, h x w pixels, n tokens of width d, k heads. Weights
start as PyTorch draws them.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .reading import is_number, is_whole

LEVELS, DEEPEST, WIDEST = 32, 256, 2 ** 20                # more than any published network has


def resolve_config(config: dict, defaults: dict, fixed: dict, published: str) -> dict:
    """Fill a config with the published defaults of the keys that a network implements.

    `fixed` holds the keys it does not, each with the one value it works like. ValueError
    names a key that `published` does not know, or a value that is not implemented or of
    another kind than the default. Keys that begin with an underscore are remarks of the
    file that held the config.
    """
    if not isinstance(config, dict):
        raise ValueError(f"A config of {published} is a dict, got {config!r}.")
    for key, value in config.items():
        if key not in defaults | fixed and not key.startswith("_"):
            raise ValueError(f"{key!r} is not a key of {published}: check its spelling.")
        if key in fixed and value != fixed[key]:
            raise ValueError(f"{key}={value!r} is not implemented, only {fixed[key]!r}.")
        if key in defaults and not _is_like(value, defaults[key], key):
            raise ValueError(f"{key}={value!r} is no value for {published}, whose own is "
                             f"{defaults[key]!r}.")
    return {key: config.get(key, default) for key, default in defaults.items()}


def _is_like(value, default, key: str) -> bool:
    """Whether a config's value is of its default's kind, and no giant.

    Where the default is a whole number or a list of them, either will do.
    """
    if value == default or (key.endswith("_token_id") and value is None):
        return True
    if isinstance(default, str):
        return value is None or isinstance(value, str)
    if isinstance(default, bool | dict):
        return isinstance(value, type(default))
    if isinstance(default, float):
        return is_number(value)
    if isinstance(value, list | tuple):
        one = default[0] if isinstance(default, tuple) else default
        return 0 < len(value) <= LEVELS and all(_is_like(x, one, key) for x in value)
    if isinstance(default, tuple) and isinstance(default[0], str):
        return False
    return is_whole(value, 0 if key.endswith(("_id", "_head_dim")) else 1,
                    DEEPEST if "layers" in key or key == "depths" else WIDEST)


def timestep_embedding(t: Tensor, width: int) -> Tensor:
    """Each step as sinusoids of falling frequency (Vaswani et al. 2017, section 3.5).

    t (b,), `width` even; returns (b,width) in 32 bits, the cosines before the sines as
    in Stable Diffusion.
    """
    half = width // 2
    powers = -math.log(10000) * torch.arange(half, dtype=torch.float32, device=t.device)
    angles = t[:, None].float() * torch.exp(powers / half)      # (b,width/2)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)      # (b,width)


class TimestepEmbedding(nn.Module):
    """Two linear layers that turn the sinusoids of t into what every ResBlock reads."""

    def __init__(self, width: int, time_width: int):
        super().__init__()
        self.linear_1 = nn.Linear(width, time_width)
        self.linear_2 = nn.Linear(time_width, time_width)

    def forward(self, sinusoids: Tensor) -> Tensor:
        return self.linear_2(F.silu(self.linear_1(sinusoids)))      # (b,time_width)


class ResnetBlock2D(nn.Module):
    """Two convolutions and a residual connection; the step shifts channels between.

    `time_width` None leaves the step out: lesson 3's autoencoder knows no time.
    """

    def __init__(self, c_in: int, c_out: int, time_width: int | None, groups: int,
                 eps: float = 1e-5):
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, c_in, eps)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.time_emb_proj = nn.Linear(time_width, c_out) if time_width else None
        self.norm2 = nn.GroupNorm(groups, c_out, eps)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else None

    def forward(self, x: Tensor, temb: Tensor | None = None) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x)))                   # (b,c_out,h,w)
        if temb is not None:
            shift = self.time_emb_proj(F.silu(temb))            # (b,c_out)
            y = y + shift[:, :, None, None]                     # (b,c_out,h,w)
        y = self.conv2(F.silu(self.norm2(y)))                   # (b,c_out,h,w)
        if self.conv_shortcut is not None:
            x = self.conv_shortcut(x)                           # (b,c_out,h,w)
        return x + y


class Downsample2D(nn.Module):
    """Halve height and width with a convolution of stride 2 (odd sizes round up).

    `before` are the zeros put left and above, where the autoencoder has none; right and
    below there is always one.
    """

    def __init__(self, c: int, before: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(c, c, 3, stride=2, padding=before)
        self.before = before

    def forward(self, x: Tensor) -> Tensor:
        if self.before == 0:
            x = F.pad(x, (0, 1, 0, 1))                          # (b,c,h+1,w+1)
        return self.conv(x)                                     # (b,c,h/2,w/2)


class Upsample2D(nn.Module):
    """Repeat pixels up to `size`, the (h,w) of what comes next, and smooth."""

    def __init__(self, c: int):
        super().__init__()
        self.conv = nn.Conv2d(c, c, 3, padding=1)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        return self.conv(F.interpolate(x, size=size, mode="nearest"))


def dot_product_attention(q: Tensor, k: Tensor, v: Tensor,
                          mask: Tensor | None = None) -> Tensor:
    """Mix values by how well each query fits the keys (Vaswani et al. 2017, eq. 1).

    q (b,k,n,d), k (b,k,m,d), v (b,k,m,d_v) -> (b,k,n,d_v). Where `mask` (n,m) is False
    the query does not attend to the key. Networks call torch's fused version: equal,
    and faster.
    """
    scores = q @ k.transpose(2, 3) / q.shape[-1] ** .5          # (b,k,n,m)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return scores.softmax(-1) @ v                               # (b,k,n,d_v)


def causal_mask(n: int) -> Tensor:
    """(n,n), True where the column's token is the row's own or one before it."""
    return torch.ones(n, n, dtype=torch.bool).tril()


def split_heads(x: Tensor, heads: int) -> Tensor:
    """Cut the width into k heads, one after the other: (b,n,d) to (b,k,n,d/k)."""
    return x.unflatten(2, (heads, -1)).transpose(1, 2)


def join_heads(x: Tensor) -> Tensor:
    """Put the heads side by side again: (b,k,n,d/k) to (b,n,d)."""
    return x.transpose(1, 2).flatten(2)


class Attention(nn.Module):
    """The tokens of x attend to `context`; without a context, to each other."""

    def __init__(self, d: int, heads: int, d_context: int | None = None, bias=False):
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(d, d, bias=bias)
        self.to_k = nn.Linear(d_context or d, d, bias=bias)
        self.to_v = nn.Linear(d_context or d, d, bias=bias)
        self.to_out = nn.ModuleList([nn.Linear(d, d)])

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        source = x if context is None else context              # (b,m,d_context)
        q, k, v = self.to_q(x), self.to_k(source), self.to_v(source)
        q, k, v = (split_heads(y, self.heads) for y in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v)             # (b,k,n,d/k)
        return self.to_out[0](join_heads(y))                    # (b,n,d)


def attention_map(layer: Attention, x: Tensor, context: Tensor | None = None) -> Tensor:
    """How much each pixel attends to each token, (b,k,n_pixels,n_tokens).

    Rows sum to one: softmax(q k^T / sqrt(d)) of section 3.3, for each of k heads.
    Without a context a sequence attends to itself.
    """
    q, k = layer.to_q(x), layer.to_k(x if context is None else context)
    q, k = split_heads(q, layer.heads), split_heads(k, layer.heads)
    return (q @ k.transpose(2, 3) / q.shape[-1] ** .5).softmax(-1)


@contextmanager
def record_attention(layers: dict[str, nn.Module],
                     look: Callable[..., Tensor]) -> Iterator[dict[str, list[Tensor]]]:
    """Within this context, keep `look(layer, *inputs)` of every call of some layers.

    The dict holds, for each layer's name, one map a call. What the network computes
    stays the same.
    """
    maps = {name: [] for name in layers}

    def keep(name, layer, inputs):
        maps[name].append(look(layer, *inputs))

    with hooked(layers, keep):
        yield maps


@contextmanager
def replace_attention(layers: dict[str, Attention],
                      control: Callable[[str, Tensor], Tensor | None]) -> Iterator[None]:
    """Within this context, `control(name, map)` may give each layer another map.

    map (b,k,n,m) as `attention_map` has it; None leaves the layer's output as it is. A
    map of fewer rows is that of the last ones: those before keep their output, bit for
    bit.
    """
    def mix(name, layer, inputs):
        weights = control(name, attention_map(layer, *inputs))
        if weights is None:
            return None
        source = inputs[-1][-len(weights):]                     # (b,m,d_context)
        values = split_heads(layer.to_v(source), layer.heads)   # (b,k,m,d/k)
        return layer.to_out[0](join_heads(weights @ values))        # (b,n,d)

    with hooked(layers, mix):
        yield


@contextmanager
def hooked(layers: dict[str, nn.Module], act: Callable) -> Iterator[None]:
    """Within this context, `act(name, layer, inputs)` follows each call of some layers.

    What it returns, if anything, takes the place of the layer's output, or of its last
    rows.
    """
    def hook_of(name):
        def hook(layer, inputs, output):
            rows = act(name, layer, inputs)
            return rows if rows is None else torch.cat([output[:len(output) - len(rows)], rows])

        return hook

    hooks = [layer.register_forward_hook(hook_of(name)) for name, layer in layers.items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def head_mean(look: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """What `look` gives, averaged over the heads and kept on the CPU: (b,n,m)."""
    return lambda layer, *inputs: look(layer, *inputs).mean(1).detach().cpu()


class SpatialAttention(Attention):
    """Self-attention among the pixels of a feature map, with its norm and residual connection.

    `context` and `objs` are not read: a U-Net calls this and a transformer alike.
    """

    def __init__(self, c: int, heads: int, groups: int, eps: float = 1e-5):
        super().__init__(c, heads, bias=True)
        self.group_norm = nn.GroupNorm(groups, c, eps)

    def forward(self, x: Tensor, context=None, objs=None) -> Tensor:
        tokens = self.group_norm(x).flatten(2).transpose(1, 2)  # (b,h*w,c)
        y = super().forward(tokens).transpose(1, 2)             # (b,c,h*w)
        # y first: the sum keeps y's order in memory, which convolutions on a CPU like better
        return y.reshape(x.shape) + x                           # (b,c,h,w)


class GEGLU(nn.Module):
    """One half of a linear layer, gated by the GELU of the other (Shazeer 2020)."""

    def __init__(self, d_in: int, d_out: int):
        super().__init__()
        self.proj = nn.Linear(d_in, 2 * d_out)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)             # (b,n,d_out) twice
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    """What each token does alone: four times wider, a gate, and back."""

    def __init__(self, d: int):
        super().__init__()
        # place 1 is a dropout in published networks: no weights, but names count it
        self.net = nn.Sequential(GEGLU(d, 4 * d), nn.Identity(), nn.Linear(4 * d, d))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)                                      # (b,n,d)


class BasicTransformerBlock(nn.Module):
    """Self-attention, cross-attention, feed-forward, each added to what it reads.

    `fuser` is an empty slot: lesson 8 puts GLIGEN's gated self-attention there, through
    which pixels attend to the grounded objects `objs` (b,m,d_objs). With `parallel`
    cross-attention does not read what the gate added (ReGround, arXiv 2403.13589).
    """

    def __init__(self, d: int, heads: int, d_context: int):
        super().__init__()
        self.norm1, self.attn1 = nn.LayerNorm(d), Attention(d, heads)
        self.norm2, self.attn2 = nn.LayerNorm(d), Attention(d, heads, d_context)
        self.norm3, self.ff = nn.LayerNorm(d), FeedForward(d)
        self.fuser, self.parallel = None, False

    def forward(self, x: Tensor, context: Tensor, objs: Tensor | None = None) -> Tensor:
        x = grounded = x + self.attn1(self.norm1(x))            # pixels attend to pixels
        if self.fuser is not None and objs is not None:
            grounded = self.fuser(x, objs)                      # ... to objects
        read = x if self.parallel else grounded
        x = grounded + self.attn2(self.norm2(read), context)    # ... to words
        return x + self.ff(self.norm3(x))                       # (b,n,d)


class Transformer2D(nn.Module):
    """A transformer block on a feature map: pixels become tokens and pixels again."""

    def __init__(self, c: int, heads: int, d_context: int, groups: int):
        super().__init__()
        self.norm = nn.GroupNorm(groups, c, eps=1e-6)
        self.proj_in = nn.Conv2d(c, c, 1)
        self.transformer_blocks = nn.ModuleList(
            [BasicTransformerBlock(c, heads, d_context)])
        self.proj_out = nn.Conv2d(c, c, 1)

    def forward(self, x: Tensor, context: Tensor, objs: Tensor | None = None) -> Tensor:
        tokens = self.proj_in(self.norm(x))                     # (b,c,h,w)
        tokens = tokens.flatten(2).transpose(1, 2)              # (b,h*w,c)
        for block in self.transformer_blocks:
            tokens = block(tokens, context, objs)               # (b,h*w,c)
        y = tokens.transpose(1, 2).reshape(x.shape).contiguous()    # (b,c,h,w)
        return x + self.proj_out(y)
