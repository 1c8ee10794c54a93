"""Our DETR against transformers' network and its losses, and the laws of matching."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import draw, relative_error
from transformers import DetrConfig, DetrForObjectDetection, ResNetConfig
from transformers.loss.loss_for_object_detection import HungarianMatcher, ImageLoss

from gligen_lessons import detr
from gligen_lessons.boxes import cxcywh_from_xyxy, xyxy_from_cxcywh
from gligen_lessons.detr import DETR, hungarian_loss, match, matching_cost
from gligen_lessons.recipes.detr import SMALL_DETR
from gligen_lessons.resnet import BatchNorm, ResNet
from gligen_lessons.transformer import sine_positions


def backbone(**keys) -> dict:
    return dict(embedding_size=6, hidden_sizes=(8, 12), depths=(1, 2), layer_type="basic") | keys


def small(**keys) -> dict:
    return dict(num_labels=5, num_queries=7, d_model=16, encoder_layers=2, decoder_layers=2,
                encoder_attention_heads=2, decoder_attention_heads=4, encoder_ffn_dim=24,
                decoder_ffn_dim=20, backbone_config=backbone()) | keys


CASES = {
    "the course's": SMALL_DETR,
    "small": small(),
    "one layer each, one stage": small(
        encoder_layers=1, decoder_layers=1,
        backbone_config=backbone(hidden_sizes=(8,), depths=(1,))),
    "a bottleneck, no change of width in its stem": small(
        backbone_config=backbone(embedding_size=8, hidden_sizes=(8, 16, 32), depths=(2, 1, 1),
                                 layer_type="bottleneck")),
    "three decoder layers, two queries": small(decoder_layers=3, num_queries=2, num_labels=1),
}
RESNET50 = dict(num_labels=91, num_queries=100, backbone_config={})


def theirs_of(keys: dict) -> DetrForObjectDetection:
    keys = dict(keys)
    stages = ResNetConfig(**keys.pop("backbone_config"))
    stages = ResNetConfig(**stages.to_dict() | {"out_features": stages.stage_names[-1:],
                                                "out_indices": None})
    return DetrForObjectDetection(DetrConfig(
        backbone_config=stages, use_timm_backbone=False, use_pretrained_backbone=False,
        backbone=None, auxiliary_loss=False, **keys)).eval()


def drawn(keys: dict) -> DETR:
    """Our network with every weight and every running average of its norms drawn.

    Attention is made sharp, or all positions would be looked at alike and mistakes in it hide.
    """
    model, g = DETR(**keys), torch.Generator().manual_seed(3)
    draw(model)
    for name, value in model.named_parameters():
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            value.data.mul_(3)
    for name, value in model.named_buffers():
        value.copy_(torch.randn(value.shape, generator=g))
        if name.endswith("running_var"):
            value.square_().add_(.3)
    return model.eval()


def pair(keys: dict) -> tuple[DETR, DetrForObjectDetection]:
    """Our network and transformers', of the same config with the same drawn weights."""
    ours, theirs = drawn(keys), theirs_of(keys)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    return ours, theirs


def picture(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def agree(keys: dict, x: torch.Tensor, bound: float) -> None:
    ours, theirs = (model.to(x.dtype) for model in pair(keys))
    with torch.no_grad():
        want, (logits, boxes) = theirs(x), ours(x)
    assert float(want.logits.std()) > .05 and float(want.pred_boxes.std()) > .01
    assert relative_error(logits, want.logits) < bound
    assert relative_error(boxes, want.pred_boxes) < bound


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype, bound", [(torch.float32, 1e-5), (torch.float64, 1e-11)])
def test_the_network_is_that_of_transformers(name, dtype, bound):
    agree(CASES[name], picture(2, 3, 64, 96).to(dtype), bound)


@torch.no_grad()
def test_the_comparison_notices_every_tensor():
    """The parity tests would see a mistake wherever it is: no tensor can change unnoticed."""
    model, x = drawn(small()).double(), picture(2, 3, 64, 96).double()
    logits, boxes = model(x)
    blind = []
    for name, value in model.state_dict().items():
        kept = value.clone()
        value.mul_(1.1).add_(.05)
        seen = [relative_error(new, old) for new, old in zip(model(x), (logits, boxes),
                                                             strict=True)]
        value.copy_(kept)
        blind += [name] if max(seen) < 1e-7 else []
    # softmax takes no notice of the keys' bias; answers begin as zeros, so that whomever the
    # first layer's queries look at, they are handed the same
    first = "model.decoder.layers.0.self_attn."
    assert [name for name in blind if not name.endswith("k_proj.bias")] == [
        first + "q_proj.weight", first + "q_proj.bias", first + "k_proj.weight",
        first + "v_proj.weight"]


@pytest.mark.parametrize("wrong", [
    lambda h, w, d: sine_positions(w, h, d), lambda h, w, d: 0 * sine_positions(h, w, d),
    lambda h, w, d: sine_positions(h, w, d).flip(1)], ids=["turned", "none", "x before y"])
def test_the_comparison_notices_the_places(wrong, monkeypatch):
    model, x = drawn(small()), picture(2, 3, 64, 96)
    logits = model(x)[0]
    monkeypatch.setattr(detr, "sine_positions", wrong)
    assert relative_error(model(x)[0], logits) > 1e-3


def test_the_published_size_is_that_of_transformers():
    agree(RESNET50, picture(1, 3, 96, 64), 1e-5)


def test_the_published_size_has_the_published_number_of_weights():
    with torch.device("meta"):
        ours, theirs = DETR(**RESNET50), theirs_of(RESNET50)
    assert sum(p.numel() for p in ours.parameters()) == 41_577_888
    shapes = [{k: v.shape for k, v in m.state_dict().items()} for m in (ours, theirs)]
    assert shapes[0] == shapes[1]


@torch.no_grad()
def test_every_layer_is_read_by_the_same_norm_and_heads():
    """With fewer decoder layers a network ends where the longer one's auxiliary answer stands."""
    keys = small(decoder_layers=3)
    long, x = drawn(keys), picture(2, 3, 64, 64)
    logits, boxes = long.every_layer(x)
    for count in (1, 2, 3):
        short = DETR(**keys | {"decoder_layers": count}).eval()
        own = short.state_dict()
        short.load_state_dict({k: v for k, v in long.state_dict().items() if k in own})
        assert relative_error(short(x)[0], logits[count - 1]) < 1e-6
        assert relative_error(short(x)[1], boxes[count - 1]) < 1e-6


def test_batch_norm_is_pytorchs_in_training_and_frozen_in_eval():
    ours, theirs, x = BatchNorm(4), torch.nn.BatchNorm2d(4), 3 * picture(5, 4, 3, 2) + 1
    draw(ours)
    theirs.load_state_dict(ours.state_dict(), strict=False)
    for _ in range(3):
        assert torch.allclose(ours(x), theirs(x), atol=1e-6)
    assert torch.allclose(ours.running_var, theirs.running_var)
    ours.eval(), theirs.eval()
    assert torch.equal(ours(x[:1]), ours(x)[:1]) and torch.allclose(ours(x), theirs(x), atol=1e-6)
    assert "num_batches_tracked" not in ours.state_dict()


def test_training_moves_the_norms_and_every_weight():
    model = DETR(**small(dropout=.1)).train()
    before = {k: v.clone() for k, v in model.named_buffers()}
    logits, boxes = model.every_layer(picture(2, 3, 64, 64))
    labels, targets = truth(2, (2, 3))
    detr.detection_loss(logits, boxes, labels, targets).backward()
    still = [k for k, p in model.named_parameters()
             if p.grad is None or not float(p.grad.abs().max()) > 0]
    # answers begin as zeros: the first layer has nothing to hand from query to query
    assert still == ["model.decoder.layers.0.self_attn.v_proj.weight"]
    assert all((v != before[k]).any() for k, v in model.named_buffers())


# matching and losses

def answers(batch: int, queries: int = 20, classes: int = 12, seed: int = 0):
    g = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(batch, queries, classes + 1, generator=g)
    size = .05 + .5 * torch.rand(batch, queries, 2, generator=g)
    middle = size / 2 + (1 - size) * torch.rand(batch, queries, 2, generator=g)
    return logits, torch.cat([middle, size], -1)


def truth(batch: int, counts, classes: int = 5, seed: int = 1):
    g = torch.Generator().manual_seed(seed)
    boxes = [answers(1, n, seed=seed + 10 + i)[1][0] if n else torch.zeros(0, 4)
             for i, n in enumerate(counts)]
    return [torch.randint(classes, (n,), generator=g) for n in counts], boxes


def as_theirs(logits, boxes, labels, targets):
    return ({"logits": logits, "pred_boxes": boxes},
            [{"class_labels": label, "boxes": box}
             for label, box in zip(labels, targets, strict=True)])


COUNTS = {"none, one, many": (0, 1, 6), "all empty": (0, 0, 0), "one picture": (3,),
          "unequal": (2, 5, 1, 0, 4), "as many as queries": (20, 1)}


@pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS)
@pytest.mark.parametrize("seed", range(5))
def test_matching_and_losses_are_those_of_transformers(counts, seed):
    given_ = (*answers(len(counts), seed=seed), *truth(len(counts), counts, 12, seed + 100))
    matcher = HungarianMatcher(1, 5, 2)
    for own, other in zip(match(*given_), matcher(*as_theirs(*given_)), strict=True):
        assert torch.equal(own[0], other[0]) and torch.equal(own[1], other[1])
    want = ImageLoss(matcher, 12, .1, ["labels", "boxes"])(*as_theirs(*given_))
    found = hungarian_loss(*given_)
    assert found.keys() == want.keys()
    for name in want:
        assert abs(float(found[name]) - float(want[name])) <= 1e-6 * max(1, float(want[name]))


def test_eos_coef_is_the_weight_of_nothing():
    given_ = (*answers(3), *truth(3, (0, 2, 4), 12))
    for coef in (0., .5, 1.):
        want = ImageLoss(HungarianMatcher(1, 5, 2), 12, coef, ["labels"])(*as_theirs(*given_))
        assert float(hungarian_loss(*given_, eos_coef=coef)["loss_ce"]) == pytest.approx(
            float(want["loss_ce"]), rel=1e-6)


def test_gradients_are_those_of_transformers():
    logits, boxes = (x.requires_grad_() for x in answers(4))
    labels, targets = truth(4, (1, 0, 3, 6), 12)
    criterion = ImageLoss(HungarianMatcher(1, 5, 2), 12, .1, ["labels", "boxes"])
    want = criterion(*as_theirs(logits, boxes, labels, targets))
    theirs = torch.autograd.grad(sum(want.values()), (logits, boxes))
    ours = torch.autograd.grad(sum(hungarian_loss(logits, boxes, labels, targets).values()),
                               (logits, boxes))
    for a, b in zip(ours, theirs, strict=True):
        assert relative_error(a, b) < 1e-5


def test_auxiliary_losses_are_the_sum_over_layers():
    logits, boxes = answers(3 * 4)
    logits, boxes = logits.unflatten(0, (3, 4)), boxes.unflatten(0, (3, 4))
    labels, targets = truth(4, (2, 0, 5, 1), 12)
    weights = {"loss_ce": 1, "loss_bbox": 5, "loss_giou": 2}
    want = sum(weights[name] * loss for i in range(3)
               for name, loss in hungarian_loss(logits[i], boxes[i], labels, targets).items())
    assert float(detr.detection_loss(logits, boxes, labels, targets)) == pytest.approx(
        float(want), rel=1e-5)


@given(seed=st.integers(0, 10_000), n=st.integers(1, 6))
@settings(max_examples=25, deadline=None)
def test_matching_does_not_care_about_order(seed, n):
    logits, boxes = answers(1, seed=seed)
    labels, targets = truth(1, (n,), 12, seed + 1)
    g = torch.Generator().manual_seed(seed)
    queries, order = torch.randperm(20, generator=g), torch.randperm(n, generator=g)
    pairs = {(int(r), int(c)) for r, c in zip(*match(logits, boxes, labels, targets)[0],
                                              strict=True)}
    turned = match(logits[:, queries], boxes[:, queries], [labels[0][order]],
                   [targets[0][order]])[0]
    assert pairs == {(int(queries[r]), int(order[c])) for r, c in zip(*turned, strict=True)}
    one = hungarian_loss(logits, boxes, labels, targets)
    other = hungarian_loss(logits[:, queries], boxes[:, queries], [labels[0][order]],
                           [targets[0][order]])
    assert all(float(one[k]) == pytest.approx(float(other[k]), rel=1e-5) for k in one)


def test_a_batch_is_matched_like_its_pictures_alone():
    given_ = (*answers(5), *truth(5, (4, 0, 1, 6, 2), 12))
    for i, (rows, cols) in enumerate(match(*given_)):
        alone = match(*(x[i:i + 1] for x in given_))[0]
        assert torch.equal(rows, alone[0]) and torch.equal(cols, alone[1])


@pytest.mark.parametrize("n", [1, 3, 6])
def test_no_random_assignment_is_cheaper(n):
    logits, boxes = answers(1, seed=n)
    labels, targets = truth(1, (n,), 12, n)
    cost = matching_cost(logits[0], boxes[0], labels[0], targets[0])
    rows, cols = match(logits, boxes, labels, targets)[0]
    least, g = float(cost[rows, cols].sum()), torch.Generator().manual_seed(n)
    tried = [float(cost[torch.randperm(20, generator=g)[:n], torch.arange(n)].sum())
             for _ in range(1000)]
    assert least <= min(tried) + 1e-6 and min(tried) < max(tried)


def test_the_matching_is_the_cheapest_of_all():
    logits, boxes = answers(1, queries=6, seed=5)
    labels, targets = truth(1, (4,), 12, 5)
    cost = matching_cost(logits[0], boxes[0], labels[0], targets[0])
    every = min(float(cost[list(rows), torch.arange(4)].sum())
                for rows in itertools.permutations(range(6), 4))
    rows, cols = match(logits, boxes, labels, targets)[0]
    assert float(cost[rows, cols].sum()) == pytest.approx(every, rel=1e-6)


def test_a_prediction_equal_to_its_target_has_no_box_loss():
    logits, boxes = answers(2)
    labels, targets = truth(2, (3, 5), 12)
    for i, target in enumerate(targets):
        boxes[i, 4:4 + len(target)] = target
    found = hungarian_loss(logits, boxes, labels, targets)
    assert float(found["loss_bbox"]) == 0 and abs(float(found["loss_giou"])) < 1e-6


def test_padding_never_wins():
    """A picture with fewer targets than its neighbour is matched to its own alone."""
    logits, boxes = answers(2)
    boxes[1, 0] = torch.tensor([0., 0., 1e-6, 1e-6])        # lies on the padding
    labels, targets = truth(2, (6, 1), 12)
    assert len(match(logits, boxes, labels, targets)[1][0]) == 1


# what comes out

def test_postprocess_is_that_of_transformers():
    from transformers import DetrImageProcessorPil as Processor
    from transformers.models.detr.modeling_detr import DetrObjectDetectionOutput

    logits, boxes = answers(3)
    want = Processor().post_process_object_detection(
        DetrObjectDetectionOutput(logits=logits, pred_boxes=boxes), threshold=.5)
    found = detr.postprocess(logits, boxes, .5)
    assert 0 < sum(len(one.scores) for one in found) < 60
    for one, other in zip(found, want, strict=True):
        assert torch.allclose(one.scores, other["scores"])
        assert torch.equal(one.labels, other["labels"])
        assert torch.allclose(one.boxes_xyxy, other["boxes"])


def test_the_scores_leave_nothing_out_of_the_choice_but_not_of_the_softmax():
    logits = torch.tensor([[[1., 0., 8.], [3., 1., 0.]]])
    found = detr.postprocess(logits, torch.full((1, 2, 4), .5))[0]
    assert found.labels.tolist() == [0, 0] and found.queries.tolist() == [0, 1]
    assert float(found.scores[0]) == pytest.approx(math.e / (math.e + 1 + math.e**8))


def test_detect_takes_pictures_of_any_size():
    model = drawn(SMALL_DETR)
    small_, large = picture(2, 3, 40, 60).clamp(-1, 1), picture(1, 3, 300, 200).clamp(-1, 1)
    for x in (small_, large):
        found = detr.detect(model, x, threshold=0.)
        assert len(found) == len(x) and all(len(one.scores) == 20 for one in found)
    whole = detr.detect(model, small_, threshold=0., batch=1)
    assert torch.allclose(whole[1].scores, detr.detect(model, small_, 0.)[1].scores, atol=1e-5)


def test_query_maps_are_where_transformers_looks():
    ours, theirs = pair(small())
    x = picture(2, 3, 64, 96)
    theirs.set_attn_implementation("eager")
    with torch.no_grad():
        want = theirs(x, output_attentions=True).cross_attentions[-1].mean(1)   # (b,q,n)
    maps = detr.query_maps(ours, x)
    assert maps.shape == (2, 7, 8, 12)
    assert relative_error(maps.flatten(2), want) < 1e-5
    assert torch.equal(ours(x)[0], ours(x)[0]) and not ours.model.decoder.layers[
        -1].encoder_attn._forward_hooks


# bad input

def told(problem: str, logits=None, boxes=None, labels=None, targets=None):
    given_ = (*answers(2), *truth(2, (2, 3), 12))
    given_ = [new if new is not None else old
              for new, old in zip((logits, boxes, labels, targets), given_, strict=True)]
    with pytest.raises(ValueError, match=problem):
        hungarian_loss(*given_)


def second(box: list[float]) -> list[torch.Tensor]:
    """Good targets but for the last one of picture 1."""
    targets = truth(2, (2, 3), 12)[1]
    targets[1][2] = torch.tensor(box)
    return targets


@pytest.mark.parametrize("box, problem", [
    ([.5, .5, 1.4, .2], "Picture 1: .*reaches out of the picture"),
    ([.3, .3, .5, .9], r"reaches out of the picture\. It looks like left, top, right, bottom"),
    ([.9, .5, .4, .2], r"reaches out of the picture\.$"),
    ([.5, .5, 0., .2], "has no width or height"),
    ([.5, .5, .2, -.1], "has no width or height"),
    ([.5, math.nan, .2, .1], "Picture 1: .*holds NaN or infinity"),
    ([64., 64., 20., 20.], "looks like pixels: divide it"),
])
def test_boxes_that_cannot_be(box, problem):
    told(problem, targets=second(box))


def test_labels_that_cannot_be():
    labels = truth(2, (2, 3), 12)[0]
    told("Picture 0: label 12 is none of the 12 classes",
         labels=[torch.tensor([0, 12]), labels[1]])
    told("Picture 1: label -1", labels=[labels[0], torch.tensor([0, 1, -1])])
    told("labels must be whole numbers", labels=[labels[0].float(), labels[1]])
    told(r"Picture 1: .*got torch.int64 \(2,\) and \(3, 4\)", labels=[labels[0], labels[1][:2]])
    told("2 pictures need 2 tensors of labels", labels=labels[:1])


def test_more_targets_than_queries():
    labels, targets = truth(2, (2, 9), 12)
    logits, boxes = answers(2, queries=8)
    told("Picture 1 has 9 targets, but only 8 queries", logits, boxes, labels, targets)


def test_predictions_that_are_not_finite():
    logits, boxes = answers(2)
    boxes[0, 3] = math.nan
    told("matching costs hold NaN", boxes=boxes)


@pytest.mark.parametrize("channels", [1, 4])
def test_grey_pictures_and_pictures_with_alpha(channels):
    with pytest.raises(ValueError, match=r"convert\('RGB'\) gives 3"):
        DETR(**small())(torch.zeros(1, channels, 64, 64))


@pytest.mark.parametrize("keys, problem", [
    ({"num_querys": 3}, "'num_querys' is not a key of DetrConfig"),
    ({"auxiliary_loss": True}, "auxiliary_loss=True is not implemented"),
    ({"d_model": 18}, "d_model=18 must be divisible"),
    ({"backbone_config": {"layer_type": "wide"}}, "basic or bottleneck, got 'wide'"),
    ({"backbone_config": {"depths": (1,)}}, "need one number for each stage"),
    ({"backbone_config": {"hidden_act": "gelu"}}, "hidden_act='gelu' is not implemented"),
])
def test_configs_that_cannot_be_built(keys, problem):
    with pytest.raises(ValueError, match=problem):
        DETR(**small(**keys))


def test_the_backbone_takes_a_stages_width():
    assert ResNet(**backbone()).width == 12


def test_formats_are_told_apart():
    box = torch.tensor([[.2, .3, .4, .9]])
    assert torch.allclose(xyxy_from_cxcywh(cxcywh_from_xyxy(box)), box)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_of_half_precision_are_computed_in_32_bits(dtype):
    g = torch.Generator().manual_seed(0)
    logits, boxes = torch.randn(1, 4, 3, generator=g), .2 + .5 * torch.rand(1, 4, 4, generator=g)
    logits, boxes = logits.to(dtype), boxes.to(dtype)
    labels, targets = [torch.tensor([0])], [torch.tensor([[.5, .5, .2, .2]])]
    want = hungarian_loss(logits.float(), boxes.float(), labels, targets)
    with torch.autocast("cpu", torch.bfloat16):
        assert hungarian_loss(logits, boxes, labels, targets)["loss_ce"].isfinite()
    for name, loss in hungarian_loss(logits, boxes, labels, targets).items():
        assert loss.dtype == torch.float32 and torch.equal(loss, want[name])


def test_pictures_of_any_float_are_looked_at_and_others_refused():
    model = DETR(**SMALL_DETR).eval()
    x = torch.rand(1, 3, 64, 64) * 2 - 1
    want = detr.detect(model, x, 0.)[0]
    for same in (x.double(), x.half().float()):
        found = detr.detect(model, same, 0.)[0]
        torch.testing.assert_close(found.boxes_xyxy, want.boxes_xyxy, atol=1e-2, rtol=0)
    with pytest.raises(TypeError, match="numbers in .-1, 1., got torch.uint8: images.to_model"):
        detr.detect(model, (x * 127).byte())
    with pytest.raises(ValueError, match="answers with NaN or infinity: are the pictures finite"):
        detr.detect(model, x * float("nan"))


def test_a_target_a_hair_outside_is_told_with_its_digits():
    labels, targets = [torch.tensor([0])], [torch.tensor([[.5, .5, 1.0031, 1.]])]
    with pytest.raises(ValueError, match=r"target \[0.5, 0.5, 1.0031, 1.0\], read as cx, cy, w"):
        hungarian_loss(torch.zeros(1, 4, 3), torch.rand(1, 4, 4), labels, targets)
