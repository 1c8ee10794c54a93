"""CLIP: pictures and captions in one space (Radford et al. 2021, arXiv 2103.00020).

Keys, names and arithmetic of transformers' CLIPModel. ids (b,n) are tokens of captions, pixels
(b,3,h,w) pictures in [-1, 1]; d is a tower's width.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .nets import join_heads, resolve_config, split_heads

LOG_SCALE_START, LOG_SCALE_MAX = math.log(1 / .07), math.log(100)    # paper, section 2.5
TOWER = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12,
         "num_attention_heads": 8, "layer_norm_eps": 1e-5, "projection_dim": 512}
TEXT = TOWER | {"vocab_size": 49408, "max_position_embeddings": 77, "bos_token_id": 49406,
                "eos_token_id": 49407, "pad_token_id": 1}
VISION = TOWER | {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12,
                  "image_size": 224, "patch_size": 32, "num_channels": 3}
FIXED = {"hidden_act": "quick_gelu", "attention_dropout": 0.0, "dropout": 0.0,
         "initializer_factor": 1.0, "initializer_range": .02}
LARGEST = 2                  # an eos_token_id that old configs hold: the end is the largest number


def quick_gelu(x: Tensor) -> Tensor:
    """The activation of the released CLIP: x times the sigmoid of 1.702 x."""
    return x * torch.sigmoid(1.702 * x)


def pool(states: Tensor, ids: Tensor, eos: int) -> Tensor:
    """The state of each caption's end token, (b,d) of (b,n,d) (CLIP, section 2.4).

    It is the first `eos` in ids (b,n): padding repeats it.
    """
    first = (ids == eos).int().argmax(1)                        # (b,)
    return states[torch.arange(len(ids), device=ids.device), first]


def check_ends(ids: Tensor, eos: int) -> None:
    """Refuse captions (b,n) of which one has no end token (ValueError)."""
    if not bool((ids == eos).any(1).all()):
        raise ValueError(f"A caption has no end token ({eos}): was it cut without one?")


def similarity(images: Tensor, texts: Tensor, log_scale: Tensor) -> Tensor:
    """Cosine of each picture (b,d) and caption (m,d), times exp(log_scale): (b,m)."""
    images = F.normalize(images, dim=-1)                        # (b,d), length one
    texts = F.normalize(texts, dim=-1)                          # (m,d), length one
    return log_scale.exp() * images @ texts.T                   # (b,m)


def clip_loss(logits: Tensor) -> Tensor:
    """Which caption belongs to a picture, which picture to a caption (CLIP, figure 3).

    logits (b,b), pictures in rows; the true pairs lie on the diagonal. The mean of two
    cross-entropies.
    """
    own = torch.arange(len(logits), device=logits.device)       # (b,)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def hard_negative_loss(logits: Tensor) -> Tensor:
    """clip_loss with wrong captions behind the right ones (as in arXiv 2210.01936).

    logits (b,b+w): the true pairs lie on the diagonal, the last w captions belong to no
    picture. Pictures choose among all captions, the b right captions among pictures.
    """
    b = len(logits)
    own = torch.arange(b, device=logits.device)                 # (b,)
    by_picture = F.cross_entropy(logits, own)                   # among b+w captions
    return (by_picture + F.cross_entropy(logits[:, :b].T, own)) / 2


def clamp_scale(model: "CLIP") -> None:
    """Before each step: keep the factor of the logits below 100 (CLIP, section 2.5)."""
    with torch.no_grad():
        model.logit_scale.clamp_(max=LOG_SCALE_MAX)


def zero_shot(model: "CLIP", tokenize: Callable, pixels: Tensor,
              prompts: list[list[str]]) -> Tensor:
    """How likely each class is for each picture, (b,classes) (CLIP, section 3.1).

    `prompts` holds for each class the captions that it may have; their directions are
    averaged into one vector a class. tokenize(list) -> ids on the model's device.
    """
    classes = []
    for texts in prompts:
        features = model.encode_text(tokenize(texts))           # (m,d)
        classes.append(F.normalize(features, dim=-1).mean(0))   # (d,)
    images = model.encode_image(pixels)                         # (b,d)
    return similarity(images, torch.stack(classes), model.logit_scale).softmax(1)


def retrieval(logits: Tensor) -> float:
    """The part of captions (columns) whose own picture (same row) scores highest."""
    own = torch.arange(len(logits), device=logits.device)
    return float((logits.argmax(0) == own).float().mean())


class SelfAttention(nn.Module):
    """Every token attends to all; with `causal` only to itself and those before."""

    def __init__(self, d: int, heads: int, causal: bool):
        super().__init__()
        self.heads, self.causal = heads, causal
        self.k_proj, self.v_proj = nn.Linear(d, d), nn.Linear(d, d)
        self.q_proj, self.out_proj = nn.Linear(d, d), nn.Linear(d, d)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (split_heads(proj(x), self.heads)             # (b,k,n,d/k) each
                   for proj in (self.q_proj, self.k_proj, self.v_proj))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.out_proj(join_heads(y))                     # (b,n,d)


class MLP(nn.Module):
    """Two linear layers that process each token alone."""

    def __init__(self, d: int, d_inner: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(d, d_inner), nn.Linear(d_inner, d)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(quick_gelu(self.fc1(x)))                # (b,n,d)


class EncoderLayer(nn.Module):
    """Attention, then the MLP: each reads a normed copy of x, and is added to x."""

    def __init__(self, cfg: dict, causal: bool):
        super().__init__()
        d, eps = cfg["hidden_size"], cfg["layer_norm_eps"]
        self.self_attn = SelfAttention(d, cfg["num_attention_heads"], causal)
        self.layer_norm1 = nn.LayerNorm(d, eps)
        self.mlp = MLP(d, cfg["intermediate_size"])
        self.layer_norm2 = nn.LayerNorm(d, eps)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x))             # (b,n,d)
        return x + self.mlp(self.layer_norm2(x))                # (b,n,d)


class EncoderLayers(nn.Module):
    """The layers of a tower, one after the other."""

    def __init__(self, cfg: dict, causal: bool):
        super().__init__()
        self.layers = nn.ModuleList(
            EncoderLayer(cfg, causal) for _ in range(cfg["num_hidden_layers"]))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x                                                # (b,n,d)


class TextEmbeddings(nn.Module):
    """What a token means plus where it stands."""

    def __init__(self, cfg: dict):
        super().__init__()
        d = cfg["hidden_size"]
        self.token_embedding = nn.Embedding(cfg["vocab_size"], d)
        self.position_embedding = nn.Embedding(cfg["max_position_embeddings"], d)

    def forward(self, ids: Tensor) -> Tensor:
        return self.token_embedding(ids) + self.position_embedding.weight[:ids.shape[1]]


class TextModel(nn.Module):
    """The text tower; loads as transformers' CLIPTextModel.

    Its states (b,n,d) are what cross-attention reads in latent diffusion.
    """

    def __init__(self, **config):
        super().__init__()
        self.config, cfg = config, resolve_config(config, TEXT, FIXED, "CLIPTextConfig")
        self.eos, self.length = cfg["eos_token_id"], cfg["max_position_embeddings"]
        if self.eos == LARGEST:
            self.eos = cfg["vocab_size"] - 1
        self.embeddings, self.encoder = TextEmbeddings(cfg), EncoderLayers(cfg, causal=True)
        self.final_layer_norm = nn.LayerNorm(cfg["hidden_size"], cfg["layer_norm_eps"])

    def forward(self, ids: Tensor) -> Tensor:
        """The state (b,n,d) of every token of ids (b,n), after the last norm."""
        if ids.ndim != 2 or ids.shape[1] > self.length:
            raise ValueError(f"ids must be (b,n) with n of at most {self.length} tokens, got "
                             f"shape {tuple(ids.shape)}.")
        return self.final_layer_norm(self.encoder(self.embeddings(ids)))


class VisionEmbeddings(nn.Module):
    """Patches as tokens behind a class token, each with its place."""

    def __init__(self, cfg: dict):
        super().__init__()
        d, size = cfg["hidden_size"], cfg["patch_size"]
        self.class_embedding = nn.Parameter(torch.randn(d))
        self.patch_embedding = nn.Conv2d(cfg["num_channels"], d, size, size, bias=False)
        self.position_embedding = nn.Embedding((cfg["image_size"] // size) ** 2 + 1, d)

    def forward(self, pixels: Tensor) -> Tensor:
        patches = self.patch_embedding(pixels).flatten(2).transpose(1, 2)   # (b,n-1,d)
        first = self.class_embedding.expand(len(pixels), 1, -1)             # (b,1,d)
        return torch.cat([first, patches], 1) + self.position_embedding.weight


class VisionModel(nn.Module):
    """The image tower, a vision transformer: the state of its class token, (b,d)."""

    def __init__(self, **config):
        super().__init__()
        self.config, cfg = config, resolve_config(config, VISION, FIXED, "CLIPVisionConfig")
        d, eps, self.side = cfg["hidden_size"], cfg["layer_norm_eps"], cfg["image_size"]
        self.embeddings, self.encoder = VisionEmbeddings(cfg), EncoderLayers(cfg, causal=False)
        self.pre_layrnorm = nn.LayerNorm(d, eps)                # the published spelling
        self.post_layernorm = nn.LayerNorm(d, eps)

    def forward(self, pixels: Tensor) -> Tensor:
        if pixels.shape[1:] != (3, self.side, self.side):
            raise ValueError(f"pixels must be (b,3,{self.side},{self.side}), got shape "
                             f"{tuple(pixels.shape)}.")
        x = self.encoder(self.pre_layrnorm(self.embeddings(pixels)))        # (b,n,d)
        return self.post_layernorm(x[:, 0])                                 # (b,d)


class CLIP(nn.Module):
    """Two towers and the temperature between them; `config` is what it was built from."""

    def __init__(self, text_config: dict, vision_config: dict, projection_dim: int = 512):
        super().__init__()
        self.config = {"text_config": text_config, "vision_config": vision_config,
                       "projection_dim": projection_dim}
        self.text_model, self.vision_model = TextModel(**text_config), VisionModel(**vision_config)
        text_d = self.text_model.final_layer_norm.weight.numel()
        vision_d = self.vision_model.post_layernorm.weight.numel()
        self.text_projection = nn.Linear(text_d, projection_dim, bias=False)
        self.visual_projection = nn.Linear(vision_d, projection_dim, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(LOG_SCALE_START))

    def encode_text(self, ids: Tensor) -> Tensor:
        """Captions (b,n) in the common space, (b,projection_dim), not normalised."""
        states = self.text_model(ids)                           # (b,n,d)
        check_ends(ids, self.text_model.eos)
        return self.text_projection(pool(states, ids, self.text_model.eos))

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Pictures (b,3,h,w) in the common space, (b,projection_dim), not normalised."""
        return self.visual_projection(self.vision_model(pixels))

    def forward(self, ids: Tensor, pixels: Tensor) -> Tensor:
        """logits_per_image (pictures,captions)."""
        return similarity(self.encode_image(pixels), self.encode_text(ids), self.logit_scale)


def initialise(model: CLIP, generator: torch.Generator) -> CLIP:
    """Draw first weights as the released code does: narrower for deeper and wider towers."""
    def draw(weight: Tensor, spread: float) -> None:
        weight.data.copy_(spread * torch.randn(weight.shape, generator=generator))

    for tower in (model.text_model, model.vision_model):
        layers = tower.encoder.layers
        d = layers[0].layer_norm1.weight.numel()
        deep = (2 * len(layers)) ** -.5
        for layer in layers:
            attention = layer.self_attn
            for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
                draw(projection.weight, d**-.5)
            draw(attention.out_proj.weight, d**-.5 * deep)
            draw(layer.mlp.fc1.weight, (2 * d) ** -.5)
            draw(layer.mlp.fc2.weight, d**-.5 * deep)
            for linear in (attention.q_proj, attention.k_proj, attention.v_proj,
                           attention.out_proj, layer.mlp.fc1, layer.mlp.fc2):
                linear.bias.data.zero_()
        draw(tower.embeddings.position_embedding.weight, .01)
    draw(model.text_model.embeddings.token_embedding.weight, .02)
    return model


def without_prefix(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """A text tower's tensors named as TextModel names them, with or without "text_model."."""
    return {name.removeprefix("text_model."): tensor for name, tensor in tensors.items()
            if not name.endswith("position_ids")}
