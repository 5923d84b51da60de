# SPDX-License-Identifier: MIT
"""pydiskimg measure says what qemu-img measure says, and a copy takes no more than that."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from pydiskimg.cli import main
from tests.fixtures.qcow2_images import run

pytestmark = pytest.mark.oracle

MIB = 1 << 20
OPTIONS = (
    "",
    "cluster_size=512",
    "cluster_size=2M",
    "cluster_size=4k,refcount_bits=1",
    "compat=0.10",
    "preallocation=full",
    "extended_l2=on,cluster_size=16k",
)


def measured(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    assert main(["measure", "--output", "json", *words]) == 0
    return json.loads(capsys.readouterr().out)


def by_qemu(*words: str) -> Any:
    return json.loads(run("qemu-img", "measure", "--output=json", *words))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """With holes, zeros, compressed clusters, a snapshot, bitmaps, a backing file."""
    directory = tmp_path_factory.mktemp("measured")
    raw = directory / "disk.raw"
    rng = random.Random(3)
    with raw.open("wb") as file:
        file.truncate(9 * MIB)
        for _ in range(7):
            file.seek(rng.randrange(9 * MIB - 100_000) // 4096 * 4096)
            file.write(rng.randbytes(rng.randrange(1, 25) * 4096))
    packed, top, marked = (directory / f"{name}.qcow2" for name in ("packed", "top", "marked"))
    run("qemu-img", "convert", "-c", "-O", "qcow2", str(raw), str(packed))
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", str(packed), "-F", "qcow2", str(top))
    run("qemu-io", "-f", "qcow2", "-c", "write 3M 200k", "-c", "write -z 5M 1M", str(top))
    run("qemu-img", "create", "-q", "-f", "qcow2", str(marked), "9M")
    run("qemu-io", "-f", "qcow2", "-c", "write 3M 200k", str(marked))
    run("qemu-img", "snapshot", "-c", "one", str(marked))
    run("qemu-io", "-f", "qcow2", "-c", "write 1M 2000k", str(marked))
    for number in range(3):
        run("qemu-img", "bitmap", "--add", "-g", str(512 << number), str(marked), f"bitmap {number}")
    return {"raw": raw, "packed": packed, "top": top, "marked": marked}


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", ["raw", "packed", "top", "marked"])
def test_what_qemu_says(
    tmp_path: Path, images: dict[str, Path], name: str, options: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = images[name]
    form = "raw" if name == "raw" else "qcow2"
    words = ["-f", form, "-O", "qcow2", *(["-o", options] if options else []), str(path)]
    found = measured(capsys, "--allow-references", str(path.parent), *words)
    assert found == by_qemu(*words)
    copy = tmp_path / "copy.qcow2"
    assert main(["convert", "--allow-references", str(path.parent), *words[:-1], str(path), str(copy)]) == 0
    assert copy.stat().st_size <= found["required"]


def test_a_snapshot(images: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    words = ["-O", "qcow2", "-l", "snapshot.name=one", str(images["marked"])]
    found, expected = measured(capsys, *words), by_qemu(*words)
    assert (found["required"], found["fully-allocated"]) == (expected["required"], expected["fully-allocated"])


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("size", ["0", "512", "5000001", "1G", "7T"])
def test_an_empty_image(size: str, options: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--size", size, "-O", "qcow2", *(["-o", options] if options else [])]
    if "512" in options and size == "7T":
        assert main(["measure", *words]) == 1
        assert "is too large: clusters of 512 bytes can map" in capsys.readouterr().err
        return
    assert measured(capsys, *words) == by_qemu(*words)


def test_a_raw_image(images: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--size", "5000001"], [str(images["marked"])]):
        assert measured(capsys, "-O", "raw", *words) == by_qemu("-O", "raw", *words)


@pytest.mark.parametrize("program", ["qemu-img", "pydiskimg"])
def test_the_file_of_an_image_measured_as_raw(tmp_path: Path, program: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The two programs leave holes and the end of the file elsewhere; of one file, they print the same numbers."""
    image = str(tmp_path / "image")
    for words in (
        ["create", "-q", "-f", "qcow2", "-o", "cluster_size=2M", image, "2T"],
        ["bitmap", "--add", "--granularity", "512", "-f", "qcow2", image, "b1"],
        ["bitmap", "--add", "-g", "2M", "-f", "qcow2", image, "b2"],
    ):
        if program == "pydiskimg":
            assert main(words) == 0
        else:
            run(program, *words)
        for options in (["-O", "qcow2", "-f", "raw"], ["-O", "qcow2", "-o", "cluster_size=2M", "-f", "qcow2"]):
            assert measured(capsys, *options, image) == by_qemu(*options, image)


def test_lines(images: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["measure", "-O", "qcow2", str(images["marked"])]) == 0
    assert capsys.readouterr().out == run("qemu-img", "measure", "-O", "qcow2", str(images["marked"]))


@pytest.mark.parametrize("words", [[], ["--size", "1M", "x"], ["--size", "1M", "-o", "cluster_size=4k"]])
def test_wrong_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["measure", *words])
    assert ended.value.code == 1
    assert "pydiskimg measure: error: " in capsys.readouterr().err
