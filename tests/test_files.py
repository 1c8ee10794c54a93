"""What is kept on disk: whole or not at all, and never trusted without its card."""

import errno
import hashlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from gligen_lessons import files

ROOT = Path(__file__).resolve().parent.parent


def tensors():
    g = torch.Generator().manual_seed(0)
    shared = torch.randn(3, 5, generator=g)
    return {
        "weight": torch.randn(64, 32, generator=g).t(),  # not contiguous
        "tied": shared, "tied_again": shared, "count": torch.tensor([7, 2**40]),
        "bf16": torch.randn(4, generator=g).bfloat16(),
    }


def card(**metrics):
    return files.make_card("toy", "python course.py train toy", 10, "none", "cpu", 0.123456,
                           metrics or {"loss": 0.5}, {"width": 3})


def saved(folder, **options):
    path = folder / "toy.safetensors"
    files.save(tensors(), path, card(), **options)
    return path


@pytest.mark.parametrize("half", [True, False])
def test_round_trip(tmp_path, half):
    path = saved(tmp_path, half=half)
    read = files.load(path)
    assert set(read) == set(tensors())
    for name, tensor in tensors().items():
        if name == "count":
            assert torch.equal(read[name], tensor)
            continue
        assert read[name].dtype == torch.float32
        expected = tensor.half().float() if half else tensor.float()
        assert torch.equal(read[name], expected), name
    with safe_open(path, "pt") as file:  # the outside reader of the format
        assert file.get_tensor("weight").dtype == (torch.float16 if half else torch.float32)


def test_the_card_says_where_the_weights_come_from(tmp_path):
    path = saved(tmp_path)
    read = files.card(path)
    assert read == json.loads(path.with_suffix(".json").read_text())
    assert {"name", "command", "revision", "steps", "data", "device", "minutes", "metrics",
            "config", "sha256", "parameters", "torch"} <= set(read)
    assert read["parameters"] == sum(x.numel() for x in tensors().values())
    assert read["minutes"] == 0.12 and read["torch"] == torch.__version__


def test_the_same_training_gives_the_same_bytes(tmp_path):
    (tmp_path / "a").mkdir()
    first = saved(tmp_path / "a")
    second = saved(tmp_path / "new" / "folder")
    assert first.read_bytes() == second.read_bytes()
    assert first.with_suffix(".json").read_bytes() == second.with_suffix(".json").read_bytes()


def test_the_revision_is_that_of_git_or_unknown(tmp_path, monkeypatch):
    def git(*words):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], check=True,
                       cwd=tmp_path, capture_output=True)

    monkeypatch.setattr(files, "__file__", str(tmp_path / "files.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert card()["revision"] == "unknown"
    git("init")
    assert card()["revision"] == "unknown"  # a repository without a commit
    git("commit", "--allow-empty", "-m", "first")
    told = subprocess.run(["git", "log", "--format=%H"], cwd=tmp_path, capture_output=True,
                          text=True, check=True).stdout.strip()
    assert card()["revision"] == told and len(told) == 40
    monkeypatch.setenv("PATH", "")
    assert card()["revision"] == "unknown"  # no git at all


def cut(path):
    path.write_bytes(path.read_bytes()[:-7])


def flip(path):
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


def other_card(path):
    described = files.card(path)
    path.with_suffix(".json").write_text(json.dumps(described | {"sha256": "0" * 64}))


DAMAGE = {
    "missing": (Path.unlink, FileNotFoundError, "weights .*toy.safetensors are missing"),
    "no card": (lambda p: p.with_suffix(".json").unlink(), FileNotFoundError, "card .*toy.json"),
    "truncated": (cut, ValueError, "toy.safetensors .* truncated or altered"),
    "empty": (lambda p: p.write_bytes(b""), ValueError, "toy.safetensors .* truncated or altered"),
    "altered": (flip, ValueError, "toy.safetensors .* truncated or altered"),
    "another card": (other_card, ValueError, "toy.safetensors .* truncated or altered"),
    "broken card": (lambda p: p.with_suffix(".json").write_text("{"), ValueError, "toy.json"),
    "card of words": (lambda p: p.with_suffix(".json").write_text('"a"'), ValueError, "toy.json"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_refused_and_the_remedy_named(tmp_path, name):
    harm, kind, message = DAMAGE[name]
    path = saved(tmp_path)
    harm(path)
    with pytest.raises(kind, match=f"(?s){message}.*Make it with: python course.py train toy"):
        files.load(path)
    with pytest.raises(kind, match="Make it with: make toy --again"):
        files.load(path, "make toy --again")


def test_a_pickle_behind_a_true_card_is_not_opened(tmp_path):
    path = saved(tmp_path)
    torch.save({"weight": torch.zeros(2)}, path)
    honest = files.card(path) | {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    path.with_suffix(".json").write_text(json.dumps(honest))
    with pytest.raises(ValueError, match="not a safetensors file"):
        files.load(path)


@pytest.mark.parametrize("bad, message", [
    ({"w": torch.tensor([1.0, float("nan")])}, "w holds numbers that are not finite"),
    ({"w": torch.tensor([70000.0])}, "too big for float16; save with half=False"),
    ({}, "nothing to save"),
])
def test_bad_tensors_are_refused_and_the_old_file_stays(tmp_path, bad, message):
    path = saved(tmp_path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=message):
        files.save(bad, path, card())
    assert path.read_bytes() == before and files.load(path)


def test_a_card_that_is_no_json_is_refused(tmp_path):
    for metric in (torch.tensor(1.0), float("nan")):
        with pytest.raises(ValueError, match="cannot be written as JSON"):
            files.save(tensors(), tmp_path / "toy.safetensors", card(loss=metric))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="kept in .safetensors"):
        files.save(tensors(), tmp_path / "toy.pt", card())


def full_disk(monkeypatch, allowed):
    """From now on only `allowed` files can be written; the next one fills the disk."""
    real, count = os.fsync, iter(range(100))

    def fsync(number):
        if next(count) >= allowed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(number)

    monkeypatch.setattr(files.os, "fsync", fsync)


@pytest.mark.parametrize("allowed", [0, 1])  # the weights do not fit; only the card does not
def test_a_full_disk_leaves_the_old_weights_whole(tmp_path, monkeypatch, allowed):
    path = saved(tmp_path)
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    full_disk(monkeypatch, allowed)
    with pytest.raises(OSError, match="could not be written: No space left.*untouched") as caught:
        files.save({"w": torch.ones(9)}, path, card())
    assert caught.value.errno == errno.ENOSPC and "toy." in str(caught.value)
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before
    files.load(path)


def test_a_full_disk_leaves_nothing_behind_where_nothing_was(tmp_path, monkeypatch):
    full_disk(monkeypatch, 0)
    with pytest.raises(OSError, match="nothing was left behind"):
        files.atomic_write(tmp_path / "report.json", "{}")
    assert list(tmp_path.iterdir()) == []


def test_a_real_limit_of_the_system_leaves_the_old_file_whole(tmp_path):
    resource = pytest.importorskip("resource", reason="file size limits exist on POSIX only")
    path = tmp_path / "big.bin"
    files.atomic_write(path, b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    try:
        with pytest.raises(OSError, match="big.bin could not be written: .*untouched"):
            files.atomic_write(path, bytes(2 << 20))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_path_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="could not be written"):
        files.atomic_write(tmp_path / "file" / "inside", "x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="could not be written"):
        files.atomic_write(tmp_path / "folder", "x")


def test_readers_never_see_a_part(tmp_path):
    path = tmp_path / "shared.txt"
    texts = {letter * 200_000 for letter in "abcd"}
    files.atomic_write(path, "a" * 200_000)
    writers = [threading.Thread(target=lambda t=t: [files.atomic_write(path, t) for _ in range(9)])
               for t in texts]
    for writer in writers:
        writer.start()
    seen = 0
    while any(writer.is_alive() for writer in writers):
        assert path.read_text() in texts
        seen += 1
    assert seen > 3 and list(tmp_path.iterdir()) == [path]


def test_text_is_utf8_with_plain_line_ends(tmp_path):
    files.atomic_write(tmp_path / "t", "é 한\n")
    assert (tmp_path / "t").read_bytes() == "é 한\n".encode()


def test_a_log_is_cut_to_the_step_and_a_torn_line_dropped(tmp_path):
    log = tmp_path / "log.jsonl"
    for step in (10, 20, 20, 30):
        files.append_line(log, {"step": step})
    with open(log, "a") as file:
        file.write('{"step": 35, "lo')  # killed while writing
    files.cut_log(log, 20)
    assert [json.loads(x)["step"] for x in log.read_text().splitlines()] == [10, 20, 20]
    files.cut_log(log, 0)
    assert log.read_text() == ""
    files.append_line(None, {"step": 1})
    files.cut_log(None, 1)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="/dev/full is a device of Linux")
def test_a_log_on_a_full_disk_names_the_file():
    with pytest.raises(OSError, match="log /dev/full could not be written: No space left"):
        files.append_line(Path("/dev/full"), {"step": 1})


@pytest.mark.parametrize("crash_at", [0, 1])
def test_a_crash_between_the_renames_of_a_checkpoint(tmp_path, monkeypatch, crash_at):
    """A power cut (nothing after it runs) before the first or the second rename."""
    files.save_checkpoint({"step": 1}, tmp_path)
    code = (
        "import os, sys; from pathlib import Path; from gligen_lessons import files\n"
        "real, left = Path.rename, iter(range(9))\n"
        f"Path.rename = lambda a, b: os._exit(9) if next(left) == {crash_at} else real(a, b)\n"
        "files.save_checkpoint({'step': 2}, sys.argv[1])\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT)
    assert done.returncode == 9
    assert (tmp_path / "checkpoint").exists() == (crash_at == 0)
    assert files.load_checkpoint(tmp_path) == {"step": 1}
    files.save_checkpoint({"step": 3}, tmp_path)
    assert files.load_checkpoint(tmp_path) == {"step": 3}
    assert not (tmp_path / "checkpoint.old").exists()


def test_checkpoints_refuse_what_could_run(tmp_path):
    assert files.load_checkpoint(tmp_path) is None
    files.save_checkpoint({"step": Path("x")}, tmp_path)
    with pytest.raises(ValueError, match="state.pt cannot be read"):
        files.load_checkpoint(tmp_path)
    files.save_checkpoint({"step": 1, "w": torch.ones(1000)}, tmp_path)
    cut(tmp_path / "checkpoint" / "state.pt")
    with pytest.raises(ValueError, match="state.pt cannot be read"):
        files.load_checkpoint(tmp_path)


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    files.save_checkpoint({"step": 1}, tmp_path)
    full_disk(monkeypatch, 0)
    with pytest.raises(OSError, match="checkpoint could not be written.*No space.*untouched"):
        files.save_checkpoint({"step": 2}, tmp_path)
    assert files.load_checkpoint(tmp_path) == {"step": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint"]


def test_a_real_limit_in_the_middle_of_a_checkpoint(tmp_path):
    resource = pytest.importorskip("resource", reason="file size limits exist on POSIX only")
    files.save_checkpoint({"step": 1}, tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    try:
        with pytest.raises(OSError, match="checkpoint could not be written.*untouched"):
            files.save_checkpoint({"step": 2, "w": torch.ones(1 << 20)}, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert files.load_checkpoint(tmp_path) == {"step": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint"]


def test_broken_lines_of_a_log_keep_no_run_from_going_on(tmp_path):
    """A power cut leaves zeros or halves; what is whole stays."""
    log = tmp_path / "log.jsonl"
    whole = [b'{"step": 1}\n', b'{"step": 2}\n']
    log.write_bytes(whole[0] + b"\0\0\0\n[1]\n{}\nnull\n" + whole[1] + b'{"step": 9}\n{"st')
    files.cut_log(log, 5)
    assert log.read_bytes() == b"".join(whole)


def test_a_checkpoint_counts_where_it_would_be_read(tmp_path):
    assert not files.has_checkpoint(tmp_path)
    (tmp_path / "checkpoint").mkdir()
    assert not files.has_checkpoint(tmp_path)
    files.save_checkpoint({"step": 1}, tmp_path)
    (tmp_path / "checkpoint").rename(tmp_path / "checkpoint.old")
    assert files.has_checkpoint(tmp_path) and files.load_checkpoint(tmp_path) == {"step": 1}
