"""The course in JupyterLab, in a real Chromium: Run All, what one moves, no outside request."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest

import course

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
TOKEN = "a-token-for-this-test"
CELLS = ".jp-Notebook .jp-CodeCell"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update"]
MATCHER = nbformat.v4.new_notebook(
    cells=[nbformat.v4.new_code_cell("from gligen_lessons import widgets\nwidgets.box_matcher()")],
    metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium on this machine (Debian: apt-get install chromium)")


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """JupyterLab over a copy of the notebooks that nobody has run, and with the small dial."""
    home = tmp_path_factory.mktemp("lab")
    shutil.copytree(ROOT / "notebooks", home / "notebooks",
                    ignore=shutil.ignore_patterns(".ipynb_checkpoints", ".cache"))
    for path in (home / "notebooks").glob("*.ipynb"):
        forget_outputs(path)
    nbformat.write(MATCHER, home / "notebooks" / "matcher.ipynb")
    course.quiet(Path(sys.prefix))
    tracker = home / "settings" / "@jupyterlab" / "notebook-extension"
    tracker.mkdir(parents=True)
    (tracker / "tracker.jupyterlab-settings").write_text(json.dumps({"windowingMode": "none"}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {**os.environ, "GLIGEN_LESSONS_DIAL": "small", "JUPYTER_CONFIG_DIR": str(home / "config"),
           "JUPYTER_DATA_DIR": str(home / "data"), "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
           "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"), "IPYTHONDIR": str(home / "ipython"),
           "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces")}
    options = course.jupyter_options(
        ["--no-browser", "--allow-root", f"--port={port}", f"--IdentityProvider.token={TOKEN}"],
        home / "notebooks")
    with (home / "log").open("wb") as log:
        server = subprocess.Popen([sys.executable, "-m", "jupyterlab", *options], env=env,
                                  cwd=home, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: answers(f"{address}/api?token={TOKEN}"), 60, "JupyterLab does not answer")
        yield address
    finally:
        server.terminate()
        server.wait(20)


def forget_outputs(path: Path) -> None:
    """Take outputs and prompts out of a notebook: what shows afterwards was made by this run."""
    notebook = nbformat.read(path, 4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(notebook, path)


def answers(address: str) -> bool:
    try:
        return urllib.request.urlopen(address, timeout=2).status == 200
    except OSError:
        return False


def connected(lab: str, notebook: str) -> bool:
    """Is the notebook's kernel idle, and the page connected to it?"""
    with urllib.request.urlopen(f"{lab}/api/sessions?token={TOKEN}", timeout=5) as found:
        kernels = [s["kernel"] for s in json.load(found) if s["path"] == notebook]
    return any(k["connections"] and k["execution_state"] == "idle" for k in kernels)


def wait_for(holds, seconds: float, complaint: str) -> None:
    """Ask twice a second until it holds; fail with the complaint when time is up."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            pytest.fail(f"{complaint} after {seconds:.0f} s")
        time.sleep(.5)


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


def press_run_all(page) -> None:
    page.click(".lm-MenuBar-itemLabel:text-is('Run')")
    page.click(".lm-Menu-itemLabel:text-is('Run All Cells')")


def run_all(browser, lab: str, notebook: str):
    """Open a notebook, Run All Cells, wait for every prompt; the page and what left the machine."""
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    outside = []
    page.on("request", lambda request: None if request.url.startswith((lab, "data:", "blob:"))
            else outside.append(request.url))
    own = Path(notebook).stem                        # a workspace that restores no other tab
    page.goto(f"{lab}/lab/workspaces/{own}/tree/{notebook}?token={TOKEN}")
    page.wait_for_selector(CELLS, timeout=60_000)
    wait_for(lambda: connected(lab, notebook), 60, f"{notebook}: no kernel")
    press_run_all(page)
    page.wait_for_timeout(3000)
    if page.locator(".jp-Dialog").count():           # the page was not ready: it asks for a kernel
        page.click(".jp-Dialog .jp-mod-accept")
        press_run_all(page)

    def finished() -> bool:
        prompts = page.locator(f"{CELLS} .jp-InputPrompt").all_inner_texts()
        return all(re.fullmatch(r"\[\d+\]:", prompt.strip()) for prompt in prompts)

    wait_for(finished, 300, f"{notebook}: some cells have not run")
    return page, outside


def test_lesson_1_runs_from_top_to_bottom(lab, browser):
    page, outside = run_all(browser, lab, "01_ddpm.ipynb")
    errors = page.locator(".jp-OutputArea [data-mime-type='application/vnd.jupyter.error']")
    assert errors.count() == 0, errors.all_inner_texts()
    assert page.locator(f"{CELLS} .jp-OutputArea img").count() >= 5
    assert page.get_by_text("Jupyter news").count() == 0
    assert outside == []
    page.close()


def test_in_lesson_0_a_slider_changes_its_picture(lab, browser):
    page, outside = run_all(browser, lab, "00_the_world.ipynb")
    picture = page.locator(".scene-picture").first
    picture.scroll_into_view_if_needed()
    before = picture.get_attribute("src")
    handle = page.locator(".scene-slider .noUi-handle").first
    handle.focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    wait_for(lambda: picture.get_attribute("src") != before, 20, "the picture did not change")
    assert outside == []
    page.close()


def drag(page, what, dx: float, dy: float) -> None:
    """Drag the middle of an element by parts of the canvas, with the mouse."""
    box, whole = what.bounding_box(), page.locator(".box-layer").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + dx * whole["width"], y + dy * whole["height"], steps=12)
    page.mouse.up()


def last_cells(page, table: str) -> list[str]:
    """What stands last in each row of a table's body."""
    return page.locator(f"{table} tbody tr > :last-child").all_inner_texts()


def box_in_words(page, name: str) -> list[int]:
    """Left, top, right, bottom of a box in percent, as a screen reader says them."""
    words = page.get_by_role("button", name=name).get_attribute("aria-label")
    return [int(number) for number in re.findall(r"\d+", words.split(":")[1])]


def test_a_predicted_box_is_moved_by_mouse_and_by_keys(lab, browser):
    page, outside = run_all(browser, lab, "matcher.ipynb")
    tree = page.get_by_role("button", name="3 tree")
    tree.wait_for()
    assert last_cells(page, ".box-costs") == ["boat", "person", "tree", "nothing"]
    before = last_cells(page, ".box-losses")
    drag(page, tree, .3, .02)                            # onto the tree: now it answers for it
    wait_for(lambda: last_cells(page, ".box-costs") == ["boat", "person", "nothing", "tree"], 20,
             "the matching did not change")
    wait_for(lambda: float(last_cells(page, ".box-losses")[-1]) < float(before[-1]) - 1, 20,
             "the loss did not fall")

    placed = box_in_words(page, "3 tree")
    drag(page, page.locator(".box-nw"), -.1, -.2)        # a corner of the box that is chosen
    left, top, *rest = box_in_words(page, "3 tree")
    assert rest == placed[2:] and abs(placed[0] - left - 10) < 2 and abs(placed[1] - top - 20) < 2

    page.keyboard.press("Shift+Tab")                     # from here on without the mouse
    page.keyboard.press("Shift+Tab")
    assert "1 person" in page.evaluate("document.activeElement.getAttribute('aria-label')")
    placed, costs = box_in_words(page, "1 person"), page.locator(".box-costs").inner_text()
    for key in ["ArrowRight"] * 5 + ["ArrowUp"] * 3 + ["Shift+ArrowLeft"] * 2:
        page.keyboard.press(key)
    moved = [new - old for new, old in zip(box_in_words(page, "1 person"), placed, strict=True)]
    assert moved == [5, -3, 3, -3]
    page.keyboard.press("b")                             # in Lab: a new cell below
    assert page.locator(CELLS).count() == 1
    assert "1 person: left" in page.locator(".box-status").inner_text()
    wait_for(lambda: page.locator(".box-costs").inner_text() != costs, 20, "the costs stayed")
    wide = box_in_words(page, "1 person")[2] - box_in_words(page, "1 person")[0]
    for _ in range(99):
        page.keyboard.press("ArrowLeft")
    assert box_in_words(page, "1 person")[::2] == [0, wide]      # whole, and no further than that
    assert outside == []
    page.close()


HURRY = """async ([source, traits]) => {
  const { default: widget } = await import("data:text/javascript," + encodeURIComponent(source));
  const pause = (ms) => new Promise((then) => setTimeout(then, ms));
  let pressed = 0, saved = 0;
  widget.render({ el: document.body, model: { get: (name) => traits[name], on() {},
    set(name, value) { traits[name] = value; }, save_changes() { saved++; } } });
  const box = document.querySelector("[role=button]"), end = performance.now() + 600;
  while (performance.now() < end) {
    box.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight" }));
    pressed++;
    await pause(2);
  }
  await pause(200);
  return [pressed, saved, traits.boxes[1][0]];
}"""


def test_the_canvas_sends_twenty_messages_a_second_and_always_the_last(browser):
    page = browser.new_page()
    traits = {"picture": "", "boxes": [[.5, .5, 1, 1], [0, 0, .2, .2]], "names": [], "fixed": [0],
              "colours": ["red"], "links": [], "label": "boxes", "step": .0001}
    source = (ROOT / "gligen_lessons" / "boxes.js").read_text("utf-8")
    pressed, saved, left = page.evaluate(HURRY, [source, traits])
    assert pressed > 25 and 2 <= saved <= 14
    assert left == pytest.approx(pressed * .0001)
    page.close()
