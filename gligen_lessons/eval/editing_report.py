"""What lessons 12 and 13 achieve where the true answer is known: masks, noun maps, edits."""

from collections.abc import Callable

import torch
from torch import Tensor

from .. import device, weights
from ..attribute_referee import attributes
from ..datasets.edits import LEAST_AREA, EditCase, of_all_kinds
from ..diffedit import clean_latents, edit_mask, query_map
from ..guidance import classifier_free
from ..latent import TextToImage, to_pictures
from ..null_text import null_text, pivots
from ..prompt2prompt import Blend, make_control
from ..sdedit import decode
from .caption_pairs import pair_report
from .editing import REGIONS, cells_of, mask_iou, psnr_in, repaint, succeeded
from .figures import by_kind, figures_in_batches, mean_figure, shared
from .noun_maps import noun_report

JUDGE = "referee-attributes"                              # says whether edits succeeded
FITTED = 16                                               # edits at most with a null-text fit
WAYS = ("Prompt-to-Prompt", "with local blend", "same seed")
Judge = Callable[[Tensor, list[EditCase]], Tensor]


def editing_report(parts: TextToImage, count: int = 160, steps: int = 30,
                   guidance_scale: float = 5.) -> dict:
    """All figures of lessons 12 and 13, on held-out scenes.

    Masks of `count` edits, noun maps of as many scenes, Prompt-to-Prompt on half of the edits and
    on pairs of captions, fewer; null-text inversion on at most FITTED.
    """
    some, few = (of_all_kinds(n, REGIONS) for n in (count, max(2, count // 2)))
    judge = edit_judge(device.pick())
    return (mask_report(parts, some) | noun_report(parts, count)
            | control_report(parts, judge, few, steps, guidance_scale)
            | null_report(parts, judge, few[:FITTED], steps, guidance_scale)
            | pair_report(parts, max(2, count // 4), steps)
            | {"judge": JUDGE, "edits": count, "edits of Prompt-to-Prompt": len(few),
               "steps": steps, "guidance scale": guidance_scale})


def edit_judge(where: torch.device) -> Judge:
    """Who says whether edits succeeded: the referee of attributes, which made no picture."""
    judge = weights.load(JUDGE, where)
    return lambda x, some: succeeded(
        attributes(judge, x, torch.stack([case.box for case in some])), some)


def mask_report(parts: TextToImage, some: list[EditCase]) -> dict:
    """DiffEdit's masks: their IoU with what truly changes, found with the source caption as
    reference and with "". A ceiling is the best mask on the grid, a floor a mask of everything;
    "large" are changes of at least LEAST_AREA of the picture, which a grid of 16 x 16 can show.
    """
    large = torch.tensor([float(case.changed.mean()) >= LEAST_AREA for case in some])
    rows = figures_in_batches(lambda few, seed: masks_against_truth(parts, few, seed), some)
    gain = rows["reference"] - rows["empty reference"]
    report = mean_figure("mask IoU, reference over empty", gain)
    for name, values in rows.items():
        report |= by_kind(f"mask IoU, {name}", values, some, mean_figure)
        report |= mean_figure(f"mask IoU, {name}, large", values[large])
    return report


def masks_against_truth(parts: TextToImage, some: list[EditCase], seed: int) -> dict[str, Tensor]:
    """The IoU (b,) of each of the masks of some edits."""
    z0 = clean_latents(parts, torch.stack([case.before for case in some]))
    queries, sources = [case.query for case in some], [case.reference for case in some]
    changed = torch.stack([case.changed for case in some])              # (b,128,128)
    made = {name: edit_mask(query_map(parts, z0, texts, queries, seed)).cpu()
            for name, texts in (("reference", sources), ("empty reference", [""] * len(some)))}
    made |= {"best on the grid": cells_of(changed, z0.shape[-1]),
             "everything": torch.ones_like(made["reference"])}
    return {name: mask_iou(mask, changed) for name, mask in made.items()}


def control_report(parts: TextToImage, judge: Judge, some: list[EditCase], steps: int,
                   guidance_scale: float) -> dict:
    """Prompt-to-Prompt on given pictures: does it obey, and what is kept outside the true change?

    Beside it the same noise without control, and what the judge says of source and true answer.
    """
    rows = figures_in_batches(
        lambda few, _: control_rows(parts, judge, few, steps, guidance_scale), some)
    report = {}
    for name, values in rows.items():
        report |= by_kind(name, values, some,
                          shared if name.startswith("success") else mean_figure)
    for way in WAYS[:2]:
        for end in ("", " to the source"):
            gain = rows[f"psnr outside{end}, {way}"] - rows[f"psnr outside{end}, same seed"]
            report |= mean_figure(f"psnr gain{end}, {way}", gain)
    return report


def control_rows(parts: TextToImage, judge: Judge, some: list[EditCase], steps: int,
                 guidance_scale: float) -> dict[str, Tensor]:
    """Figures (b,) of some edits, each in three ways: success, PSNR outside the true change.

    What is kept is measured against the base, which is painted from the same noise, and against
    the given picture.
    """
    with torch.no_grad():
        x = {name: to_pictures(parts.vae, z).cpu()
             for name, z in three_ways(parts, some, steps, guidance_scale).items()}
    before, after, changed = (torch.stack([getattr(case, name) for case in some])
                              for name in ("before", "after", "changed"))
    outside, base = 1 - changed[:, None], x.pop("base")
    return ({f"success, {name}": judge(made, some) for name, made in
             (x | {"the answer": after, "the source": before}).items()}
            | {f"psnr outside, {name}": psnr_in(made, base, outside) for name, made in x.items()}
            | {f"psnr outside to the source, {name}": psnr_in(made, before, outside)
               for name, made in (x | {"base": base}).items()})


def three_ways(parts: TextToImage, some: list[EditCase], steps: int,
               guidance_scale: float) -> dict[str, Tensor]:
    """Latents (b,4,h,w) of the base, and of edits with control, local blend, or neither of both.

    All begin with the DDIM code of the given picture, and are led away from its caption.
    """
    sources, queries = [case.reference for case in some], [case.query for case in some]
    way = pivots(parts, sources, clean_latents(
        parts, torch.stack([case.before for case in some])), steps)
    nouns = [one.things[case.edit.index].category for scenes in (
        [case.edit.before for case in some], [case.edit.after for case in some])
        for case, one in zip(some, scenes, strict=True)]
    local = Blend.of(parts, [*sources, *queries], nouns)
    control = make_control(parts, sources, queries, steps)
    base, edited = repaint(parts, some, way[-1], control, guidance_scale).chunk(2)
    _, blended = repaint(parts, some, way[-1], control, guidance_scale, local).chunk(2)
    plain = classifier_free(parts.unet, parts.context(queries), parts.context(sources),
                            guidance_scale)
    return {"base": base} | dict(zip(WAYS, (edited, blended, decode(
        plain, way, parts.schedule, steps)), strict=True))


def null_report(parts: TextToImage, judge: Judge, some: list[EditCase], steps: int,
                guidance_scale: float) -> dict:
    """Null-text inversion beside negative-prompt inversion, on given pictures: what the fit gains.

    PSNR to the given picture outside the true change, of the base and of the edit; success.
    """
    rows = figures_in_batches(
        lambda few, _: null_rows(parts, judge, few, steps, guidance_scale), some)
    report = {}
    for name, values in rows.items():
        figure = shared if "success" in name else mean_figure
        report |= figure(f"null, {name}", values)
    for what in ("base", "edit"):
        report |= mean_figure(f"null, {what} gain of the fit",
                              rows[f"{what}, fitted"] - rows[f"{what}, caption"])
    return report


def null_rows(parts: TextToImage, judge: Judge, some: list[EditCase], steps: int,
              guidance_scale: float) -> dict[str, Tensor]:
    """Figures (b,) of some edits, led away from fitted states or from the source caption."""
    sources, queries = [case.reference for case in some], [case.query for case in some]
    before, changed = (torch.stack([getattr(case, name) for case in some])
                       for name in ("before", "changed"))
    way = pivots(parts, sources, clean_latents(parts, before), steps)
    control, rows = make_control(parts, sources, queries, steps), {}
    for name, nulls in (("fitted", null_text(parts, sources, way, guidance_scale)),
                        ("caption", None)):
        z = repaint(parts, some, way[-1], control, guidance_scale, nulls=nulls)
        with torch.no_grad():
            base, x = to_pictures(parts.vae, z).cpu().chunk(2)
        outside = 1 - changed[:, None]
        rows |= {f"base, {name}": psnr_in(base, before, outside),
                 f"edit, {name}": psnr_in(x, before, outside),
                 f"success, {name}": judge(x, some)}
    return rows
