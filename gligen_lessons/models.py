"""Every model of the course, a row each: what builds it, which recipe trains it, on which others.

Loading, training, export, the report and the tests read this table, in the order of training.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from .attribute_referee import AttributeReferee
from .clip import CLIP
from .detr import DETR
from .gligen import add_gates, gate_names
from .grounding_inputs import add_entity_gates, add_keypoint_gates
from .grounding_maps import add_map_gates, map_names
from .guidance import LabelledUNet, NoisyClassifier
from .inpaint import inpainting_names, make_inpainting
from .referee import CropReferee, PoseReferee, SceneReferee
from .resnet import DenseClassifier
from .unet import UNet
from .vae import VAE


@dataclass(frozen=True, kw_only=True)
class Model:
    """A row: `build(**config)` makes the network, a function of module `recipe` trains it.

    `needs` are the models that must be there before. A model whose file holds only what it adds
    names the `base` that it adds to; then `build(base)` makes room in it, and `added(network)`
    names what is new. `exported` says that diffusers has a pipeline for it, `metric` which figure
    of its card must not get worse ("-" before it: must not grow).
    """

    build: Callable[..., nn.Module]
    recipe: str
    needs: tuple[str, ...] = ()
    base: str | None = None
    added: Callable[[nn.Module], list[str]] | None = None
    exported: bool = False
    metric: str


MODELS = {
    "vae": Model(build=VAE, recipe="vae", metric="psnr"),
    "clip": Model(build=CLIP, recipe="clip", metric="category"),
    "ldm": Model(build=UNet, recipe="latent", needs=("vae", "clip"), exported=True,
                 metric="named, found, painted"),
    "gligen": Model(build=add_gates, recipe="gligen", needs=("ldm",), base="ldm",
                    added=gate_names, exported=True, metric="boxes right, grounded"),
    "gligen-inpaint": Model(build=make_inpainting, recipe="inpaint", needs=("gligen",),
                            base="ldm", added=inpainting_names, exported=True, metric="right"),
    "referee-scene": Model(build=SceneReferee, recipe="referee", needs=("vae",),
                           metric="mean average precision of pairs"),
    "referee-crop": Model(build=CropReferee, recipe="referee", needs=("vae",),
                          metric="category, clean"),
    "ddpm": Model(build=UNet, recipe="ddpm", metric="-frechet"),
    "labelled": Model(build=LabelledUNet, recipe="guidance", needs=("ddpm",), metric="obeyed"),
    "noisy-classifier": Model(build=NoisyClassifier, recipe="guidance", metric="category, t = 0"),
    "detr-backbone": Model(build=DenseClassifier, recipe="detr", metric="places with a thing"),
    "detr": Model(build=DETR, recipe="detr", needs=("detr-backbone",), metric="AP50"),
    "referee-attributes": Model(build=AttributeReferee, recipe="attributes", needs=("vae",),
                                metric="pattern, renders"),
    "referee-pose": Model(build=PoseReferee, recipe="referee", needs=("vae",),
                          metric="PCK, renders"),
    "gligen-keypoints": Model(build=add_keypoint_gates, recipe="grounding_inputs",
                              needs=("gligen", "referee-pose"), base="ldm", added=gate_names,
                              metric="PCK, grounded"),
    "gligen-entities": Model(build=add_entity_gates, recipe="grounding_inputs",
                             needs=("gligen",), base="ldm", added=gate_names,
                             metric="colour, picture alone"),
    "gligen-map": Model(build=add_map_gates, recipe="grounding_inputs", needs=("ldm",),
                        base="ldm", added=map_names, metric="mIoU, grounded"),
}
