"""The U-Net of every lesson: keys, names and arithmetic of UNet2DConditionModel."""

from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .nets import (
    Downsample2D,
    ResnetBlock2D,
    SpatialAttention,
    TimestepEmbedding,
    Transformer2D,
    Upsample2D,
    resolve_config,
    timestep_embedding,
)

# what a config may choose, and diffusers' choice where it does not
DEFAULTS = {
    "sample_size": None, "in_channels": 4, "out_channels": 4, "layers_per_block": 2,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "block_out_channels": (320, 640, 1280, 1280), "norm_num_groups": 32,
    "cross_attention_dim": 1280, "attention_head_dim": 8,
}
# what diffusers could do as well and this network does not: these values and no others
FIXED = {
    "act_fn": "silu", "addition_embed_type_num_heads": 64, "attention_type": "default",
    "center_input_sample": False, "class_embeddings_concat": False, "conv_in_kernel": 3,
    "conv_out_kernel": 3, "downsample_padding": 1, "dropout": 0.0, "freq_shift": 0,
    "dual_cross_attention": False, "flip_sin_to_cos": True, "mid_block_scale_factor": 1,
    "norm_eps": 1e-5, "only_cross_attention": False, "resnet_out_scale_factor": 1.0,
    "resnet_skip_time_act": False, "resnet_time_scale_shift": "default",
    "time_embedding_type": "positional", "transformer_layers_per_block": 1,
    "upcast_attention": False, "use_linear_projection": False,
} | dict.fromkeys((
    "addition_embed_type", "addition_time_embed_dim", "class_embed_type",
    "cross_attention_norm", "encoder_hid_dim", "encoder_hid_dim_type",
    "mid_block_only_cross_attention", "num_attention_heads", "num_class_embeds",
    "projection_class_embeddings_input_dim", "reverse_transformer_layers_per_block",
    "time_cond_proj_dim", "time_embedding_act_fn", "time_embedding_dim",
    "timestep_post_act"))
BLOCKS = {
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "CrossAttnDownBlock2D"),
    "mid_block_type": ("UNetMidBlock2D", "UNetMidBlock2DCrossAttn"),
    "up_block_types": ("UpBlock2D", "AttnUpBlock2D", "CrossAttnUpBlock2D"),
}


def with_defaults(config: dict) -> SimpleNamespace:
    """Add diffusers' defaults to a config, one entry a level where levels may differ.

    ValueError names what this network does not implement (see `nets.resolve_config`).
    """
    full = resolve_config(config, DEFAULTS, FIXED, "UNet2DConditionModel")
    widths, groups = full["block_out_channels"], full["norm_num_groups"]
    for key in ("layers_per_block", "attention_head_dim", *BLOCKS):
        if isinstance(full[key], int):
            full[key] = (full[key],) * len(widths)
        if key != "mid_block_type" and len(full[key]) != len(widths):
            raise ValueError(f"{key} needs one entry for each of block_out_channels="
                             f"{tuple(widths)}, got {full[key]!r}.")
    for key, known in BLOCKS.items():
        for kind in [full[key]] if key == "mid_block_type" else full[key]:
            if kind not in known:
                raise ValueError(f"{key}: {kind!r} is not implemented, only "
                                 f"{', '.join(known)}.")
    if not isinstance(groups, int) or any(c % groups for c in widths) or widths[0] % 2:
        raise ValueError(f"block_out_channels={tuple(widths)} must be divisible by "
                         f"norm_num_groups={groups}, and the first one even.")
    if not isinstance(full["cross_attention_dim"], int):
        raise ValueError("cross_attention_dim must be one whole number for all levels, "
                         f"got {full['cross_attention_dim']!r}.")
    return SimpleNamespace(**full, time_width=4 * widths[0], bottom=len(widths) - 1)


def attention_for(kind: str, c: int, size: int, cfg: SimpleNamespace):
    """The attention after a ResBlock in a block of this kind: an nn.Module, or None.

    `size` is the config's attention_head_dim: by an old mistake of diffusers the NUMBER of
    heads in CrossAttn blocks, and the WIDTH of one head in Attn blocks.
    """
    if "Attn" not in kind:
        return None
    if size < 1 or c % size:
        raise ValueError(f"attention_head_dim={size} does not divide the {c} channels "
                         f"of a {kind}.")
    if "CrossAttn" in kind:
        return Transformer2D(c, size, cfg.cross_attention_dim, cfg.norm_num_groups)
    return SpatialAttention(c, c // size, cfg.norm_num_groups)


class DownBlock(nn.Module):
    """One level on the way down: ResBlocks with their attention, then half the size.

    Every result is also put on the stack `skips`, where the way up finds it.
    """

    def __init__(self, cfg: SimpleNamespace, level: int):
        super().__init__()
        c, kind = cfg.block_out_channels[level], cfg.down_block_types[level]
        size = cfg.attention_head_dim[level]
        c_ins = [cfg.block_out_channels[max(level - 1, 0)]]
        c_ins += [c] * (cfg.layers_per_block[level] - 1)
        self.resnets = nn.ModuleList(
            ResnetBlock2D(c_in, c, cfg.time_width, cfg.norm_num_groups)
            for c_in in c_ins)
        self.attentions = nn.ModuleList(
            attention_for(kind, c, size, cfg) for _ in c_ins)
        self.downsamplers = nn.ModuleList(
            [Downsample2D(c)] if level < cfg.bottom else [])

    def forward(self, x: Tensor, skips: list, temb: Tensor, context, objs) -> Tensor:
        for resnet, attention in zip(self.resnets, self.attentions, strict=True):
            x = resnet(x, temb)                                 # (b,c,h,w)
            if attention is not None:
                x = attention(x, context, objs)                 # (b,c,h,w)
            skips.append(x)
        for downsample in self.downsamplers:
            x = downsample(x)                                   # (b,c,h/2,w/2)
            skips.append(x)
        return x


class MidBlock(nn.Module):
    """The bottom of the U: one ResBlock, or attention between two of them."""

    def __init__(self, cfg: SimpleNamespace):
        super().__init__()
        c, kind = cfg.block_out_channels[-1], cfg.mid_block_type
        attention = attention_for(kind, c, cfg.attention_head_dim[-1], cfg)
        self.attentions = nn.ModuleList([] if attention is None else [attention])
        self.resnets = nn.ModuleList(
            ResnetBlock2D(c, c, cfg.time_width, cfg.norm_num_groups)
            for _ in range(1 + len(self.attentions)))

    def forward(self, x: Tensor, skips: list, temb: Tensor, context, objs) -> Tensor:
        x = self.resnets[0](x, temb)                            # (b,c,h,w)
        for attention, resnet in zip(self.attentions, self.resnets[1:], strict=True):
            x = resnet(attention(x, context, objs), temb)       # (b,c,h,w)
        return x


class UpBlock(nn.Module):
    """One level on the way up: ResBlocks that read the stack, then twice the size."""

    def __init__(self, cfg: SimpleNamespace, level: int):
        super().__init__()
        widths, layers = cfg.block_out_channels, cfg.layers_per_block[level]
        c, place = widths[level], cfg.bottom - level            # the bottom comes first
        kind = cfg.up_block_types[place]
        # on the way up diffusers reverses numbers of heads, but not widths of heads
        size = cfg.attention_head_dim[level if "Cross" in kind else place]
        c_ins = [widths[min(level + 1, cfg.bottom)]] + [c] * layers
        c_skips = [c] * layers + [widths[max(level - 1, 0)]]
        self.resnets = nn.ModuleList(
            ResnetBlock2D(c_in + c_skip, c, cfg.time_width, cfg.norm_num_groups)
            for c_in, c_skip in zip(c_ins, c_skips, strict=True))
        self.attentions = nn.ModuleList(
            attention_for(kind, c, size, cfg) for _ in c_ins)
        self.upsamplers = nn.ModuleList([Upsample2D(c)] if level > 0 else [])

    def forward(self, x: Tensor, skips: list, temb: Tensor, context, objs) -> Tensor:
        for resnet, attention in zip(self.resnets, self.attentions, strict=True):
            x = torch.cat([x, skips.pop()], dim=1)              # (b,c_in+c_skip,h,w)
            x = resnet(x, temb)                                 # (b,c,h,w)
            if attention is not None:
                x = attention(x, context, objs)                 # (b,c,h,w)
        for upsample in self.upsamplers:
            x = upsample(x, skips[-1].shape[2:])                # (b,c,2h,2w)
        return x


class UNet(nn.Module):
    """Predict the noise in a picture (DDPM, section 4; the U is Ronneberger et al. 2015).

    `config` is the dict of keys it was built from. `position_net` is an empty slot:
    lesson 8 fills it, and the `fuser` of every transformer block, with GLIGEN's parts.
    """

    def __init__(self, **config):
        super().__init__()
        self.config, cfg = config, with_defaults(config)
        kinds = (*cfg.down_block_types, cfg.mid_block_type, *cfg.up_block_types)
        reads = any("CrossAttn" in kind for kind in kinds)
        self.context_width = cfg.cross_attention_dim if reads else None
        c, levels = cfg.block_out_channels[0], range(cfg.bottom + 1)
        self.conv_in = nn.Conv2d(cfg.in_channels, c, 3, padding=1)
        self.time_embedding = TimestepEmbedding(c, cfg.time_width)
        self.down_blocks = nn.ModuleList(DownBlock(cfg, level) for level in levels)
        self.mid_block = MidBlock(cfg)
        self.up_blocks = nn.ModuleList(UpBlock(cfg, level) for level in levels[::-1])
        self.conv_norm_out = nn.GroupNorm(cfg.norm_num_groups, c)
        self.conv_out = nn.Conv2d(c, cfg.out_channels, 3, padding=1)
        self.position_net = None

    def forward(self, xt: Tensor, t: Tensor, context: Tensor | None = None,
                grounding=None) -> Tensor:
        """The noise eps_hat in xt (b,c_in,h,w) at steps t (b,), a long tensor.

        context (b,n,cross_attention_dim): the words, needed by CrossAttn blocks;
        grounding: its fields go to the position net by name. Errors: see `check_boxes`.
        """
        self.check(xt, t, context, grounding)
        objs = None
        if grounding is not None:
            objs = self.position_net(**vars(grounding))         # (b,m,d_objs)
        sinusoids = timestep_embedding(t, self.conv_in.out_channels)
        temb = self.time_embedding(sinusoids.to(xt.dtype))          # (b,4c)
        x = self.conv_in(xt)                                    # (b,c,h,w)
        skips = [x]
        for block in (*self.down_blocks, self.mid_block, *self.up_blocks):
            x = block(x, skips, temb, context, objs)            # down the U, then up
        return self.conv_out(F.silu(self.conv_norm_out(x)))     # (b,c_out,h,w)

    def check(self, xt: Tensor, t: Tensor, context: Tensor | None, grounding) -> None:
        """Refuse input that this network cannot read (ValueError, TypeError)."""
        weight, c = self.conv_in.weight, self.conv_in.in_channels
        if xt.ndim != 4 or xt.shape[1] != c or 0 in xt.shape:
            raise ValueError(f"xt must be (b,{c},h,w) with at least one picture, got "
                             f"shape {tuple(xt.shape)}.")
        if not isinstance(t, Tensor) or t.dtype not in (torch.int64, torch.int32):
            raise TypeError("t must be a tensor of whole steps (torch.long), got "
                            f"{getattr(t, 'dtype', type(t).__name__)}.")
        b, reads = len(xt), self.context_width is not None
        if t.shape != (b,):
            raise ValueError(f"t must hold one step for each of the {b} pictures, got "
                             f"shape {tuple(t.shape)}.")
        if t.min() < 0:
            raise ValueError(f"t must not be negative, got {int(t.min())}: steps count "
                             "from 0.")
        shape = () if context is None else tuple(context.shape)
        if reads and (len(shape) != 3 or shape[::2] != (b, self.context_width)):
            raise ValueError(f"context must be ({b},n,{self.context_width}) for the "
                             f"cross-attention blocks, got {shape or None}.")
        if grounding is not None and self.position_net is None:
            raise ValueError("These weights have no gates to read grounding with: load "
                             "grounded weights, or leave grounding out.")
        mixed = torch.is_autocast_enabled(weight.device.type)   # then torch casts
        for name, x in (("xt", xt), ("t", t), ("context", context if reads else xt)):
            if x.device != weight.device:
                raise ValueError(f"{name} is on {x.device}, the weights are on "
                                 f"{weight.device}: bring them together with .to(...).")
            if x is not t and x.dtype != weight.dtype and not mixed:
                raise TypeError(f"{name} is {x.dtype}, the weights are {weight.dtype}: "
                                "cast one of them with .to(...).")
