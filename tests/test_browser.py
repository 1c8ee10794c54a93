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
from gligen_lessons.widgets.box_canvas import BoxCanvas
from gligen_lessons.widgets.grounding_canvas import grounding_canvas
from gligen_lessons.widgets.pose_canvas import pose_canvas, start_pose

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
TOKEN = "a-token-for-this-test"
CELLS = ".jp-Notebook .jp-CodeCell"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update"]
OWN = {"matcher.ipynb": "from gligen_lessons.widgets.box_matcher import box_matcher\nbox_matcher()",
       "generator.ipynb": """\
import numpy as np
from gligen_lessons.widgets.grounding_canvas import grounding_canvas

def paint(caption, phrases, boxes_xyxy, seed, tau):
    picture = np.full((60, 60, 3), 255, np.uint8)
    for phrase, (x0, y0, x1, y1) in zip(phrases, (60 * boxes_xyxy).round().int().tolist()):
        picture[y0:y1, x0:x1] = (255, 0, 0) if "red" in phrase else (0, 0, 255)
    return picture

grounding_canvas(paint)""",
       "pose.ipynb": """\
import numpy as np
from gligen_lessons.widgets.pose_canvas import pose_canvas

def generate_picture(caption, keypoints, words, seed):
    picture = np.full((100, 100, 3), 255, np.uint8)
    for word, figure in zip(words, keypoints.tolist()):
        for x, y, visible in figure:
            left, top = max(round(99 * x) - 2, 0), max(round(99 * y) - 2, 0)
            if visible == 2:
                picture[top:top + 5, left:left + 5] = [0, 0, 255] if "rob" in word else [255, 0, 0]
    return picture

pose_canvas(generate_picture)"""}

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
    for name, code in OWN.items():
        nbformat.write(nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(code)],
            metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}}),
            home / "notebooks" / name)
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


def wait_for(holds, seconds: float, violation: str) -> None:
    """Ask twice a second until it holds; fail with the complaint when time is up."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            pytest.fail(f"{violation} after {seconds:.0f} s")
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


COLOUR_AT = """(image, [x, y]) => {
  const canvas = document.createElement("canvas"), pen = canvas.getContext("2d");
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  pen.drawImage(image, 0, 0);
  return [...pen.getImageData(x * canvas.width, y * canvas.height, 1, 1).data].slice(0, 3);
}"""
WHITE, RED, BLUE = [255, 255, 255], [255, 0, 0], [0, 0, 255]


def wait_for_colours(page, colours: dict, violation: str) -> None:
    """Wait until the painted picture has these colours at these places (x, y) in 0..1."""
    picture = page.locator(".grounding-picture")
    wait_for(lambda: picture.is_visible() and all(
        picture.evaluate(COLOUR_AT, place) == colour for place, colour in colours.items()),
        20, violation)


def pull(page, start: tuple[float, float], stop: tuple[float, float]) -> None:
    """Press the mouse at one place of the paper and release it at another."""
    paper = page.locator(".grounding-paper .box-layer").bounding_box()
    (x0, y0), (x1, y1) = ((paper["x"] + x * paper["width"], paper["y"] + y * paper["height"])
                          for x, y in (start, stop))
    page.mouse.move(x0, y0)
    page.mouse.down()
    page.mouse.move(x1, y1, steps=12)
    page.mouse.up()


def tab_to(page, selector: str, key: str = "Tab") -> None:
    """Press Tab until something has the focus, as one does who has no mouse."""
    for _ in range(20):
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
        page.keyboard.press(key)
    pytest.fail(f"{key} does not lead to {selector}")


def test_boxes_are_drawn_by_mouse_and_by_keys_and_painted(lab, browser):
    page, outside = run_all(browser, lab, "generator.ipynb")
    page.locator(".grounding-paper .box-layer").scroll_into_view_if_needed()
    message = page.locator(".grounding-message")

    pull(page, (.6, .6), (.61, .61))                     # no box yet
    wait_for(lambda: "too small" in message.inner_text(), 20, "a tiny box went unnoticed")
    pull(page, (.1, .1), (.4, .5))
    page.click(".grounding-paint")
    wait_for(lambda: message.inner_text() == "Phrase 0 is empty; say what its box should hold.",
             20, "the empty phrase went unnoticed")
    page.click(".grounding-phrase")
    page.keyboard.type("a red thing")
    assert page.locator(".box-name").inner_text() == "a red thing"
    page.click(".grounding-paint")                       # at once: what was typed goes along
    wait_for_colours(page, {(.25, .3): RED, (.5, .3): WHITE}, "the first box was not painted")
    assert message.inner_text() == ""

    tab_to(page, ".grounding-add", "Shift+Tab")          # from here on without the mouse
    page.keyboard.press("Enter")
    for key in ["Shift+ArrowRight"] * 5 + ["ArrowRight"] * 99 + ["ArrowDown"] * 99:
        page.keyboard.press(key)
    assert box_in_words(page, "box 1: left") == [65, 70, 100, 100]
    page.keyboard.press("Enter")
    page.keyboard.type("a blue thing")
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    wait_for_colours(page, {(.25, .3): RED, (.8, .8): BLUE, (.6, .8): WHITE},
                     "the second box was not painted")

    tab_to(page, ".grounding-repaint", "Shift+Tab")
    page.keyboard.press("Space")
    pull(page, (.25, .3), (.65, .3))                     # the red box: the picture follows
    wait_for_colours(page, {(.2, .3): WHITE, (.65, .3): RED}, "the picture did not follow")
    page.keyboard.press("Delete")
    wait_for_colours(page, {(.65, .3): WHITE, (.8, .8): BLUE}, "the box was not removed")
    assert page.locator(".grounding-phrase").count() == 1
    assert page.locator(CELLS).count() == 1 and outside == []
    page.close()


def joint(page, name: str, skeleton: int = 0):
    return page.locator(f"[aria-label^='{name} of skeleton {skeleton},']")


def joint_at(page, name: str, skeleton: int = 0) -> tuple[float, float]:
    """Where a joint is, x and y in 0..1, as a screen reader says it."""
    words = joint(page, name, skeleton).get_attribute("aria-label").split(":")[1]
    x, y = (int(number) / 100 for number in re.findall(r"\d+", words))
    return x, y


def away(place: tuple[float, float], dx: float, dy: float):
    return pytest.approx((place[0] + dx, place[1] + dy), abs=.011)


def test_a_skeleton_is_bent_by_mouse_and_by_keys_and_painted(lab, browser):
    page, outside = run_all(browser, lab, "pose.ipynb")
    page.locator(".grounding-paper .box-layer").scroll_into_view_if_needed()
    wrist, ankle = joint_at(page, "left wrist"), joint_at(page, "left ankle")
    drag(page, joint(page, "left wrist"), .2, -.3)
    assert joint_at(page, "left wrist") == away(wrist, .2, -.3)
    assert joint_at(page, "left ankle") == ankle
    torso = [sum(start_pose("standing")[j][k] for j in (5, 6, 11, 12)) / 4 for k in (0, 1)]
    pull(page, torso, (torso[0] - .1, torso[1] + .05))   # by its torso the whole of it
    assert joint_at(page, "left wrist") == away(wrist, .1, -.25)
    assert joint_at(page, "left ankle") == away(ankle, -.1, .05)
    page.click(".grounding-paint")
    wait_for_colours(page, {joint_at(page, "left wrist"): RED, joint_at(page, "left ankle"): RED,
                            wrist: WHITE}, "the bent skeleton was not painted")

    tab_to(page, "[aria-label^='right wrist']", "Shift+Tab")     # from here on without the mouse
    before = {name: joint_at(page, name) for name in ("left wrist", "right wrist", "nose")}
    for key in ["ArrowRight"] * 5 + ["ArrowUp"] * 2 + ["Shift+ArrowLeft"] * 3:
        page.keyboard.press(key)
    assert joint_at(page, "right wrist") == away(before["right wrist"], .02, -.02)
    assert joint_at(page, "nose") == away(before["nose"], -.03, 0)
    before = {name: joint_at(page, name) for name in before}
    page.keyboard.press("m")
    assert joint_at(page, "right wrist")[1] == before["left wrist"][1]
    assert joint_at(page, "right wrist")[0] < joint_at(page, "left wrist")[0]
    page.keyboard.press("Delete")
    assert joint(page, "right wrist").get_attribute("aria-label").endswith("hidden")
    page.keyboard.press("b")                             # in Lab: a new cell below
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    wait_for_colours(page, {joint_at(page, "left wrist"): RED, joint_at(page, "right ankle"): RED,
                            joint_at(page, "right wrist"): WHITE}, "it was not painted mirrored")

    tab_to(page, ".grounding-add", "Shift+Tab")
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")                         # from a joint past all the others
    tab_to(page, ".grounding-row:nth-child(2) .pose-word", "Shift+Tab")
    page.keyboard.press("ArrowDown")
    tab_to(page, ".grounding-paint")
    page.keyboard.press("Enter")
    wait_for_colours(page, {joint_at(page, "left wrist", 1): BLUE,
                            joint_at(page, "right ankle"): RED}, "the robot was not painted")
    assert page.locator(CELLS).count() == 1 and outside == []
    page.close()


def test_the_last_visible_joint_cannot_be_hidden_and_nothing_leaves_the_paper(browser):
    page = browser.new_page()
    body = [[x, y, 2 if i == 9 else 1] for i, (x, y, _) in enumerate(start_pose("standing"))]
    widget = pose_canvas(print, figures=[body])
    page.add_style_tag(content=str(widget._css))
    page.evaluate(STUB, [str(widget._esm), {**widget.get_state(), "picture": ""}])
    joint(page, "left wrist").focus()
    page.keyboard.press("Delete")
    assert page.evaluate("sent.at(-1).message") == "One joint at least must stay visible."
    page.keyboard.press("ArrowUp")
    for key in ["Shift+ArrowRight"] * 99 + ["ArrowDown"] * 99:
        page.keyboard.press(key)
    page.wait_for_timeout(900)
    (points,) = page.evaluate("sent.at(-1).keypoints")
    assert max(x for x, _, _ in points) == 1 and points[9][1] == 1
    assert points[10][0] - points[9][0] == pytest.approx(body[10][0] - body[9][0])
    assert page.evaluate("sent.at(-1).message") == ""
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
    pressed, saved, left = page.evaluate(HURRY, [str(BoxCanvas._esm), traits])
    assert pressed > 25 and 2 <= saved <= 14
    assert left == pytest.approx(pressed * .0001)
    page.close()


STUB = """async ([source, traits]) => {
  window.sent = [];
  const { default: widget } = await import("data:text/javascript," + encodeURIComponent(source));
  widget.render({ el: document.body, model: { get: (name) => traits[name], on() {},
    set(name, value) { traits[name] = value; },
    save_changes() { window.sent.push(structuredClone(traits)); } } });
}"""


def test_the_painter_sends_when_things_rest_and_a_press_takes_all_along(browser):
    page = browser.new_page()
    widget = grounding_canvas(print, "snow", ["a dog"], [[.1, .1, .4, .4]], limit=1)
    traits = {**widget.get_state(), "picture": ""}
    page.add_style_tag(content=str(widget._css))
    page.evaluate(STUB, [str(widget._esm), traits])
    paper = page.locator(".box-layer").bounding_box()
    page.mouse.move(paper["x"] + .2 * paper["width"], paper["y"] + .2 * paper["width"])
    page.mouse.down()
    page.mouse.move(paper["x"] + .5 * paper["width"], paper["y"] + .2 * paper["width"], steps=5)
    page.wait_for_timeout(900)                           # held still, but held
    assert page.evaluate("sent") == []
    page.mouse.up()
    page.wait_for_timeout(900)
    (rested,) = page.evaluate("sent")
    assert rested["boxes"][0] == pytest.approx([.4, .1, .7, .4], abs=.01)
    assert not rested["requested"]
    page.keyboard.press("ArrowRight")
    page.locator(".grounding-phrase").evaluate(
        "field => { field.value = 'a cat'; field.dispatchEvent(new Event('input')); }")
    page.locator(".grounding-paint").evaluate("button => { button.click(); button.click(); }")
    page.wait_for_timeout(900)
    _, requested = page.evaluate("sent")                     # one message for two presses
    assert requested["boxes"][0][0] == pytest.approx(rested["boxes"][0][0] + .01)
    assert requested["requested"] == 1 and requested["phrases"] == ["a cat"]
    pull(page, (.1, .6), (.4, .9))                       # a second box, where one is the limit
    last = page.evaluate("sent.at(-1)")
    assert last["message"].startswith("No more than 1") and len(last["boxes"]) == 1
    page.close()
