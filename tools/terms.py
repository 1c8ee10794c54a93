"""The field's terms: words of our own that once stood for them, and must not come back.

Held against the library's docstrings, comments, messages and names, the notebooks and the README.
Plain English is free: nobody has to guess, a cat may walk, and a picture is drawn.
"""

import json
import re
from pathlib import Path

# what must not stand there (whole words), and the term that does
TERMS = {
    r"painters?|Painters?": "generator, or model",
    r"(the|a|both|two|network's|model's|null|of a|corrected) guess(es)?": "prediction",
    r"guess the noise|guesses (the )?(noise|eps)|guessed (noise|eps)": "predict",
    r"the (whole |plain )?walk of (lesson|the sampler)|whole walk|plain walk": "sampling loop",
    r"shut gates?|gates? (is|are|stays?|begins?|was|were) shut|half shut": "closed",
    r"spread (of )?one": "unit standard deviation",
    r"short cuts?": "residual connection",
    r"on the pile|a pile of (bridges|skips)": "stack",
    r"parts of the picture": "normalised coordinates",
    r"dearest": "most expensive",
    r"commonest slip|usual slips?|[Tt]ypical slips?": "mistake",
    r"boxes (that )?are heard|grounding is heard": "used",
    r"first school": "pre-training",
    r"PlaceNamer|PlaceHead": "DenseClassifier, CellHead",
    r"masks_of|keep_known|with_known|cheapest_by_trying|gates_at": "see NOTATION.md",
    r"paint_grounded|draw_grounded|grounded_guess|fast_gates|step_strengths": "see NOTATION.md",
    r"in (sines and )?waves|as waves|of waves": "sinusoids",
}
FORBIDDEN = [(re.compile(rf"\b(?:{pattern})\b"), term) for pattern, term in TERMS.items()]


def violations(text: str, where: str) -> list[str]:
    """Each line of a text that holds a word of our own, with the term to use.

    A line with FORMER may: it names what an earlier release called something that still works.
    """
    return [f"{where}:{i}: {found[0]!r}: say {term}"
            for i, line in enumerate(text.splitlines(), 1) for pattern, term in FORBIDDEN
            if "FORMER" not in line and (found := pattern.search(line))]


def in_file(path: Path) -> list[str]:
    """The same for a file; a notebook's cells one by one."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        return [one for cell in json.loads(text)["cells"]
                for one in violations("".join(cell["source"]), f"{path.name}, cell {cell['id']}")]
    return violations(text, path.name)
