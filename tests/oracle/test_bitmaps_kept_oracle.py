# SPDX-License-Identifier: MIT
"""QEMU is the judge of what becomes of dirty bitmaps when an image is written, resized, committed or converted."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from pydiskimg.cli import main
from pydiskimg.images.open_disk import open_disk
from pydiskimg.images.references import allow_references
from tests.fixtures.bitmap_models import digests
from tests.fixtures.qcow2_images import run

pytestmark = pytest.mark.oracle

NAMES = ("fine", "coarse", "off")


def marked(path: Path, options: str = "cluster_size=4k", *, backing: Path | None = None, size: str = "1M") -> Path:
    """A new image with bitmaps, and something written before and after."""
    on = ["-b", str(backing), "-F", "qcow2"] if backing else []
    run("qemu-img", "create", "-q", "-f", "qcow2", *on, "-o", options, str(path), size)
    run("qemu-io", "-f", "qcow2", "-c", "write -P 1 0 200k", str(path))
    run("qemu-img", "bitmap", "--add", "-g", "512", str(path), "fine")
    run("qemu-img", "bitmap", "--add", "-g", "64k", str(path), "coarse")
    run("qemu-img", "bitmap", "--add", str(path), "off")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 2 100k 30k", "-c", "write -P 3 997k 9k", str(path))
    run("qemu-img", "bitmap", "--disable", str(path), "off")
    return path


def listed(path: Path) -> list[dict[str, object]]:
    found = json.loads(run("qemu-img", "info", "-U", "--output=json", str(path)))
    bitmaps: list[dict[str, object]] = found["format-specific"]["data"]["bitmaps"]
    return bitmaps


def assert_alike(ours: Path, theirs: Path) -> None:
    run("qemu-img", "check", "-q", str(ours))
    assert listed(ours) == listed(theirs)
    assert digests(ours, *NAMES) == digests(theirs, *NAMES)
    assert subprocess.run(["qemu-img", "compare", "-q", str(ours), str(theirs)], check=False).returncode == 0


def twin(path: Path) -> Path:
    return Path(shutil.copy(path, path.with_name("twin-" + path.name)))


@pytest.mark.parametrize("size", ["+3M", "2G", "1000448", "-500k", "-1023k"])
@pytest.mark.parametrize("options", ["cluster_size=512", "cluster_size=64k"])
def test_resized(tmp_path: Path, options: str, size: str) -> None:
    ours = marked(tmp_path / "ours.qcow2", options)
    theirs = twin(ours)
    shrink = ["--shrink"] if size != "2G" and size[0] != "+" else []
    run("qemu-img", "resize", "-q", *shrink, str(theirs), size)
    assert main(["resize", "-q", *shrink, str(ours), size]) == 0
    assert_alike(ours, theirs)


def test_not_resized_while_one_is_in_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = marked(tmp_path / "killed.qcow2")
    kill(path)
    for words in (["+1M"], ["--shrink", "-1k"]):
        assert main(["resize", *words[:-1], str(path), words[-1]]) == 1
        assert "bitmap 'fine' was not closed" in capsys.readouterr().err
    run("qemu-img", "check", "-q", str(path))


def kill(path: Path) -> None:
    killed = ["qemu-io", "-f", "qcow2", "-c", "write 0 1k", "-c", "sigraise 9", str(path)]
    subprocess.run(killed, capture_output=True, check=False)


def test_written(tmp_path: Path) -> None:
    """Data, zeros, and a second time after a flush."""
    rng = random.Random(3)
    ours = marked(tmp_path / "ours.qcow2")
    theirs = twin(ours)
    with open_disk(ours, writable=True, format="qcow2") as disk:
        for number in range(6):
            start = rng.randrange(2000) * 512
            length = rng.randrange(1, 40) * 512
            if number % 2:
                disk.zero(start, length)
                run("qemu-io", "-f", "qcow2", "-c", f"write -z {start} {length}", str(theirs))
            else:
                disk.write(start, bytes([number]) * length)
                run("qemu-io", "-f", "qcow2", "-c", f"write -P {number} {start} {length}", str(theirs))
            if number == 3:
                disk.flush()
        disk.flush()
    assert_alike(ours, theirs)


def test_a_raw_data_file_stays_raw(tmp_path: Path) -> None:
    """What else a feature that programs without it would clear says of the image."""
    ours = marked(tmp_path / "ours.qcow2", f"data_file={tmp_path}/data,data_file_raw=on")
    with (
        allow_references(tmp_path) as allowed,
        open_disk(ours, writable=True, format="qcow2", references=allowed) as disk,
    ):
        disk.write(70_000, b"data" * 1000)
    assert json.loads(run("qemu-img", "info", "--output=json", str(ours)))["format-specific"]["data"]["data-file-raw"]
    assert [bitmap["flags"] for bitmap in listed(ours)] == [["auto"], ["auto"], []]
    run("qemu-img", "check", "-q", str(ours))


def test_one_that_is_not_flushed_may_miss_changes(tmp_path: Path) -> None:
    ours = marked(tmp_path / "ours.qcow2")
    with open_disk(ours, writable=True, format="qcow2") as disk:
        disk.write(0, b"data")
        assert [bitmap["flags"] for bitmap in listed(ours)] == [["in-use", "auto"], ["in-use", "auto"], ["in-use"]]
    assert [bitmap["flags"] for bitmap in listed(ours)] == [["auto"], ["auto"], []]


@pytest.mark.parametrize("words", [[], ["-d"]], ids=str)
def test_committed(tmp_path: Path, words: list[str]) -> None:
    """The bitmaps of the base record what is written there, and those of the emptied image stay."""
    for name in ("ours", "theirs"):
        directory = tmp_path / name
        directory.mkdir()
        base = marked(directory / "base.qcow2")
        marked(directory / "top.qcow2", backing=base)
        top = str(directory / "top.qcow2")
        if name == "ours":
            assert main(["commit", "-q", *words, "--allow-references", str(directory), top]) == 0
        else:
            run("qemu-img", "commit", "-q", *words, top)
    for name in ("base.qcow2", "top.qcow2"):
        assert_alike(tmp_path / "ours" / name, tmp_path / "theirs" / name)


def test_rebased(tmp_path: Path) -> None:
    base, other = marked(tmp_path / "base.qcow2"), marked(tmp_path / "other.qcow2")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 9 300k 64k", str(other))
    ours = marked(tmp_path / "ours.qcow2", backing=base)
    theirs = twin(ours)
    run("qemu-img", "rebase", "-F", "qcow2", "-b", str(other), str(theirs))
    assert main(["rebase", "-F", "qcow2", "-b", str(other), "--allow-references", str(tmp_path), str(ours)]) == 0
    assert_alike(ours, theirs)


def test_snapshots(tmp_path: Path) -> None:
    ours = marked(tmp_path / "ours.qcow2")
    theirs = twin(ours)
    for words in (["-c", "one"], ["-c", "two"], ["-d", "one"]):
        run("qemu-img", "snapshot", *words, str(theirs))
        assert main(["snapshot", *words, str(ours)]) == 0
        assert_alike(ours, theirs)
    assert main(["snapshot", "-a", "two", str(ours)]) == 1
    assert subprocess.run(["qemu-img", "snapshot", "-a", "two", str(ours)], check=False).returncode == 1


@pytest.mark.parametrize("options", ["cluster_size=512", "cluster_size=64k"])
def test_converted(tmp_path: Path, options: str) -> None:
    source = marked(tmp_path / "source.qcow2")
    ours, theirs = tmp_path / "ours.qcow2", tmp_path / "theirs.qcow2"
    words = ["convert", "-O", "qcow2", "-o", options, "--bitmaps", str(source)]
    run("qemu-img", *words, str(theirs))
    assert main([*words, str(ours)]) == 0
    assert_alike(ours, theirs)


def test_converted_into_an_existing_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = marked(tmp_path / "source.qcow2")
    ours = tmp_path / "ours.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", str(ours), "1M")
    run("qemu-img", "bitmap", "--add", str(ours), "own")
    theirs = twin(ours)
    words = ["convert", "-n", "-O", "qcow2", "--bitmaps", str(source)]
    run("qemu-img", *words, str(theirs))
    assert main([*words, str(ours)]) == 0
    assert listed(ours) == listed(theirs)
    assert digests(ours, *NAMES) == digests(theirs, *NAMES)
    run("qemu-img", "check", "-q", str(ours))
    assert main([*words, str(ours)]) == 1
    assert "bitmap 'fine': already exists" in capsys.readouterr().err


def test_not_converted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = marked(tmp_path / "source.qcow2"), tmp_path / "target"
    (tmp_path / "disk.raw").write_bytes(bytes(4096))
    kill(source)
    for words, said in (
        (["-O", "raw", str(source)], "only qcow2 images of version 3 can"),
        (["-O", "qcow2", "-o", "compat=0.10", str(source)], "only qcow2 images of version 3 can"),
        (["-O", "qcow2", "-f", "raw", str(tmp_path / "disk.raw")], "is a raw image, which has no bitmaps"),
        (["-O", "qcow2", str(source)], "bitmap 'fine' was not closed by its last writer"),
    ):
        assert subprocess.run(["qemu-img", "convert", "--bitmaps", *words, target], check=False).returncode == 1
        target.unlink(missing_ok=True)
        assert main(["convert", "--bitmaps", *words, str(target)]) == 1
        assert said in capsys.readouterr().err
        assert not target.exists()
    assert main(["convert", "--bitmaps", "--skip-broken-bitmaps", "-O", "qcow2", str(source), str(target)]) == 0
    assert "bitmap 'coarse' was not closed by its last writer, and is left out" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="1"):
        main(["convert", "--skip-broken-bitmaps", "-O", "qcow2", str(source), str(target)])
