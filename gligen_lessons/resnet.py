"""Residual networks (He et al. 2015, arXiv 1512.03385): lesson 7's backbone.

Keys, names and arithmetic of transformers' ResNet. x (b,3,h,w) is a picture in [-1, 1]; what
comes out, (b,c,h',w'), has a vector for each place.
"""

from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .nets import resolve_config

EPS, MOMENTUM = 1e-5, .1                                        # of every norm in here
DEFAULTS = {"num_channels": 3, "embedding_size": 64, "hidden_sizes": (256, 512, 1024, 2048),
            "depths": (3, 4, 6, 3), "layer_type": "bottleneck"}
FIXED = {"hidden_act": "relu", "downsample_in_first_stage": False,
         "downsample_in_bottleneck": False, "model_type": "resnet"}


def complete_resnet(config: dict) -> SimpleNamespace:
    """Add ResNetConfig's defaults to a config; ValueError names what is not implemented."""
    config = {key: value for key, value in config.items() if key != "out_features"}
    cfg = SimpleNamespace(**resolve_config(config, DEFAULTS, FIXED, "ResNetConfig"))
    if cfg.layer_type not in ("basic", "bottleneck"):
        raise ValueError(f"layer_type must be basic or bottleneck, got {cfg.layer_type!r}.")
    if len(cfg.depths) != len(cfg.hidden_sizes):
        raise ValueError(f"depths={tuple(cfg.depths)} and hidden_sizes={tuple(cfg.hidden_sizes)} "
                         "need one number for each stage.")
    return cfg


class BatchNorm(nn.Module):
    """Normalise each channel over batch and places (Ioffe and Szegedy 2015).

    In training by the batch's own mean and variance; in eval mode by their running
    averages, which is what published detectors call a frozen norm.
    """

    def __init__(self, c: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(c))
        self.bias = nn.Parameter(torch.zeros(c))
        self.register_buffer("running_mean", torch.zeros(c))
        self.register_buffer("running_var", torch.ones(c))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight,
                                self.bias, True, MOMENTUM, EPS)
        scale = self.weight * (self.running_var + EPS).rsqrt()  # (c,)
        shift = self.bias - self.running_mean * scale           # (c,)
        return x * scale[:, None, None] + shift[:, None, None]


class ConvNorm(nn.Module):
    """A convolution without bias, which the norm behind it would take away again."""

    def __init__(self, c_in: int, c_out: int, side: int, stride: int = 1, relu=True):
        super().__init__()
        self.convolution = nn.Conv2d(c_in, c_out, side, stride, side // 2, bias=False)
        self.normalization, self.relu = BatchNorm(c_out), relu

    def forward(self, x: Tensor) -> Tensor:
        x = self.normalization(self.convolution(x))             # (b,c_out,h/s,w/s)
        return F.relu(x) if self.relu else x


class ResidualLayer(nn.Module):
    """Convolutions, a residual connection (He et al., figure 5: basic, bottleneck)."""

    def __init__(self, c_in: int, c_out: int, stride: int, bottleneck: bool):
        super().__init__()
        same, c = c_in == c_out and stride == 1, c_out // 4
        self.shortcut = (nn.Identity() if same
                         else ConvNorm(c_in, c_out, 1, stride, relu=False))
        if bottleneck:
            layers = (ConvNorm(c_in, c, 1), ConvNorm(c, c, 3, stride),
                      ConvNorm(c, c_out, 1))
        else:
            layers = ConvNorm(c_in, c_out, 3, stride), ConvNorm(c_out, c_out, 3)
        layers[-1].relu = False                                 # comes after the sum
        self.layer = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)                                       # (b,c_out,h/s,w/s)
        y += self.shortcut(x)                                   # one map less in memory
        return F.relu(y)


class Stem(nn.Module):
    """The first two halvings: one wide convolution, one maximum over neighbours."""

    def __init__(self, c_in: int, c_out: int):
        super().__init__()
        self.embedder = ConvNorm(c_in, c_out, 7, 2)

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(self.embedder(x), 3, 2, 1)          # (b,c_out,h/4,w/4)


class Stages(nn.Module):
    """The stages one after the other; each but the first begins by halving the size."""

    def __init__(self, cfg: SimpleNamespace):
        super().__init__()
        self.stages, c_in = nn.ModuleList(), cfg.embedding_size
        for i, (c, depth) in enumerate(zip(cfg.hidden_sizes, cfg.depths, strict=True)):
            layers = [ResidualLayer(c if j else c_in, c, 2 if i and not j else 1,
                                    cfg.layer_type == "bottleneck") for j in range(depth)]
            self.stages.append(nn.ModuleDict({"layers": nn.Sequential(*layers)}))
            c_in = c

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.stages:
            x = stage["layers"](x)                              # smaller, wider
        return x


class ResNet(nn.Module):
    """A picture (b,3,h,w) to a map (b,c,h/f,w/f), f = 4 for one stage, twice that for each more.

    It starts as He et al. 2015 (arXiv 1502.01852) draw weights before a ReLU. `width` is c.
    """

    def __init__(self, **config):
        super().__init__()
        cfg = complete_resnet(config)
        self.width = cfg.hidden_sizes[-1]
        self.embedder, self.encoder = Stem(cfg.num_channels, cfg.embedding_size), Stages(cfg)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder(self.embedder(x))


class DenseClassifier(nn.Module):
    """A backbone's pre-training: name what each place of its map shows.

    Logits (b,num_labels+1,h/f,w/f), the last for no thing. DETR's own backbone went to
    ImageNet's thousand classes; ours learns the world's.
    """

    def __init__(self, num_labels: int, backbone_config: dict):
        super().__init__()
        self.model = ResNet(**backbone_config)
        self.classifier = nn.Conv2d(self.model.width, num_labels + 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.model(x))
