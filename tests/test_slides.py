"""Seminar decks: the slides of a notebook in one file that asks nothing of any network."""

import base64
import shutil
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest

from gligen_lessons import slides

ROOT = Path(__file__).resolve().parent.parent
PIXEL = base64.b64encode(bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63f8"
    "cfc0000003010100c9fe92ef0000000049454e44ae426082")).decode()
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def markdown(text, kind="-", **metadata):
    return nbformat.v4.new_markdown_cell(
        text, metadata={"slideshow": {"slide_type": kind}, **metadata})


def lesson_cells():
    plot = nbformat.v4.new_output("display_data", {"image/png": PIXEL, "text/plain": "<Figure>"})
    slider = nbformat.v4.new_output("display_data", {
        "application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "a slider"})
    script = nbformat.v4.new_output("display_data", {
        "application/javascript": "alert(1)", "text/plain": "a script"})
    code = nbformat.v4.new_code_cell(
        "def half(x):\n    ### BEGIN SOLUTION\n    return x / 2  # costs $1 or $2\n"
        "    ### END SOLUTION", outputs=[plot, slider, script],
        metadata={"slideshow": {"slide_type": "fragment"}})
    return [
        markdown("# Title\nSee [the paper](https://arxiv.org/abs/2006.11239)."),
        markdown("Formula $\\frac{a}{b}$, price \\$5, code `$x$` and `a $y$ b`, $5 here.\n\n"
                 "$$x_t = \\sqrt{\\bar\\alpha_t}\\, x_0$$\n\n![local](dot.png)", "slide",
                 notes="Ask <first>."),
        code,
        markdown("never seen", "skip"),
        markdown("second part\n\n\\begin{align} a &= b \\\\ c &< d \\end{align}", "subslide"),
        markdown("<details><summary>Hint</summary>\n\nhidden `words`\n\n</details>"),
        markdown("for the teacher", "notes"),
    ]


@pytest.fixture
def deck(tmp_path):
    """(the number of slides, the path of the deck)"""
    (tmp_path / "dot.png").write_bytes(base64.b64decode(PIXEL))
    nbformat.write(nbformat.v4.new_notebook(cells=lesson_cells()), tmp_path / "03_x.ipynb")
    target = tmp_path / "out" / "deck.html"
    return slides.write_deck(tmp_path / "03_x.ipynb", target), target


class Loads(HTMLParser):
    """Collects what a page would fetch, and counts its tags."""

    def __init__(self, text):
        super().__init__()
        self.fetched, self.tags = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            loads = name in ("src", "srcset", "poster", "data", "background") or \
                name == "href" and tag != "a"
            if loads and not (value or "").startswith("data:"):
                self.fetched.append((tag, name, value))


def assert_loads_nothing(text):
    assert Loads(text).fetched == []
    style = text.split("<style>")[1].split("</style>")[0]
    assert "url(" not in style and "@import" not in style
    assert "default-src 'none'" in text


def test_a_deck_has_its_slides_and_loads_nothing(deck):
    count, path = deck
    text = path.read_text("utf-8")
    assert count == 3 == Loads(text).tags.count("section")
    assert_loads_nothing(text)
    assert text.count("data:image/png") == 2                     # the plot and the local picture
    assert "never seen" not in text and "SOLUTION" not in text and "widget-view" not in text
    assert "a script" in text and "alert(1)" not in text
    assert "a slider" in text and "costs $1 or $2" in text.replace("</span>", "").replace(
        '<span class="c1">', "")
    assert "<aside>Ask &lt;first&gt;.</aside>" in text
    assert text.count('<aside class="">') == 1 and text.count('<div class="fragment">') == 1
    assert "@" not in {line[:1] for line in text.splitlines() if not line.startswith("@media")}


def test_formulas_become_mathml_and_other_dollars_stay(deck):
    text = deck[1].read_text("utf-8")
    assert text.count("<math") == 3 and "<mfrac><mrow><mi>a</mi></mrow>" in text
    assert "<msqrt>" in text and "FORMULA" not in text
    assert "<code>$x$</code>" in text and "<code>a $y$ b</code>" in text and "$5 here" in text


@pytest.mark.parametrize("tex, says", [
    ("x^", "is malformed: Missing"), ("\\left( x", "is malformed: Extra"),
    ("a \\nosuch b", "uses \\nosuch,")])
def test_a_formula_that_cannot_be_typeset_is_named(tex, says):
    with pytest.raises(ValueError) as error:
        slides.typeset(f"wrong ${tex}$")
    assert f"The formula {tex} " in str(error.value) and says in str(error.value)


def test_a_picture_from_elsewhere_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="The picture https://example.org/a.png is not"):
        slides.embed('<p><img alt="a" src="https://example.org/a.png"></p>', tmp_path)


@pytest.mark.parametrize("number", ["1", "01", "01_ddpm", "01_ddpm.ipynb"])
def test_a_lesson_is_found_by_its_number_or_name(number, tmp_path):
    for name in ("01_ddpm", "11_more"):
        (tmp_path / f"{name}.ipynb").touch()
    assert slides.lesson(tmp_path, number).name == "01_ddpm.ipynb"
    with pytest.raises(FileNotFoundError, match="it has: 01_ddpm, 11_more"):
        slides.lesson(tmp_path, "2")


@pytest.mark.parametrize("notebook", sorted((ROOT / "notebooks").glob("*.ipynb")),
                         ids=lambda path: path.stem)
def test_every_lesson_makes_a_deck(notebook, tmp_path):
    assert slides.write_deck(notebook, tmp_path / "deck.html") >= 5
    assert_loads_nothing((tmp_path / "deck.html").read_text("utf-8"))


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium on this machine: .ci/run installs one")
def test_a_real_browser_pages_through_it(deck):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        requested, violations = [], []
        page.on("request", lambda request: requested.append(request.url))
        page.on("console", lambda message: violations.append(message.text))
        page.on("pageerror", lambda error: violations.append(str(error)))
        page.goto(deck[1].as_uri())
        assert page.locator("section:visible h1").inner_text() == "Title"
        page.keyboard.press("ArrowRight")
        formula = page.locator("section:visible math[display=block]")
        assert formula.bounding_box()["height"] > 15
        fragment = page.locator(".fragment")
        assert not fragment.is_visible()
        page.keyboard.press("ArrowRight")
        assert fragment.is_visible()
        assert not page.locator("section.now aside").is_visible()
        page.keyboard.press("n")
        assert page.locator("section.now aside").is_visible()
        page.keyboard.press("ArrowRight")
        assert "second part" in page.locator("section:visible").inner_text()
        hint = page.get_by_text("hidden words")
        assert not hint.is_visible()
        page.get_by_text("Hint").click()
        assert hint.is_visible()
        assert page.locator("footer").inner_text().startswith("3 / 3")
        page.keyboard.press("ArrowLeft")                         # back to the whole second slide
        assert fragment.is_visible()
        browser.close()
    assert violations == [] and {url.split(":")[0] for url in requested} <= {"file", "data"}
