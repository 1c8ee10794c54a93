"""The lessons as data: what each builds, on which it stands, and where the graph shows it."""

from dataclasses import dataclass

PARTS = ("making pictures", "words in boxes", "seeing pictures", "editing pictures")
ALL = 6                                                   # the part of the lesson about all of them


@dataclass(frozen=True)
class Lesson:
    """A lesson of the graph, in a column and a row; `uses` are the lessons that it needs.

    `part` is an index of PARTS (or ALL), `title` and `gives` stand in the graph, `builds` in
    README's table; "" as long as the lesson is not written.
    """

    column: int
    row: int
    part: int
    title: str
    gives: str
    uses: tuple[str, ...] = ()
    builds: str = ""


LESSONS = {
    "01": Lesson(0, 2, 0, "DDPM", "pictures out of noise", (),
                 "the forward and the reverse process, a U-Net, L_simple"),
    "02": Lesson(1, 2, 0, "DDIM", "the same in few steps", ("01",),
                 "few steps, the ODE, interpolation, inversion"),
    "03": Lesson(2, 1, 0, "VAE", "small latents", (),
                 "an autoencoder with a price in nats, Stable Diffusion's encoder and decoder, "
                 "the latent scale"),
    "04": Lesson(2, 0, 0, "CLIP", "words meet pictures", (),
                 "a tokenizer and two towers that tie pictures to words, and what they do not see"),
    "05": Lesson(2, 2, 0, "guidance", "obeying the words", ("02",),
                 "classifier, CLIP and classifier-free guidance, exact on a ring, then on "
                 "pictures"),
    "06": Lesson(3, 2, 0, "latent diffusion", "a small Stable Diffusion", ("03", "04", "05"),
                 "a small Stable Diffusion: captions to pictures, the same as diffusers'"),
    "07": Lesson(4, 4, 2, "DETR", "finding things", (),
                 "detection as a set: matching, Hungarian loss, a transformer with queries"),
    "08": Lesson(4, 3, 1, "GLIGEN", "words in boxes", ("06",),
                 "GLIGEN, the gate: grounding tokens, gated self-attention, a frozen model, bit "
                 "for bit"),
    "09": Lesson(5, 3, 1, "grounding", "trained, and open-set", ("07", "08"),
                 "gates that open, scheduled sampling, guidance by boxes, ablations with "
                 "intervals, open-set words, a canvas to draw on"),
    "10": Lesson(6, 4, 1, "inpainting", "new things, old picture", ("07", "09"),
                 "masks, nine channels that begin at zero, the outside kept exactly; does it help "
                 "when DETR tells GLIGEN what is there?"),
    "11": Lesson(6, 3, 1, "more grounding", "poses, pictures, maps", ("09",),
                 "key points, pictures and maps as tokens for the same gates, each measured; "
                 "ReGround beside GLIGEN; a canvas with skeletons to bend"),
    "12": Lesson(4, 2, 3, "DiffEdit", "masks for nothing", ("06",),
                 "a mask from two sentences, encoding with every level kept, decoding inside the "
                 "mask; SDEdit, ILVR and FlexIT beside it, measured on known answers"),
    "13": Lesson(4, 1, 3, "Prompt-to-Prompt", "editing by attention", ("06",),
                 "where a word lives; captions aligned, attention replaced, refined and "
                 "re-weighted; real pictures by null-text inversion"),
    "14": Lesson(5, 1, 3, "InstructPix2Pix", "editing by instruction", ("13",)),
    "15": Lesson(4, 0, 2, "ODISE", "naming every pixel", ("04", "06")),
    "16": Lesson(6, 2, ALL, "published weights", "the same code, full size", ("09",)),
}
WORLD = "pictures as data, and the tools of the course"   # what lesson 00 builds


def written(lesson: Lesson) -> bool:
    """Whether a lesson can be read already."""
    return bool(lesson.builds)


def arrows() -> list[tuple[str, str]]:
    """Each lesson beside one that uses it."""
    return [(start, stop) for stop, lesson in LESSONS.items() for start in lesson.uses]


def row(name: str, about: dict) -> str:
    """A line of README's table for the notebook NAME.ipynb, from what its metadata says."""
    builds = WORLD if name.startswith("00") else LESSONS[name[:2]].builds
    return (f"| [{name}.ipynb](notebooks/{name}.ipynb) | {builds} | {about['minutes_learn']} min "
            f"| {about['minutes_teach']} min | {about['seconds_cpu']} s |")
