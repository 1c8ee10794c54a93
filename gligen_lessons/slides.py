"""A seminar deck from a lesson: one HTML file that needs no network and no server."""

import base64
import html
import mimetypes
import re
from pathlib import Path

import nbformat

TEMPLATE = Path(__file__).with_name("deck.html")
# Code first, so that a dollar sign in it is left alone; then the three ways to write a formula.
MATH = re.compile(
    r"(?P<code>(?P<ticks>`+).+?(?P=ticks)(?!`))"
    r"|\$\$(?P<block>.+?)\$\$"
    r"|(?P<lines>\\begin\{(?P<name>\w+\*?)\}.+?\\end\{(?P=name)\})"
    r"|(?<![\\$])\$(?P<inline>[^$\n]+?)\$(?!\d)", re.S)
UNSHOWN = ("application/javascript", "text/latex")      # outputs that would need a script


def lesson(notebooks: Path, number: str) -> Path:
    """The notebook of lesson `number` ("1", "01" or its file name).

    Raises FileNotFoundError that lists the lessons when there is none.
    """
    stem = Path(number).stem
    for path in sorted(Path(notebooks).glob("*.ipynb")):
        if stem in (path.stem, path.stem.split("_")[0]) or path.name.startswith(f"0{stem}_"):
            return path
    there = ", ".join(path.stem for path in sorted(Path(notebooks).glob("*.ipynb"))) or "none"
    raise FileNotFoundError(f"There is no lesson {number!r} in {notebooks}; it has: {there}.")


def formula(tex: str, display: str) -> str:
    """A formula as MathML, which browsers typeset themselves; display is "inline" or "block".

    Raises ValueError for a formula that is malformed or uses an unknown command.
    """
    from latex2mathml.converter import convert

    tex = tex.strip()
    try:
        mathml = convert(tex, display=display)
    except Exception as error:                         # it has a dozen kinds of its own
        raise ValueError(f"The formula {tex} is malformed: {type(error).__name__}.") from error
    if unknown := re.search(r"\\\w+", mathml):         # it leaves what it does not know
        raise ValueError(f"The formula {tex} uses {unknown[0]}, which no deck can show.")
    return mathml


def typeset(source: str) -> tuple[str, dict[str, str]]:
    """Markdown with a placeholder word for each formula, and what the words stand for."""
    found = {}

    def swap(match: re.Match) -> str:
        if match["code"]:
            return match[0]
        word = f"FORMULA{len(found)}X"
        if match["inline"]:
            found[word] = formula(match["inline"], "inline")
            return word
        found[word] = formula(match["block"] or match["lines"], "block")
        return f"\n\n{word}\n\n"

    return MATH.sub(swap, source), found


def embed(text: str, folder: Path) -> str:
    """Put the pictures that `text` (HTML) takes from files in `folder` into the text itself.

    Raises FileNotFoundError for a picture that is not there (one on the network, say).
    """
    def swap(match: re.Match) -> str:
        path = folder / match[2]
        if not path.is_file():
            raise FileNotFoundError(f"The picture {match[2]} is not in {folder}; a deck can "
                                    "only show pictures that lie beside the lesson.")
        data = base64.b64encode(path.read_bytes()).decode()
        return f"{match[1]}data:{mimetypes.guess_type(path)[0]};base64,{data}"

    return re.sub(r'(<img\b[^>]*\bsrc=")(?!data:)([^"]+)', swap, text)


def cell_html(cell, export) -> str:
    """One cell as HTML: formulas typeset, solution marks and scripts left out."""
    cell, found = nbformat.from_dict(cell), {}
    if cell.cell_type == "markdown":
        cell.source, found = typeset(cell.source)
    else:
        kept = [line for line in cell.source.splitlines()
                if not re.search(r"\b(BEGIN|END) SOLUTION\b", line)]
        cell.source = "\n".join(kept)
    for output in cell.get("outputs", []):
        for kind in UNSHOWN:
            output.get("data", {}).pop(kind, None)
    text = export(nbformat.v4.new_notebook(cells=[cell]))
    for word, mathml in found.items():
        text = text.replace(word, mathml)
    return text


def exporter(folder: Path):
    """A function that turns a notebook into HTML without head or scripts, pictures inside."""
    from nbconvert import HTMLExporter

    # its own embed_images closes every <details> at once, and the hints stand open
    export = HTMLExporter(template_name="basic", exclude_input_prompt=True,
                          exclude_output_prompt=True, exclude_anchor_links=True)
    return lambda notebook: embed(export.from_notebook_node(notebook)[0], folder)


def sections(cells, export) -> list[str]:
    """The slides: "slide" and "subslide" begin one, "fragment" appears later, "skip" is dropped.

    Instructor notes (the cell's `notes`, or a cell of type "notes") show when n is pressed.
    """
    pages: list[list[str]] = []
    for cell in cells:
        kind = cell.metadata.get("slideshow", {}).get("slide_type", "-")
        if kind == "skip":
            continue
        if kind in ("slide", "subslide") or not pages:
            pages.append([])
        text = cell_html(cell, export)
        tag, style = ("aside", "") if kind == "notes" else ("div", kind)
        pages[-1].append(f'<{tag} class="{style}">{text}</{tag}>')
        if notes := cell.metadata.get("notes"):
            pages[-1].append(f"<aside>{html.escape(str(notes))}</aside>")
    return ["<section>\n" + "\n".join(page) + "\n</section>" for page in pages]


def write_deck(notebook: Path, target: Path) -> int:
    """Write the deck of a notebook to the HTML file `target`; returns the number of slides."""
    from pygments.formatters import HtmlFormatter

    cells = nbformat.read(notebook, as_version=4).cells
    pages = sections(cells, exporter(Path(notebook).parent))
    deck = TEMPLATE.read_text(encoding="utf-8")
    for mark, text in (("@TITLE@", html.escape(Path(notebook).stem)),
                       ("@PYGMENTS@", HtmlFormatter(style="default").get_style_defs(".highlight")),
                       ("@SLIDES@", "\n".join(pages))):
        deck = deck.replace(mark, text)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(deck, encoding="utf-8")
    return len(pages)
