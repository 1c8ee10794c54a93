"""Checks of lesson 11."""

import math

import torch
from torch import Tensor, nn

from .. import grounding_inputs as reference
from ..gligen import fourier
from . import Wrong, exercise, expect_close, expect_unchanged
from ._grounding_maps import FirstConv, MapNet, concat_map_channels
from ._reground import forward, reground

__all__ = ["EntityNet", "FirstConv", "KeypointNet", "MapNet", "chosen", "concat_map_channels",
           "forward", "image_features", "reground"]


def with_all_weights(net: nn.Module, std: float = .4) -> nn.Module:
    """All weights drawn, so that no zero hides a mistake."""
    for p in net.parameters():
        nn.init.normal_(p, std=std)
    return net.requires_grad_(False)


@exercise("gligen_lessons.grounding_inputs:chosen")
def chosen(attempt):
    """Two pictures with three slots each; what lies in the free ones is not even a number."""
    x, null = torch.randn(2, 3, 5), torch.randn(5)
    masks = torch.tensor([[1., 0, 1], [0, 1, 0]])
    want = torch.stack([x[i, k] if masks[i, k] else null for i in range(2) for k in range(3)])
    want = want.view(2, 3, 5)
    mistakes = {
        "The masks are ignored: free slots show what happens to lie in them.": x,
        "The mask is upside down: 1 is a slot in use.":
            torch.where(masks[..., None] > 0, null, x),
        "Free slots are zero. The null feature stands there.": x * masks[..., None],
        "The null feature is added to every slot; it takes the place of free ones.":
            x * masks[..., None] + null,
        "Every slot got the null feature.": null.expand(2, 3, 5)}
    error = expect_close(expect_unchanged(attempt, x=x, masks=masks, null=null), want,
                         "x where the mask is 1, the null feature elsewhere.", mistakes=mistakes)
    spoilt = torch.where(masks[..., None] > 0, x, torch.nan)
    got = attempt(spoilt, masks.clone(), null.clone())
    if not bool(torch.as_tensor(got).isfinite().all()):
        raise Wrong("a free slot held NaN, and it came through: 0 * NaN is NaN. Choose with "
                    "`torch.where`, do not multiply.")
    expect_close(got, want, "What lies in a free slot must not matter.")
    return f"fills 3 free slots of 6, whatever they hold (largest difference {error:.0e})"


def some_figures() -> tuple[Tensor, Tensor]:
    """Points (2,34,2) of two figures a picture, and which are given."""
    return torch.rand(2, 34, 2), (torch.rand(2, 34) > .4).float()


@exercise("gligen_lessons.grounding_inputs:KeypointNet")
def KeypointNet(attempt):
    """Two pictures of two figures, some of whose joints are not given."""
    net, (points, masks) = with_all_weights(reference.KeypointNet(6, persons=2)), some_figures()
    person, joint, used = net.person_embeddings, net.keypoint_embeddings, masks[..., None] > 0

    by_joint = (joint[:, None] + person).flatten(0, 1)
    whole = (person[:, None] + joint).flatten(0, 1).expand(2, 34, -1)

    def token(names=whole, xy=None, null=net.null_person_feature, turned=False):
        names = torch.where(used, names.expand(2, 34, -1), null)
        places = torch.where(used, fourier(points), net.null_xy_feature) if xy is None else xy
        return net.linears(torch.cat([places, names] if turned else [names, places], -1))

    open_ = net.linears(torch.cat([whole, fourier(points)], -1))
    mistakes = {
        "The masks are ignored: joints that nobody gave show what lies in their slot.": open_,
        "The mask works after the MLP. A joint that is not given has a token too, of the null "
        "features.": used * open_,
        "Slots go figure after figure, 17 joints each; these go joint after joint.":
            token(by_joint),
        "It is not told which figure a joint belongs to: add the person's embedding.":
            token(joint.repeat(2, 1)),
        "It is not told which joint a point is: add the joint's embedding.":
            token(person.repeat_interleave(17, 0)),
        "The place comes before the name. Names are first.": token(turned=True),
        "Where no point is given its PLACE leaks: `null_xy_feature` stands for the sinusoids.":
            token(xy=fourier(points)),
        "Where no point is given its NAME stays: `null_person_feature` stands there.":
            token(null=whole),
        "Where no point is given the point is set to (0, 0), and its sinusoids are those of a "
        "corner. `null_xy_feature` stands there.": token(xy=fourier(points * used))}
    learner = attempt(6, persons=2)
    zero_start(learner)
    load_into(learner, net)
    error = expect_close(learner(points.clone(), masks.clone()), token(), "Name = person + joint, "
                         "place = Fourier(x, y); exchange both where nothing is given, then the "
                         "MLP.", mistakes=mistakes)
    expect_chosen(learner, points.masked_fill(~used, torch.nan), masks)
    return f"makes 68 tokens, {int(masks.sum())} of given joints (largest difference {error:.0e})"


def zero_start(learner: nn.Module) -> None:
    """Refuse embeddings or null features that do not begin at zero."""
    for name, value in learner.named_parameters():
        if name.endswith(("_embeddings", "_feature")) and bool(value.any()):
            raise Wrong(f"{name} does not begin at zero, as it does in the original.")


def load_into(learner: nn.Module, net: nn.Module) -> None:
    """Give a learner's net the weights of `net`, or say whose name or shape is another."""
    has, wants = ({name: tuple(x.shape) for name, x in one.state_dict().items()}
                  for one in (learner, net))
    for name, shape in wants.items():
        if name not in has:
            raise Wrong(f"there is no {name}, which the published weights have.")
        if has[name] != shape:
            why = " A point has two coordinates, each with `2 * FREQUENCIES` sinusoids."
            raise Wrong(f"{name} is {has[name]}, expected {shape}.{why * ('_xy_' in name)}")
    if more := set(has) - set(wants):
        raise Wrong(f"{more.pop()} is in no published file: weights would not load.")
    learner.load_state_dict(net.state_dict())


def expect_chosen(learner: nn.Module, *given: Tensor, **named: Tensor) -> None:
    """Refuse a net whose tokens or gradients are spoilt by what lies in free slots."""
    tokens = learner(*given, **named)
    if not bool(tokens.isfinite().all()):
        raise Wrong("a free slot held NaN, and it came through: 0 * NaN is NaN. Take `chosen`, do "
                    "not multiply.")
    tokens.sum().backward()
    for name, p in learner.named_parameters():
        if p.grad is not None and not bool(p.grad.isfinite().all()):
            raise Wrong(f"a free slot held NaN: the tokens are right, but the gradient of {name} "
                        "is NaN. Choose before the MLP, not after it.")


def some_entities() -> dict[str, Tensor]:
    """Two pictures with three slots; text, picture, both or nothing in them."""
    masks = torch.tensor([[1., 1, 0], [1, 1, 1]])
    return {"boxes": torch.rand(2, 3, 4), "masks": masks,
            "phrases_masks": masks * torch.tensor([[1., 0, 0], [1, 1, 0]]),
            "image_masks": masks * torch.tensor([[1., 1, 0], [0, 1, 1]]),
            "phrases_embeddings": torch.randn(2, 3, 5), "image_embeddings": torch.randn(2, 3, 5)}


def entity_tokens(net: nn.Module, given: dict[str, Tensor], turned: bool = False, mlps: str = "",
                  null: str = "", **masks: Tensor) -> Tensor:
    """Tokens (2,6,7), with other masks, the place first, or one MLP or null feature for both."""
    given, made = given | masks, []
    place = torch.where(given["masks"][..., None] > 0, fourier(given["boxes"]),
                        net.null_position_feature)
    for kind, field in ("text", "phrases"), ("image", "image"):
        says = torch.where(given[f"{field}_masks"][..., None] > 0, given[f"{field}_embeddings"],
                           getattr(net, f"null_{null or kind}_feature"))
        mlp = getattr(net, f"linears_{mlps or kind}")
        made.append(mlp(torch.cat([place, says] if turned else [says, place], -1)))
    return torch.cat(made, 1)


def wrong_nulls(net: nn.Module, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """What comes of a null feature at the wrong place, by message."""
    return {
        "Where no box is given its PLACE leaks: `null_position_feature` stands for the sinusoids.":
            entity_tokens(net, given, masks=torch.ones(2, 3)),
        "Where no picture is given the PHRASES' null feature stands: take `null_image_feature`.":
            entity_tokens(net, given, null="text"),
        "Where no phrase is given the PICTURES' null feature stands: take `null_text_feature`.":
            entity_tokens(net, given, null="image")}


@exercise("gligen_lessons.grounding_inputs:EntityNet")
def EntityNet(attempt):
    """Six slots with a phrase, a picture, both or nothing."""
    net, given = with_all_weights(reference.EntityNet(5, 7)), some_entities()
    used, phrased, pictured = (given[k] for k in ("masks", "phrases_masks", "image_masks"))
    want = entity_tokens(net, given)
    text, image = want.chunk(2, 1)
    own = [entity_tokens(net, given, masks=phrased)[:, :3],
           entity_tokens(net, given, masks=pictured)[:, 3:]]
    mistakes = wrong_nulls(net, given) | {
        "The tokens of pictures stand first; phrases come first.": torch.cat([image, text], 1),
        "Each box's two tokens stand side by side. All phrases come first, then all pictures.":
            torch.stack([text, image], 2).flatten(1, 2),
        "The two tokens are added: a box gets one of its phrase AND one of its picture.":
            text + image,
        "`masks` decides of phrase and picture. They have masks of their own; a slot may have "
        "one of both.": entity_tokens(net, given, phrases_masks=used, image_masks=used),
        "The two masks are exchanged: phrases follow `phrases_masks`, pictures `image_masks`.":
            entity_tokens(net, given, phrases_masks=pictured, image_masks=phrased),
        "The place follows the masks of phrase and picture. It has its own, `masks`: both tokens "
        "of a box know where it is.": torch.cat(own, 1),
        "The place comes before the feature. Features are first.":
            entity_tokens(net, given, turned=True),
        "Pictures go through the phrases' MLP. They have their own, `linears_image`.":
            entity_tokens(net, given, mlps="text"),
        "Phrases go through the pictures' MLP. They have their own, `linears_text`.":
            entity_tokens(net, given, mlps="image"),
        "Only the phrases' tokens are there.": text, "Only the pictures' tokens are there.": image}
    learner = attempt(5, 7)
    zero_start(learner)
    learner.load_state_dict(net.state_dict())
    error = expect_close(learner(**{k: v.clone() for k, v in given.items()}), want, "Each half by "
                         "its own mask, then the two MLPs, phrases first.", mistakes=mistakes)
    free = {"boxes": used, "phrases_embeddings": phrased, "image_embeddings": pictured}
    expect_chosen(learner, **(given | {k: given[k].masked_fill(mask[..., None] == 0, torch.nan)
                                       for k, mask in free.items()}))
    return f"makes 12 tokens of 6 slots (largest difference {error:.0e})"


@exercise("gligen_lessons.grounding_inputs:image_features")
def image_features(attempt):
    """Three embeddings of five numbers, mapped to seven."""
    e, p = torch.randn(3, 5) * torch.tensor([[1.], [4.], [.3]]), torch.randn(5, 7)
    unit = e / e.norm(dim=1, keepdim=True)
    back = unit @ p
    want = 28.7 * back / back.norm(dim=1, keepdim=True)
    inverse = unit @ torch.linalg.pinv(p).T
    mistakes = {
        "The norm is left as it comes. The original sets it to 28.7 for every picture.": back,
        "The norm is 1. The original sets it to 28.7 for every picture.": want / 28.7,
        "Each embedding keeps its own norm times 28.7: divide by the norm AFTER the projection "
        "too.": 28.7 * back,
        "This maps back by the inverse. The original takes the transpose: `unit @ "
        "text_projection`.": 28.7 * inverse / inverse.norm(dim=1, keepdim=True),
        "All rows are divided by one norm: each has its own, `dim=-1, keepdim=True`.":
            28.7 * (e @ p) / (e @ p).norm(),
        "After the projection all rows are divided by one norm: each has its own, `dim=-1, "
        "keepdim=True`.": 28.7 * back / back.norm(),
        "28.7 is the squared norm here.": want / math.sqrt(28.7)}
    error = expect_close(attempt(e.clone(), p.clone()), want, "Unit norm, times the projection, "
                         "norm 28.7.", mistakes=mistakes)
    return f"maps 3 embeddings to phrase features of norm 28.7 (largest difference {error:.0e})"
