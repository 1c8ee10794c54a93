"""Training on a COCO folder of anybody's pictures: reading, training, going on, and using it."""

import json
import os

import numpy as np
import pytest
import torch
from own_folder import WORDS, photograph, save, write
from PIL import Image

from gligen_lessons import cli, files, recipes, shipping, train, weights, world
from gligen_lessons.datasets.own_data import OwnPictures, fitting, own_data
from gligen_lessons.detr import DETR, detect
from gligen_lessons.eval.own_data import own_detr_report
from gligen_lessons.metrics import detection_precision
from gligen_lessons.reading import picture
from gligen_lessons.recipes.detr import SMALL_DETR
from gligen_lessons.recipes.own_data import OwnFolder, start_from
from gligen_lessons.train import OWN
from gligen_lessons.world import coco_out

pytestmark = pytest.mark.filterwarnings("ignore:instances:UserWarning")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GLIGEN_LESSONS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(weights.OWN, raising=False)


# ------------------------------------------------------------------------------------ reading

@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_picture_is_turned_as_it_is_shown(tmp_path, orientation):
    """As a browser shows it; only the size that the annotations give may say otherwise."""
    stored = np.arange(12 * 20 * 3, dtype=np.uint8).reshape(12, 20, 3)
    rows, columns = (x.ravel() for x in np.mgrid[:12, :20])
    exif = Image.Exif()
    exif[0x112] = orientation
    Image.fromarray(stored).save(tmp_path / "x.png", exif=exif)
    shown = np.asarray(picture(tmp_path / "x.png"))
    flips = {2: (rows, 19 - columns), 3: (11 - rows, 19 - columns), 4: (11 - rows, columns),
             5: (columns, rows), 6: (columns, 11 - rows), 7: (19 - columns, 11 - rows),
             8: (19 - columns, rows)}                     # where each stored pixel is seen
    np.testing.assert_array_equal(shown[flips[orientation]], stored[rows, columns])
    assert np.asarray(picture(tmp_path / "x.png", shown.shape[1::-1])).shape == shown.shape
    if orientation > 4:                                   # somebody took no notice of EXIF
        np.testing.assert_array_equal(picture(tmp_path / "x.png", (20, 12)), stored)
    with pytest.raises(ValueError, match="but x.png is 20 by 12"):
        picture(tmp_path / "x.png", (20, 20))


def test_a_folder_is_read_whatever_its_pictures_are(tmp_path):
    with pytest.warns(UserWarning, match="1 of 14 pictures are not in .* left out"):
        data = own_data(write(tmp_path / "mine"), 100)
    assert (len(data.train), len(data.held), len(data.categories)) == (12, 1, 254)
    assert data.categories[:4] == list(WORDS) and data.name == "mine"
    train = data.train
    assert train.images.shape == (12, 128, 128, 3) and train.images.dtype == np.uint8
    spread = train.images.reshape(12, -1, 3).astype(int)
    assert [int(np.ptp(one, axis=1).max()) == 0 for one in spread][:3] == [False, True, False]
    assert train.labels.shape == (12, 2) and train.labels[0].tolist() == [1, 0]
    want = torch.tensor([[.4, .1, .9, .9], [.1, .2, .6, .8]])     # the larger one first
    assert torch.allclose(train.boxes_xyxy[0], want, atol=1e-6)
    assert torch.allclose(train.boxes_xyxy[2], want, atol=1e-6)   # stored a quarter turn away
    labels, boxes = train.ignored[0]
    assert sorted(labels.tolist()) == [3, 4] and boxes.shape == (2, 4)      # a crowd, a sliver
    assert [len(texts) for texts in train.captions][:4] == [1, 2, 1, 0]
    assert train.phrases[0] == ["Straßenbahn", "zebra crossing"]


def test_a_turned_picture_shows_what_the_upright_one_shows(tmp_path):
    rng = np.random.default_rng(0)
    one = photograph(rng, 40, 24)
    save(one, "turned", tmp_path / "turned.png")
    np.testing.assert_array_equal(picture(tmp_path / "turned.png", (40, 24)), np.asarray(one))


def test_the_held_out_part_is_a_split_or_each_tenth(tmp_path):
    one = own_data(write(tmp_path / "one", 31, kinds=(("plain", 8, 8),)), 100)
    assert (len(one.train), len(one.held)) == (27, 3)     # of 30, one is missing
    assert one.held.captions[0] == ["a photograph, number 10", *one.held.captions[0][1:]]
    folder = write(tmp_path / "two", 5, "train2017", categories=3)
    write(folder, 4, "val2017", categories=5, seed=1)
    two = own_data(folder, 3)
    assert (len(two.train), len(two.held), len(two.categories)) == (3, 3, 5)
    (folder / "annotations" / "instances_val2017.json").rename(
        folder / "annotations" / "instances_test.json")
    with pytest.raises(ValueError, match="splits test, train2017: of several, one must be"):
        own_data(folder, 3)
    with pytest.raises(ValueError, match="has 1 pictures that are there: two are needed"):
        own_data(write(tmp_path / "lonely", 1), 3)


def test_the_fingerprint_changes_with_a_picture_or_an_annotation(tmp_path):
    folder = write(tmp_path / "mine", 6)
    first = own_data(folder, 100).fingerprint
    assert own_data(folder, 100).fingerprint == first and len(first) == 12
    file = folder / "annotations" / "captions.json"
    file.write_text(file.read_text().replace("number 1", "number one"))
    second = own_data(folder, 100).fingerprint
    photograph(np.random.default_rng(9), 160, 90).save(folder / "images" / "000.jpg")
    assert len({first, second, own_data(folder, 100).fingerprint}) == 3


def test_what_the_world_writes_is_read_with_its_phrases(tmp_path):
    chosen = world.seeds("grounding-val", 4)
    data = own_data(coco_out.write(tmp_path / "world", chosen, progress=False), 100)
    assert (len(data.train), len(data.held)) == (3, 1)
    for seed, said, texts in zip(chosen, data.train.phrases, data.train.captions, strict=False):
        one = world.scene(seed)
        assert said and set(said) <= {world.phrase(thing) for thing in one.things}
        assert texts == [text.strip() for text in world.captions(one)]


def test_captions_are_cut_at_a_word(tmp_path):
    read = weights.tokenizer(12)
    short, long = fitting(["a  red\ncar", "a red car " * 9], read)
    assert short == "a red car" and long == "a red car a red car a red car a"
    assert len(read.pieces(long)) == read.length - 2
    assert fitting(["x" * 500], read) == [""]


def test_what_nobody_has_to_find_counts_neither_way():
    """A crowd's box, or one too small: a detector that names it is not wrong."""
    box, far = torch.tensor([[.1, .1, .4, .4]]), torch.tensor([[.6, .6, .9, .9]])
    label = torch.tensor([0])
    found = [(torch.tensor([.9, .8]), torch.tensor([0, 0]), torch.cat([far, box]))]
    assert detection_precision(found, [(label, box)])["AP"] == pytest.approx(.5, abs=.01)
    assert detection_precision(found, [(label, box)], ignored=[(label, far)])["AP"] == \
        pytest.approx(1, abs=.01)


def test_a_perfect_detector_of_a_folder_has_an_ap_of_one(tmp_path, monkeypatch):
    held = own_data(write(tmp_path / "mine", 22), 100).held

    class Perfect(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.none = torch.nn.Parameter(torch.zeros(1))

        def forward(self, x):
            logits = 20. * torch.nn.functional.one_hot(held.labels % 254, 255)
            low, high = held.boxes_xyxy.split(2, -1)
            return logits, torch.cat([(low + high) / 2, high - low], -1)

    names = [f"thing {i}" for i in range(254)]
    figures = own_detr_report(Perfect(), 99, held, names)
    assert figures["AP"] == pytest.approx(1, abs=.01) and figures["pictures"] == len(held) == 2
    assert any(name.startswith("AP of thing") for name in figures)


# ----------------------------------------------------------------------------------- training

@pytest.mark.parametrize("name, figure", [
    ("vae", "psnr"), ("clip", "retrieval"), ("ldm", "loss, another's caption"), ("detr", "AP50"),
    ("gligen", "loss, another's boxes")])
def test_a_model_learns_from_a_folder_stops_and_goes_on(tmp_path, capsys, name, figure):
    """As somebody uses it: begun from shipped weights, ended early, gone on with, used."""
    folder, out = write(tmp_path / "mine"), tmp_path / "out"
    words = [name, "--data", str(folder), "--init", name, "--steps", "2", "--batch", "3",
             "--out", str(out)]
    assert train.main([*words, "--minutes", "0"]) == 0
    assert train.main([*words, "--resume"]) == 0
    said, card = capsys.readouterr().out, files.card(weights.path(name, out))
    own = card["own data"]
    assert own["fingerprint"] == own_data(folder, 100).fingerprint and own["folder"] == "mine"
    assert own["categories"][:4] == list(WORDS) and len(own["categories"]) == 254
    assert own["init"]["fingerprint"] == weights.fingerprint(name)
    assert figure in card["metrics"] and figure in said
    assert ("class_labels_classifier.weight" in own["init"]["anew"]) == (name == "detr")
    assert ("Not judged" in said) == bool(own["not judged"]) == (name != "detr")
    assert card["command"].endswith(f"--batch 3 --data {folder} --init {name}")
    model = weights.load(name, folder=out)
    assert weights.log(name, out)[-1]["step"] == 2 and weights.OWN not in os.environ
    if name == "detr":
        assert model.class_labels_classifier.out_features == 255
        assert len(detect(model, torch.zeros(1, 3, 50, 90))) == 1
    with pytest.raises(ValueError, match=f"{name} in .* learnt from data of your own"):
        shipping.ship(name, out, tmp_path / "course")


def test_boxes_alone_are_enough_for_a_detector_and_for_gates(tmp_path):
    folder = write(tmp_path / "mine", captions=False, categories=2)
    for name in ("detr", "gligen"):
        assert train.train(name, 1, out=tmp_path / "out", batch=2, data=folder)
    card = files.card(weights.path("detr", tmp_path / "out"))
    assert card["own data"]["categories"] == list(WORDS[:2]) and "init" not in card["own data"]


@pytest.mark.parametrize("name, lacks, says", [
    ("clip", "captions", "mine: no picture has captions, from which clip learns"),
    ("ldm", "captions", "mine: no picture has captions, from which ldm learns"),
    ("detr", "boxes", "mine: no picture has boxes, from which detr learns"),
    ("gligen", "boxes", "mine: no picture has boxes, from which gligen learns")])
def test_a_folder_without_what_a_model_needs_is_refused(tmp_path, capsys, name, lacks, says):
    folder = write(tmp_path / "mine", 6, **{lacks: False})
    status = cli.main(["train", name, "--data", str(folder), "--steps", "1", "--out",
                       str(tmp_path / "out")])
    told = capsys.readouterr().err.splitlines()[-1]
    assert status == 2 and told.startswith(f"error: {says}")


@pytest.mark.parametrize("words, says", [
    (["vae", "--init", "vae"], "--init goes with --data"),
    (["ddpm", "--data", "."], "--data trains vae, clip, ldm, detr, gligen, not ddpm"),
    (["vae", "--data", ".", "--ship"], "--ship is about the course's own world"),
    (["vae", "--data", ".", "--small", "--out", "x"], "--small is about the course's own world"),
    (["all", "--data", "."], "--data does not go with all"),
    (["vae", "--data", ".", "--init", "gan"], "neither a file nor one of vae")])
def test_options_that_do_not_go_together_are_refused_at_once(monkeypatch, capsys, words, says):
    monkeypatch.setattr(train, "train", None)
    with pytest.raises(SystemExit) as end:
        train.main(words)
    told = capsys.readouterr().err
    assert end.value.code == 2 and says in told and told.count("\n") == 1


def test_weights_of_another_kind_are_no_beginning(tmp_path):
    folder = write(tmp_path / "mine", 4)
    with pytest.raises(ValueError, match="not one of its .* tensors fits vae"):
        train.train("vae", 1, out=tmp_path / "out", batch=2, data=folder, init="detr")


def test_tables_that_grow_keep_their_rows_and_class_heads_do_not(tmp_path, capsys):
    """Twenty queries of ours go on in a detector of thirty; eleven classes are no 254."""
    file = weights.path("detr")
    made, there = SMALL_DETR | {"num_queries": 30, "num_labels": 254}, files.load(file)
    model = DETR(**made)
    last = model.model.query_position_embeddings.weight[20:].detach().clone()
    recipe = recipes.Recipe(name="detr", model=model, config=made, data="", sample_batch=None,
                            loss=None, steps=1, lr=1., report=None)
    said = start_from(recipe, file)
    assert said["anew"] == ["class_labels_classifier.weight", "class_labels_classifier.bias",
                            "model.query_position_embeddings.weight from row 20"]
    table = model.model.query_position_embeddings.weight
    assert torch.equal(table[:20], there["model.query_position_embeddings.weight"])
    assert torch.equal(table[20:], last) and "anew" in capsys.readouterr().out
    name = "bbox_predictor.layers.0.weight"
    assert torch.equal(model.state_dict()[name], there[name])


def test_a_run_does_not_go_on_with_other_data_or_another_beginning(tmp_path):
    folder, out = write(tmp_path / "mine", 6), tmp_path / "out"
    assert train.train("vae", 2, minutes=0., out=out, batch=2, data=folder, init="vae") is None
    with pytest.raises(ValueError, match="began with init .* go on with the same --data, --init"):
        train.train("vae", 2, out=out, batch=2, data=folder, resume=True)
    photograph(np.random.default_rng(9), 160, 90).save(folder / "images" / "000.jpg")
    with pytest.raises(ValueError, match="began with fingerprint"):
        train.train("vae", 2, out=out, batch=2, data=folder, init="vae", resume=True)


def test_weights_trained_apart_are_not_mixed(tmp_path):
    """Latents of one's own autoencoder are not what shipped latent diffusion has learnt."""
    folder, out = write(tmp_path / "mine"), tmp_path / "out"
    train.train("vae", 1, out=out, batch=2, data=folder)
    with weights.before_shipped(out), pytest.raises(ValueError, match="ldm.safetensors has not "
                                                    "learnt on the vae in .*out"):
        weights.load("ldm")
    with pytest.raises(ValueError, match="has not learnt on the vae in"):
        train.train("gligen", 1, out=out, batch=2, data=folder)
    train.train("ldm", 1, out=out, batch=2, data=folder, init="ldm")
    assert files.card(weights.path("ldm", out))["own data"]["bases"] == {
        "vae": weights.fingerprint_of(weights.path("vae", out)),
        "clip": weights.fingerprint("clip")}
    train.train("gligen", 1, out=out, batch=2, data=folder)
    weights.load("ldm", folder=out)
    picture_file = tmp_path / "made.png"
    assert cli.main(["generate", "a Straßenbahn", "--box", "사과:0.1,0.1,0.6,0.7", "--steps", "2",
                     "--weights", str(out), "--out", str(picture_file)]) == 0
    with Image.open(picture_file) as made:
        assert made.size == (128, 128)
    os.environ.pop(weights.OWN)                           # as `generate` leaves it


def test_what_is_drawn_depends_on_the_step_alone(tmp_path):
    source = OwnFolder.read(write(tmp_path / "mine", 8))
    for name in OWN:
        first = recipes.get(name, 4, batch=3, source=source)
        first.sample_batch(0)
        second = recipes.get(name, 4, batch=3, source=source)
        for a, b in zip(first.sample_batch(3), second.sample_batch(3), strict=True):
            assert torch.equal(a, b) and len(a) in (3, 1)


def test_pictures_can_be_chosen(tmp_path):
    train = own_data(write(tmp_path / "mine"), 100).train
    some = train.rows([3, 0])
    assert isinstance(some, OwnPictures) and some.captions == [train.captions[3], train.captions[0]]
    assert torch.equal(some.labels, train.labels[[3, 0]])
    assert all(train.with_captions().captions)


def test_a_categories_name_may_stand_twice(tmp_path):
    """Two ids of one name are one class, as nobody could tell them apart."""
    folder = write(tmp_path / "mine", 5, categories=6)
    file = folder / "annotations" / "instances.json"
    data = json.loads(file.read_text())
    data["categories"][1]["name"] = data["categories"][0]["name"]
    file.write_text(json.dumps(data))
    found = own_data(folder, 100)
    assert len(found.categories) == 5 and found.train.labels[0].tolist() == [0, 0]
