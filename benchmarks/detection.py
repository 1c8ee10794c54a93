"""DETR against transformers' of the same config: a training step, the matcher, the losses."""

import torch
from transformers import DetrConfig, DetrForObjectDetection, ResNetConfig
from transformers.loss.loss_for_object_detection import HungarianMatcher, ImageLoss

from gligen_lessons import device
from gligen_lessons.boxes import cxcywh_from_xyxy
from gligen_lessons.detr import DETR, hungarian_loss, match
from gligen_lessons.recipes.detr import SMALL_DETR
from gligen_lessons.resnet import BatchNorm

from .pairs import ratio


def twins():
    """Transformers' detector, backbone unfrozen, and ours with the same weights.

    Theirs knows frozen norms only, so ours keeps its norms frozen too, their weights included.
    """
    torch.manual_seed(0)
    keys = dict(SMALL_DETR)
    backbone = ResNetConfig(**keys.pop("backbone_config"), out_features=["stage2"])
    theirs = DetrForObjectDetection(DetrConfig(
        backbone_config=backbone, use_timm_backbone=False, use_pretrained_backbone=False,
        backbone=None, auxiliary_loss=False, **keys)).requires_grad_(True)
    ours = DETR(**SMALL_DETR)
    ours.load_state_dict(theirs.state_dict())
    ours.train().model.backbone.eval()
    for module in ours.modules():
        if isinstance(module, BatchNorm):
            module.requires_grad_(False)
    return theirs.to(device.pick()).train(), ours.to(device.pick())


def truth(batch: int, g: torch.Generator) -> tuple[list, list]:
    """1 to 6 targets a picture."""
    counts = torch.randint(1, 7, (batch,), generator=g).tolist()
    corners = [torch.rand(n, 2, 2, generator=g).sort(1).values.flatten(1) for n in counts]
    targets = [cxcywh_from_xyxy(box + torch.tensor([-.01, -.01, .01, .01])).clamp(.01, .99)
               for box in corners]
    where = device.pick()
    return ([torch.randint(12, (n,), generator=g).to(where) for n in counts],
            [inside(box).to(where) for box in targets])


def inside(boxes: torch.Tensor) -> torch.Tensor:
    """Boxes cxcywh narrowed until they lie in the picture."""
    middle, size = boxes.split(2, 1)
    return torch.cat([middle, torch.minimum(size, 2 * torch.minimum(middle, 1 - middle))], 1)


def detection_rows(batch: int = 16, many: int = 64) -> tuple[list[tuple], tuple]:
    """Rows for a training step of the network and the losses; and the one for the matcher."""
    theirs, ours = twins()
    g, where = device.generator(0), device.pick()
    x = device.noise((batch, 3, 128, 128), g)

    def step(run):
        logits, boxes = run()
        (logits.square().mean() + boxes.square().mean()).backward()

    def their_run():
        found = theirs(x)
        return found.logits, found.pred_boxes

    rows = [("DETR, training step", *ratio(lambda: step(their_run), lambda: step(lambda: ours(x))))]
    logits = device.noise((many, 20, 13), g)
    boxes = inside(torch.rand(many * 20, 4, generator=g).clamp(.05, .95))
    boxes = boxes.view(many, 20, 4).to(where)
    labels, targets = truth(many, g)
    matcher = HungarianMatcher(1, 5, 2)
    losses = ImageLoss(matcher, 12, .1, ["labels", "boxes"]).to(where)
    answers = {"logits": logits.requires_grad_(), "pred_boxes": boxes.requires_grad_()}
    true = [{"class_labels": label, "boxes": box}
            for label, box in zip(labels, targets, strict=True)]
    rows.append(("DETR, losses and gradient", *ratio(
        lambda: sum(losses(answers, true).values()).backward(),
        lambda: sum(hungarian_loss(logits, boxes, labels, targets).values()).backward())))
    return rows, (f"matcher, {many} pictures", *ratio(
        lambda: matcher(answers, true), lambda: match(logits, boxes, labels, targets)))
