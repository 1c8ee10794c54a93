"""Training lesson 11's gates: key points, pictures, maps, each on top of latent diffusion."""

from collections.abc import Callable

import torch
from torch import Tensor

from .. import device, weights
from ..datasets.grounding_inputs import (
    MAX_THINGS,
    as_entities,
    as_keypoints,
    crop_scenes,
    drop_one,
    figure_scenes,
    joint_places,
    map_scenes,
)
from ..datasets.instructions import FULL_CAPTIONS, phrase_table
from ..eval.grounding_inputs import (
    HeldCrops,
    HeldFigures,
    HeldMaps,
    entity_report,
    keypoint_report,
    map_report,
)
from ..gligen import LIMIT, Grounding, drop_conditions, freeze, gate_names, phrase_features
from ..grounded import gate_attention
from ..grounding_inputs import EntityNet, KeypointNet
from ..grounding_maps import (
    add_map_gates,
    concat_map_channels,
    learn_maps,
    map_names,
    semantic_maps,
)
from ..images import sheet
from ..latent import TextToImage
from ..nets import record_attention
from ..unet import UNet
from . import Recipe, scenes, seeded
from .alignment import initialise_gates, weighted_loss
from .gligen import (
    MILESTONES,
    P_CAPTION,
    P_GROUNDING,
    RATE,
    SECOND_LOSS,
    aligned,
    gate_groups,
    gates_of,
    latent_sampler,
    sample_kind,
    slowed,
    states,
    watched,
)
from .latent import LATENT_UNET, parts_with

SCENES = 24_000                                           # at most; more with a GPU
SHOWN = 24                                                # pictures of a milestone


def budget(steps: int | None, batch: int | None, cpu: tuple[int, int],
           cuda: int) -> tuple[int, int, int]:
    """Steps, batch and scenes of a run: on a CPU both are given, on a GPU the steps."""
    big = device.compute_budget() == "full"
    return (steps or (cuda if big else cpu[0]), batch or (256 if big else cpu[1]),
            80_000 if big else SCENES)


def gligen_keypoints(steps: int | None = None, batch: int | None = None) -> Recipe:
    """The gates with the net of key points, on scenes of `grounding-train` that show a figure."""
    steps, batch, most = budget(steps, batch, (600, 24), 8_000)
    parts = weights.text_to_image(device.pick(), weights.load("gligen"))
    weights.load("referee-pose")                # the report needs it: say now if it is missing
    unet = freeze(keypoints_from_boxes(parts.unet))
    data = figure_scenes(parts, scenes("grounding-train", steps, max(batch, 16), most))
    empty = parts.tokenizer([""])[0]

    def read(rows: Tensor, g: torch.Generator) -> tuple[Tensor, Tensor]:
        caption, kept = dropped(data.ids, rows, empty, g)
        return caption, data.points[rows] * kept.view(-1, 1, 1, 1)

    def loss(model, z0, t, eps, caption, points, help_weight):
        places, strength = joint_places(points), float(help_weight[0])
        with record_attention(watched(model, strength), gate_attention) as maps:
            painting = weighted_loss(model, z0, t, eps, states(parts, caption),
                                     as_keypoints(points), parts.schedule, strength, places)
        return painting + aligned(maps, torch.arange(places.masks.shape[1]), places, strength)

    return gate_recipe(
        "gligen-keypoints", unet, parts, f"latents of {len(data.z)} scenes of grounding-train that "
        "show a person or a robot, on top of ldm, from the gates of gligen", loss, steps,
        latent_sampler(data.z, parts.schedule.T, steps, batch, 15, read),
        keypoint_report, HeldFigures.of(SHOWN if steps > 8 else 4))


def keypoints_from_boxes(unet: UNet) -> UNet:
    """Exchange the position net for one of key points, whose tokens start as those of boxes.

    A joint begins as a thing without a phrase, in a box without extent: where `fourier` says a
    box's corners, both are the point, so the weights of both are added.
    """
    old, d = unet.position_net, unet.context_width
    net = unet.position_net = seeded(KeypointNet, d).to(unet.conv_in.weight)
    first, *rest = old.linears.state_dict().items()
    names, boxes = first[1][:, :d], first[1][:, d:].unflatten(1, (-1, 4))   # x0, y0, x1, y1
    places = (boxes[..., :2] + boxes[..., 2:]).flatten(1)
    net.linears.load_state_dict({first[0]: torch.cat([names, places], 1), **dict(rest)})
    with torch.no_grad():
        net.null_person_feature.copy_(old.null_positive_feature)
        net.null_xy_feature.copy_(old.null_position_feature.view(-1, 2, 2).mean(1).flatten())
    return unet


def gligen_entities(steps: int | None = None, batch: int | None = None) -> Recipe:
    """Lesson 9's gates learn to read pictures beside phrases; one of both is often dropped."""
    steps, batch, most = budget(steps, batch, (500, 20), 6_000)
    parts = weights.text_to_image(device.pick(), weights.load("gligen"))
    unet = freeze(entities_from_phrases(parts.unet))
    data = crop_scenes(parts, scenes("grounding-train", steps, batch, most // 2))
    few, empty = data.layouts, parts.tokenizer([""])[0]
    with torch.no_grad():
        table = phrase_features(parts, phrase_table())                      # (phrases,d)
    tokens = torch.cat([torch.arange(MAX_THINGS), LIMIT + torch.arange(MAX_THINGS)])

    def read(rows: Tensor, g: torch.Generator) -> tuple[Tensor, ...]:
        caption, phrases = sample_kind(few, rows, empty, g)
        masks = drop_one((phrases >= 0).float(), g)
        return (caption, phrases, few.boxes_xyxy[rows], data.features[rows].float(), *masks)

    def loss(model, z0, t, eps, caption, phrases, boxes_xyxy, features, text, picture, help_weight):
        entities = as_entities(table, phrases, features, boxes_xyxy, (text, picture))
        places = Grounding(torch.cat([boxes_xyxy, boxes_xyxy], 1), torch.cat([text, picture], 1),
                           boxes_xyxy[..., :0])
        strength = float(help_weight[0])
        with record_attention(watched(model, strength), gate_attention) as maps:
            painting = weighted_loss(model, z0, t, eps, states(parts, caption), entities,
                                     parts.schedule, strength, places)
        return painting + aligned(maps, tokens, places, strength)

    return gate_recipe(
        "gligen-entities", unet, parts, f"latents and crops of {len(few.z)} scenes of "
        "grounding-train, on top of ldm, from the gates of gligen", loss, steps,
        latent_sampler(few.z, parts.schedule.T, steps, batch, 16, read),
        entity_report, HeldCrops.of(SHOWN if steps > 8 else 4),
        groups=lambda model: slowed(gate_groups(model)))


def entities_from_phrases(unet: UNet) -> UNet:
    """Exchange the position net for one of entities, both of whose MLPs start as that of phrases.

    What a crop shows is led back to where phrases lie, so it starts as a phrase would.
    """
    old, d = unet.position_net, unet.context_width
    net = unet.position_net = seeded(EntityNet, d, d).to(unet.conv_in.weight)
    for linears in (net.linears_text, net.linears_image):
        linears.load_state_dict(old.linears.state_dict())
    with torch.no_grad():
        net.null_text_feature.copy_(old.null_positive_feature)
        net.null_image_feature.copy_(old.null_positive_feature)
        net.null_position_feature.copy_(old.null_position_feature)
    return unet


def gligen_map(steps: int | None = None, batch: int | None = None) -> Recipe:
    """The gates with the net of semantic maps, and the channels that a map adds."""
    steps, batch, most = budget(steps, batch, (900, 16), 8_000)
    parts = weights.text_to_image(device.pick())
    unet = learn_maps(initialise_gates(seeded(add_map_gates, parts.unet)))
    data = map_scenes(parts, scenes("grounding-train", steps, batch, most))
    empty = parts.tokenizer([""])[0]

    def read(rows: Tensor, g: torch.Generator) -> tuple[Tensor, ...]:
        caption, kept = dropped(data.ids, rows, empty, g)
        return caption, data.numbers[rows], kept

    def loss(model, z0, t, eps, caption, numbers, kept, help_weight):
        given = semantic_maps(numbers).each(lambda x: x.to(z0.device))
        nowhere = Grounding(z0.new_zeros(len(z0), 1, 4), z0.new_zeros(len(z0), 1), z0[:, :0, 0])
        shown = concat_map_channels(model, given.maps)
        return weighted_loss(shown, z0, t, eps, states(parts, caption),
                             type(given)(given.maps, kept), parts.schedule, float(help_weight[0]),
                             nowhere)

    made = gate_recipe(
        "gligen-map", unet, parts, f"latents and semantic maps of {len(data.z)} scenes of "
        "grounding-train, on top of ldm", loss, steps,
        latent_sampler(data.z, parts.schedule.T, steps, batch, 17, read),
        map_report, HeldMaps.of(SHOWN if steps > 8 else 4), kept=map_names, groups=map_groups)
    made.helpers = ("gates begin at weights that tell things apart; steps count as min-SNR times "
                    "1 / alpha_bar, off after 75 %")
    return made


def dropped(ids: Tensor, rows: Tensor, empty: Tensor, g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Full captions (b,n) of some scenes, and whether each keeps its grounding (b,), 1 or 0."""
    pick = torch.tensor(FULL_CAPTIONS)[torch.randint(len(FULL_CAPTIONS), (len(rows),), generator=g)]
    there = torch.zeros(len(rows), 1, dtype=torch.long)
    caption, kept = drop_conditions(ids[rows, pick].long(), there, empty, P_CAPTION, P_GROUNDING, g)
    return caption, (kept[:, 0] == 0).float()


def map_groups(unet: UNet) -> list[dict]:
    """The groups of `gate_groups`; what maps add besides learns beside what AdamW has."""
    matrices, scalars, rest = gate_groups(unet)
    taken = {id(p) for group in (matrices, scalars, rest) for p in group["params"]}
    rest["params"] += [p for p in unet.parameters() if p.requires_grad and id(p) not in taken]
    return [matrices, scalars, rest]


def gate_recipe(name: str, unet: UNet, parts: TextToImage, data: str, loss: Callable, steps: int,
                sample_batch: Callable, report: Callable, held, kept: Callable = gate_names,
                groups: Callable = gate_groups) -> Recipe:
    """What the three recipes share: a log with sheets, a report, a file that holds what is new."""
    sample_steps = min(30, 1 + steps)

    def log_sample(model, step: int) -> dict:
        x = held.generated(parts_with(parts, model), steps=min(15, sample_steps))
        return {"png": sheet(x[:8]), "held": held.right(x), "gates": gates_of(model)}

    return Recipe(
        name=name, model=unet, config=LATENT_UNET, data=data, sample_batch=sample_batch, loss=loss,
        steps=steps, lr=RATE, helpers=f"{SECOND_LOSS}; off after 75 %", sample=log_sample,
        milestones=MILESTONES, kept=kept,
        report=lambda model: report(parts_with(parts, model), min(100, 1 + steps),
                                    steps=sample_steps),
        options={"ema": .995, "optimizer": "muon", "groups": groups},
        learned=lambda model: {"_on": weights.fingerprint("ldm")})
