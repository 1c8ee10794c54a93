"""DETR: detection as set prediction (Carion et al. 2020, arXiv 2005.12872).

Keys, names and arithmetic of transformers' DetrForObjectDetection. x (b,3,h,w) is a picture in
[-1, 1]. Of each picture the network says q things at once: logits (b,q,C+1), the last class for
"nothing", and boxes (b,q,4) as normalised cxcywh. What is true comes as one labels
(n,) and one targets (n,4), cxcywh, for each picture.
"""

from dataclasses import dataclass
from itertools import permutations
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from .boxes import giou, xyxy_from_cxcywh
from .images import resized
from .nets import record_attention, resolve_config
from .resnet import ResNet
from .transformer import DetrDecoder, DetrEncoder, sine_positions

WEIGHTS = {"loss_ce": 1., "loss_bbox": 5., "loss_giou": 2.}     # paper, appendix A.4
EVEN_ODDS = 1 / (1 + .1)            # the score that is as often right as wrong, eos_coef .1
DEFAULTS = {
    "backbone_config": {}, "num_labels": 91, "num_queries": 100, "d_model": 256, "dropout": .1,
    "encoder_layers": 6, "encoder_attention_heads": 8, "encoder_ffn_dim": 2048,
    "decoder_layers": 6, "decoder_attention_heads": 8, "decoder_ffn_dim": 2048,
}
FIXED = {"activation_function": "relu", "position_embedding_type": "sine", "dilation": False,
         "attention_dropout": 0., "activation_dropout": 0., "auxiliary_loss": False,
         "use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None}


def complete_detr(config: dict) -> SimpleNamespace:
    """Add DetrConfig's defaults to a config; ValueError names what is not implemented."""
    cfg = SimpleNamespace(**resolve_config(config, DEFAULTS, FIXED, "DetrConfig"))
    for part in ("encoder", "decoder"):
        heads = getattr(cfg, f"{part}_attention_heads")
        if cfg.d_model % heads or cfg.d_model % 4:
            raise ValueError(f"d_model={cfg.d_model} must be divisible by 4 and by "
                             f"{part}_attention_heads={heads}.")
    return cfg


class DetrModel(nn.Module):
    """Backbone, encoder and decoder: a picture to one state a query and layer."""

    def __init__(self, cfg: SimpleNamespace):
        super().__init__()
        self.backbone = nn.ModuleDict({"model": ResNet(**cfg.backbone_config)})
        self.input_projection = nn.Conv2d(self.backbone["model"].width, cfg.d_model, 1)
        self.query_position_embeddings = nn.Embedding(cfg.num_queries, cfg.d_model)
        d, dropout = cfg.d_model, cfg.dropout
        self.encoder = DetrEncoder(cfg.encoder_layers, d, cfg.encoder_attention_heads,
                                   cfg.encoder_ffn_dim, dropout)
        self.decoder = DetrDecoder(cfg.decoder_layers, d, cfg.decoder_attention_heads,
                                   cfg.decoder_ffn_dim, dropout)
        for part in (self.encoder, self.decoder):
            for weight in part.parameters():
                if weight.ndim > 1:
                    nn.init.xavier_uniform_(weight)

    def forward(self, x: Tensor) -> Tensor:
        features = self.input_projection(self.backbone["model"](x))     # (b,d,h',w')
        position = sine_positions(*features.shape[2:], features.shape[1]).to(features)
        memory = self.encoder(features.flatten(2).transpose(1, 2), position)
        return self.decoder(self.query_position_embeddings.weight, memory, position)


class BoxHead(nn.Module):
    """Three linear layers from a query's state to a box (paper, section 3.2)."""

    def __init__(self, d: int):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(d, d), nn.Linear(d, d), nn.Linear(d, 4)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x).sigmoid()                     # cxcywh in (0, 1)


class DETR(nn.Module):
    """The whole detector; `config` is the dict of DetrConfig's keys that made it."""

    def __init__(self, **config):
        super().__init__()
        self.config, cfg = config, complete_detr(config)
        self.model = DetrModel(cfg)
        self.class_labels_classifier = nn.Linear(cfg.d_model, cfg.num_labels + 1)
        self.bbox_predictor = BoxHead(cfg.d_model)

    def every_layer(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Each decoder layer's logits (layers,b,q,C+1) and boxes (layers,b,q,4)."""
        if x.ndim != 4 or x.shape[1] != 3:
            raise ValueError(f"Pictures must be (b,3,h,w), got shape {tuple(x.shape)}; "
                             "a grey one has 1 channel, one with alpha 4: "
                             "Image.convert('RGB') gives 3.")
        states = self.model(x)                                  # (layers,b,q,d)
        return self.class_labels_classifier(states), self.bbox_predictor(states)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (b,q,C+1) and boxes (b,q,4) of the last layer."""
        logits, boxes = self.every_layer(x)
        return logits[-1], boxes[-1]


def brute_force_assignment(cost: Tensor) -> Tensor:
    """A row of its own for each column of a cost (q,n), cheapest in all, (n,); q >= n.

    The paper's sigma (eq. 1): entry i is the row (query) that answers for column i.
    """
    q, n = cost.shape
    columns, tries = torch.arange(n), permutations(range(q), n)
    best = min(tries, key=lambda rows: cost[list(rows), columns].sum())
    return torch.tensor(best, dtype=torch.long)


def matching_cost(logits: Tensor, boxes: Tensor, labels: Tensor,
                  targets: Tensor) -> Tensor:
    """What it would cost to hold each query responsible for each target, (...,q,n).

    logits (...,q,C+1), boxes (...,q,4), labels (...,n), targets (...,n,4). Minus the
    probability of the label (not its logarithm), L1 and generalised IoU (paper, 3.1).
    """
    index = labels[..., None, :].expand(*logits.shape[:-1], labels.shape[-1])
    p = logits.softmax(-1).gather(-1, index)                    # (...,q,n)
    l1 = (boxes[..., :, None, :] - targets[..., None, :, :]).abs().sum(-1)
    overlap = giou(xyxy_from_cxcywh(boxes), xyxy_from_cxcywh(targets))
    return -p + WEIGHTS["loss_bbox"] * l1 - WEIGHTS["loss_giou"] * overlap


@torch.no_grad()
def match(logits: Tensor, boxes: Tensor, labels: list[Tensor],
          targets: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """The cheapest assignment of queries to targets of each picture (paper, eq. 1).

    One (rows, cols) a picture: query rows[i] answers for target cols[i]; rows rise.
    """
    check_targets(logits, labels, targets)
    cost = matching_cost(logits.float(), boxes.float(), pad_sequence(labels, True),
                         pad_sequence(targets, True)).cpu()     # (b,q,most targets)
    if not bool(cost.isfinite().all()):
        raise ValueError("The matching costs hold NaN or infinity: so do the answers.")
    pairs = [linear_sum_assignment(one[:, :len(label)])
             for one, label in zip(cost.numpy(), labels, strict=True)]
    return [(torch.from_numpy(rows), torch.from_numpy(cols)) for rows, cols in pairs]


def hungarian_loss(logits: Tensor, boxes: Tensor, labels: list[Tensor],
                   targets: list[Tensor], eos_coef: float = .1) -> dict[str, Tensor]:
    """The three losses of a batch under its cheapest matching (paper, eq. 2 and A.2).

    "Nothing" weighs eos_coef in the cross-entropy, a weighted mean; both box losses are
    sums over all targets of the batch, divided by their number. In 32 bits.
    """
    logits, boxes = logits.float(), boxes.float()
    pairs, nothing = match(logits, boxes, labels, targets), logits.shape[2] - 1
    image = torch.cat([torch.full_like(rows, i) for i, (rows, _) in enumerate(pairs)])
    query = torch.cat([rows for rows, _ in pairs])              # (all targets,)
    wanted = torch.full(logits.shape[:2], nothing, device=logits.device)
    wanted[image, query] = in_order(labels, pairs)
    weight = torch.ones(nothing + 1, device=logits.device)
    weight[nothing] = eos_coef
    found, true = boxes[image, query], in_order(targets, pairs)     # (all targets,4)
    overlap = giou(xyxy_from_cxcywh(found)[:, None], xyxy_from_cxcywh(true)[:, None])
    count = max(1, len(true))
    return {"loss_ce": F.cross_entropy(logits.transpose(1, 2), wanted, weight),
            "loss_bbox": (found - true).abs().sum() / count,
            "loss_giou": (1 - overlap).sum() / count}


def in_order(values: list[Tensor], pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
    """What belongs to each matched query, picture after picture, (all targets,...)."""
    return torch.cat([value[cols]
                      for value, (_, cols) in zip(values, pairs, strict=True)])


def detection_loss(logits: Tensor, boxes: Tensor, labels: list[Tensor],
                   targets: list[Tensor]) -> Tensor:
    """The weighted losses of all decoder layers, summed (paper, 3.2: auxiliary losses).

    logits (layers,b,q,C+1), boxes (layers,b,q,4). Each layer has a matching of its own;
    since all have the same number of targets, the sum is `layers` times the loss of one
    large batch.
    """
    layers = len(logits)
    losses = hungarian_loss(logits.flatten(0, 1), boxes.flatten(0, 1), labels * layers,
                            targets * layers)
    return layers * sum(WEIGHTS[name] * loss for name, loss in losses.items())


def check_targets(logits: Tensor, labels: list[Tensor], targets: list[Tensor]) -> None:
    """ValueError with one sentence on the first picture whose targets cannot be right."""
    b, queries, classes = logits.shape[0], logits.shape[1], logits.shape[2] - 1
    if not len(labels) == len(targets) == b:
        raise ValueError(f"{b} pictures need {b} tensors of labels and of targets, got "
                         f"{len(labels)} and {len(targets)}.")
    for i, (label, target) in enumerate(zip(labels, targets, strict=True)):
        n = len(label)
        if label.ndim != 1 or label.dtype != torch.int64 or target.shape != (n, 4):
            raise ValueError(f"Picture {i}: labels must be whole numbers (n,) and targets (n,4), "
                             f"got {label.dtype} {tuple(label.shape)} and {tuple(target.shape)}.")
        if n > queries:
            raise ValueError(f"Picture {i} has {n} targets, but only {queries} queries answer: "
                             "give the network more queries, or drop targets.")
    every, boxes = torch.cat(labels), torch.cat(targets)
    good = valid_boxes(boxes) & (every >= 0) & (every < classes)
    if not bool(good.all()):
        owner = torch.cat([torch.full((len(label),), i) for i, label in enumerate(labels)])
        first = int((~good).nonzero()[0])
        problem = explain_invalid(boxes[first], every[first], classes)
        raise ValueError(f"Picture {int(owner[first])}: {problem}")


def valid_boxes(targets: Tensor) -> Tensor:
    """Which targets (n,4) cxcywh are boxes inside the picture, (n,) bool; rounding is forgiven."""
    corners = xyxy_from_cxcywh(targets)
    inside = ((corners > -1e-3) & (corners < 1 + 1e-3)).all(1)  # NaN is never inside
    return inside & (targets[:, 2:] > 0).all(1)


def explain_invalid(target: Tensor, label: Tensor, classes: int) -> str:
    """What is wrong with one target, as a sentence."""
    box = [float(f"{x:.6g}") for x in target.tolist()]
    if not 0 <= label < classes:
        return f"label {int(label)} is none of the {classes} classes, which count from 0."
    if not bool(target.isfinite().all()):
        return f"target {box} holds NaN or infinity."
    if float(target.max()) > 1.5:
        return f"target {box} looks like pixels: divide it by the picture's width and height."
    if bool((target[2:] <= 0).any()):
        return f"target {box} has no width or height; a target is cx, cy, w, h in 0..1."
    x0, y0, x1, y1 = target.tolist()
    hint = (" It looks like left, top, right, bottom: boxes.cxcywh_from_xyxy turns it."
            if 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1 else "")
    return f"target {box}, read as cx, cy, w, h, reaches out of the picture.{hint}"


@dataclass(frozen=True)
class Detections:
    """What is found in one picture: scores (n,), labels (n,), boxes_xyxy (n,4), queries (n,)."""

    scores: Tensor
    labels: Tensor
    boxes_xyxy: Tensor
    queries: Tensor


def postprocess(logits: Tensor, boxes: Tensor,
                threshold: float = 0.) -> list[Detections]:
    """Each picture's answers surer than `threshold` of being something (sec. 4).

    The score is the largest probability of a class; "nothing" is left out of the
    choice, not of the softmax. No suppression: queries were taught not to repeat each
    other.
    """
    scores, labels = logits.softmax(-1)[..., :-1].max(-1)       # (b,q) twice
    corners, found = xyxy_from_cxcywh(boxes), []
    for score, label, box in zip(scores, labels, corners, strict=True):
        sure = (score > threshold).nonzero().flatten()
        found.append(Detections(score[sure], label[sure], box[sure], sure))
    return found


@torch.no_grad()
def detect(model: DETR, x: Tensor, threshold: float = EVEN_ODDS,
           batch: int = 64) -> list[Detections]:
    """What a trained model finds in pictures (b,3,h,w) of any size, on the CPU.

    They are brought to the 128 px that it was trained on; boxes are normalised.
    As "nothing" weighs little in the loss, scores are high: see EVEN_ODDS (lesson 7).
    TypeError for pictures of whole numbers, ValueError for answers that are not finite.
    """
    where, found = next(model.parameters()).device, []
    for part in x.split(batch):
        found += postprocess(*answers(model, resized(part.to(where))), threshold)
    return found


def answers(model: DETR, x: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and boxes of pictures in 32 bits on the CPU; ValueError where they are not finite."""
    logits, boxes = (answer.float().cpu() for answer in model(x))
    if not bool(logits.isfinite().all() and boxes.isfinite().all()):
        raise ValueError("The detector answers with NaN or infinity: are the pictures finite, and "
                         "in [-1, 1]?")
    return logits, boxes


@torch.no_grad()
def query_maps(model: DETR, x: Tensor) -> Tensor:
    """What each query attends to in its last layer, (b,q,h',w'): the mean over the heads."""
    last = {"last": model.model.decoder.layers[-1].encoder_attn}
    with record_attention(last, lambda layer, *inputs: layer.map(*inputs)) as maps:
        model(x)
    h, w = model.model.backbone["model"](x[:1]).shape[2:]
    return maps["last"][0].mean(1).unflatten(2, (h, w))
