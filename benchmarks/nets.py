"""Our U-Net and DDIM loop against diffusers' with the same weights."""

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel

from gligen_lessons import ddim, device
from gligen_lessons.recipes.ddpm import PIXEL_UNET
from gligen_lessons.recipes.latent import LATENT_UNET
from gligen_lessons.schedule import Schedule
from gligen_lessons.unet import UNet

from .pairs import ratio


def twins(config: dict):
    """Diffusers' network and ours on the same device with the same weights."""
    torch.manual_seed(0)
    theirs = UNet2DConditionModel(**config).to(device.pick())
    ours = UNet(**config).to(device.pick())
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def inputs(config: dict, batch: int):
    """A batch of noise, steps and (where the network reads words) context."""
    g, side = device.generator(0), config["sample_size"]
    xt = device.noise((batch, config["in_channels"], side, side), g)
    context = device.noise((batch, 24, config.get("cross_attention_dim", 32)), g)
    return xt, torch.randint(1000, (batch,), generator=g).to(device.pick()), context


def unet_rows() -> list[tuple]:
    """A training step and a sampling step of both networks of the first lessons."""
    rows = []
    for name, config, batch in (("pixel U-Net", PIXEL_UNET, 16), ("latent U-Net", LATENT_UNET, 8)):
        theirs, ours = twins(config)
        xt, t, context = inputs(config, batch)

        def step(run):
            run().square().mean().backward()

        def look(run):
            with torch.no_grad():
                run()

        def their_run(theirs=theirs, xt=xt, t=t, context=context):
            return theirs(xt, t, encoder_hidden_states=context).sample

        def our_run(ours=ours, xt=xt, t=t, context=context, config=config):
            return ours(xt, t, context if "cross_attention_dim" in config else None)

        rows += [(f"{name}, training step", *ratio(lambda: step(their_run), lambda: step(our_run))),
                 (f"{name}, sampling step", *ratio(lambda: look(their_run), lambda: look(our_run)))]
    return rows


def loop_rows(steps: int = 10, batch: int = 8) -> list[tuple]:
    """A whole DDIM loop, each library with its own U-Net and scheduler."""
    theirs, ours = twins(PIXEL_UNET)
    xT, _, context = inputs(PIXEL_UNET, batch)
    scheduler, schedule = DDIMScheduler(beta_end=.02, beta_start=1e-4), Schedule.linear()

    @torch.no_grad()
    def their_loop():
        scheduler.set_timesteps(steps)
        x = xT
        for t in scheduler.timesteps:
            eps_hat = theirs(x, t, encoder_hidden_states=context).sample
            x = scheduler.step(eps_hat, t, x).prev_sample
        return x

    def our_loop():
        *_, (_, x) = ddim.sample(ours, xT, schedule, steps, clip=True)
        return x

    difference = (their_loop() - our_loop()).abs().max()
    if not difference < 1e-3:
        raise AssertionError(f"The two loops paint different pictures: {difference}.")
    return [(f"DDIM loop, {steps} steps", *ratio(their_loop, our_loop, rounds=7))]
