"""`python course.py edit`: as typed, and what it refuses."""

import numpy as np
import pytest
import torch
from PIL import Image

from gligen_lessons import cli, diffedit, weights, world
from gligen_lessons.images import heat_over, to_model

SCENE = world.Scene(things=(world.Thing("car", "red", size=.45, y=.85),), time="day")


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(world.render(SCENE).image).save(path)
    return path


def told(capsys) -> str:
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.startswith("error: "), said
    return said


def test_an_edit_is_what_the_library_makes_and_the_sheet_shows_three(photo, tmp_path, capsys):
    out, sheet = tmp_path / "out.png", tmp_path / "sheet.png"
    wish = ["edit", str(photo), "a blue car", "--from", "a red car", "--out", str(out), "--steps",
            "3", "--noises", "2", "--strength", ".7", "--seed", "5", "--sheet", str(sheet)]
    assert cli.main(wish) == 0
    said = capsys.readouterr().out
    assert "the mask covers" in said and said.count("wrote ") == 2
    x = to_model(torch.tensor(world.render(SCENE).image)[None])
    made = diffedit.edit_pictures(weights.text_to_image(), x, ["a red car"], ["a blue car"], 5,
                                  .7, 3, noises=2)
    want = ((made.x[0].movedim(0, -1) + 1) / 2 * 255).round().numpy()
    assert abs(np.array(Image.open(out), int) - want).max() <= 1
    shown = np.array(Image.open(sheet), int)
    assert shown.shape == (128, 384, 3)
    assert abs(shown[:, :128] - world.render(SCENE).image).max() <= 1
    assert abs(shown[:, 256:] - want).max() <= 1


def test_without_a_name_the_edit_lies_beside_the_photo(photo, capsys):
    before = photo.read_bytes()
    assert cli.main(["edit", str(photo), "a blue car", "--from", "a red car", "--steps", "1",
                     "--noises", "1"]) == 0
    assert Image.open(photo.with_name("photo-edited.png")).size == (128, 128)
    assert photo.read_bytes() == before and "photo-edited.png" in capsys.readouterr().out


@pytest.mark.parametrize("size, mode", [((300, 200), "RGB"), ((64, 64), "RGBA"), ((128, 128), "L")])
def test_pictures_of_other_sizes_and_modes_are_taken(size, mode, tmp_path, capsys):
    path, out = tmp_path / "photo.png", tmp_path / "out.png"
    Image.new(mode, size, 90 if mode == "L" else None).save(path)
    assert cli.main(["edit", str(path), "a blue car", "--out", str(out), "--steps", "1",
                     "--noises", "1", "--strength", "0"]) == 0
    said = capsys.readouterr().out
    assert Image.open(out).size == (128, 128)
    assert ("its middle is taken at 128 by 128" in said) == (size != (128, 128))


@pytest.mark.parametrize("words, says", [
    (["a blue car", "--out", "x.gif"], "x.gif must end in .png"),
    (["", "--out", "x.png"], "The query of picture 0 is empty"),
    (["a red car", "--from", "a red car", "--out", "x.png"], "says the same as its reference"),
    (["a blue car", "--out", "x.png", "--strength", "1.5"], "--strength: it must be at most 1"),
    (["a blue car", "--out", "x.png", "--strength", "-1"], "must be a number from 0 to 1"),
    (["a blue car", "--out", "x.png", "--threshold", "nan"], "must be a number from 0 to 1"),
    (["a blue car", "--out", "x.png", "--noises", "0"], "whole number of at least 1"),
    (["a blue car", "--out", "x.png", "--sheet", "x.png"], "name two files"),
    (["a blue car", "--sheet", "photo-edited.png"], "name two files"),
])
def test_what_cannot_be_done_is_refused_before_anything_is_loaded(
        photo, tmp_path, monkeypatch, capsys, words, says):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(weights, "text_to_image", None)
    try:
        assert cli.main(["edit", str(photo), *words]) == 2
    except SystemExit as ended:
        assert ended.code == 2
    assert says in told(capsys) and [p.name for p in tmp_path.iterdir()] == ["photo.png"]


@pytest.mark.parametrize("content, says", [(None, "is missing"), (b"text", "cannot be read as a")])
def test_a_file_that_is_no_picture_is_named(tmp_path, capsys, content, says):
    path = tmp_path / "photo.png"
    if content is not None:
        path.write_bytes(content)
    assert cli.main(["edit", str(path), "a car", "--out", str(tmp_path / "x.png")]) == 2
    said = told(capsys)
    assert "photo.png" in said and says in said


def test_a_heat_map_is_red_where_it_is_high_and_grey_where_it_is_low():
    x, levels = torch.zeros(1, 3, 8, 8), torch.zeros(1, 2, 2)
    levels[0, 0, 1] = 1
    shown = heat_over(x, levels)
    assert torch.equal(shown[..., 4:, :], torch.zeros(1, 3, 4, 8))
    red, green, blue = shown[0, :, :4, 4:].flatten(1).unbind()
    assert bool((red > .5).all() and (green < -.3).all() and (blue < -.5).all())
