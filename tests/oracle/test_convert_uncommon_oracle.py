# SPDX-License-Identifier: MIT
"""convert with options that few conversions need, judged by qemu-img: the same contents, status and map."""

from __future__ import annotations

import json
import random
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from pydiskimg.cli import main
from tests.fixtures.qcow2_chains import contents, made_chain, write
from tests.fixtures.qcow2_images import run

pytestmark = pytest.mark.oracle

KIB = 1 << 10
MIB = 1 << 20


def mapped(path: Path) -> list[dict[str, Any]]:
    """Without the places in the file, and joined where only these differ."""
    joined: list[dict[str, Any]] = []
    for row in json.loads(run("qemu-img", "map", "--output=json", str(path))):
        kinds = {key: row[key] for key in ("depth", "present", "zero", "data")}
        if joined and kinds.items() <= joined[-1].items():
            joined[-1]["length"] += row["length"]
        else:
            joined.append(kinds | {"length": row["length"]})
    return joined


def theirs(*words: object) -> int:
    """The status of qemu-img convert."""
    return subprocess.run(["qemu-img", "convert", *map(str, words)], capture_output=True, check=False).returncode


def ours(*words: object) -> int:
    try:
        return main(["convert", *map(str, words)])
    except SystemExit as ended:
        return 1 if ended.code == 2 else int(ended.code or 0)


def filled(path: Path, rng: random.Random, size: int = 2 * MIB) -> Path:
    run("qemu-img", "create", "-q", "-f", "qcow2", str(path), str(size))
    write(path, rng, 6, size)
    return path


@pytest.mark.parametrize("output", ["raw", "qcow2"])
def test_several_are_joined(tmp_path: Path, output: str) -> None:
    """Also of sizes that are not whole sectors; options stand before, between and after them."""
    rng = random.Random(1)
    first = filled(tmp_path / "first.qcow2", rng)
    (tmp_path / "second.raw").write_bytes(rng.randbytes(70_001))
    (tmp_path / "third.raw").write_bytes(bytes(100 * KIB) + rng.randbytes(700))
    sources = [first, tmp_path / "second.raw", tmp_path / "third.raw", first]
    expected, made = tmp_path / "expected", tmp_path / "made"
    assert theirs("-O", output, *sources, expected) == 0
    assert ours("-O", output, "--verify", *sources, made) == 0
    assert contents(made, output) == contents(expected, output)
    assert ours(sources[0], "-O", output, *sources[1:], "-W", made) == 0
    assert contents(made, output) == contents(expected, output)


def test_what_does_not_go_with_several(tmp_path: Path) -> None:
    one = filled(tmp_path / "one.qcow2", random.Random(1))
    run("qemu-img", "snapshot", "-c", "s", str(one))
    for words in (["-l", "s", one, one], ["-O", "qcow2", "-B", one, "-F", "qcow2", one, one], [one, tmp_path / "none"]):
        assert (ours(*words, tmp_path / "a"), theirs(*words, tmp_path / "b")) == (1, 1)
    assert ours("-f", "raw", one, "-", tmp_path / "a") == 1
    assert ours(one, one, one) == 1
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("options", ["", "-c", "-n"])
@pytest.mark.parametrize("output", ["raw", "qcow2"])
def test_no_zeros_are_left_out(tmp_path: Path, output: str, options: str) -> None:
    source = filled(tmp_path / "source.qcow2", random.Random(2))
    expected, made = tmp_path / "expected", tmp_path / "made"
    if options == "-n":
        for path in (expected, made):
            run("qemu-img", "create", "-q", "-f", output, str(path), "2M")
    words = [*options.split(), "-S", "0", "-O", output, source]
    status = theirs(*words, expected)
    assert ours(*words, made) == status
    if not status:
        assert mapped(made) == mapped(expected)
        assert contents(made, output) == contents(source, "qcow2")


@pytest.mark.parametrize("options", [[], ["-c"], ["-S", "0"], ["-n"], ["-o", "compat=0.10"], ["--verify", "-r", "1G"]])
@pytest.mark.parametrize("sizes", [(3 * MIB, 3 * MIB), (2 * MIB, 4 * MIB), (4 * MIB, 2 * MIB + 512)])
def test_a_copy_that_stands_on_a_backing_file(tmp_path: Path, sizes: tuple[int, ...], options: list[str]) -> None:
    """Over a copy of the base, and over other contents: QEMU's is right for the first only."""
    rng = random.Random(3)
    *_, top = made_chain(tmp_path, rng, sizes=sizes)
    run("qemu-img", "convert", "-O", "raw", str(tmp_path / "base.qcow2"), str(tmp_path / "copy.raw"))
    (tmp_path / "other.raw").write_bytes(rng.randbytes(MIB) + bytes(MIB))
    for base in ("copy.raw", "other.raw"):
        made = tmp_path / f"over-{base}"
        if "-n" in options:
            run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, str(made), str(sizes[-1]))
        form = [] if "-n" in options else ["-F", "raw"]
        words = ["-O", "qcow2", "-B", base, *form, *options, top]
        assert ours("--allow-references", tmp_path, *words, made) == 0
        run("qemu-img", "check", "-q", str(made))
        assert contents(made, "qcow2") == contents(top, "qcow2")
    if not {"-n", "--verify"} & set(options):
        assert theirs(*words, tmp_path / "expected") == 0
        ours_info, expected = (
            json.loads(run("qemu-img", "info", "--output=json", str(path))) for path in (made, tmp_path / "expected")
        )
        for name in ("backing-filename", "backing-filename-format", "virtual-size", "format-specific"):
            assert ours_info[name] == expected[name]


def test_only_what_differs_is_stored(tmp_path: Path) -> None:
    *_, top = made_chain(tmp_path, random.Random(4), sizes=(3 * MIB, 3 * MIB, 3 * MIB))
    words = ["--allow-references", tmp_path, "-O", "qcow2", "-B", "layer0.qcow2", "-F", "qcow2"]
    assert ours(*words, "-o", "cluster_size=512", tmp_path / "layer0.qcow2", tmp_path / "same") == 0
    assert all(row["depth"] > 0 or not row["present"] for row in mapped(tmp_path / "same"))
    assert ours(*words, top, tmp_path / "made") == 0
    assert theirs(*words[2:], top, tmp_path / "expected") == 0
    stored, expected = (
        sum(row["length"] for row in mapped(tmp_path / name) if row["depth"] == 0 and row["present"])
        for name in ("made", "expected")
    )
    assert stored <= expected


@pytest.mark.parametrize(
    "words",
    [
        ["-O", "qcow2", "-B", "base"],
        ["-O", "raw", "-B", "base", "-F", "raw"],
        ["-O", "qcow2", "-B", "missing", "-F", "raw"],
        ["-O", "qcow2", "-B", "base", "-F", "raw", "-n"],
        ["-n", "-O", "qcow2", "-o", "preallocation=metadata"],
        ["-n", "-O", "raw", "-o", "preallocation=off"],
        ["-C", "-S", "4k"],
        ["-C", "-c", "-O", "qcow2"],
        ["-C", "--salvage"],
        ["-c", "-O", "qcow2", "-o", "preallocation=metadata"],
        ["-r", "x"],
        ["-f", "host_device"],
        ["-O", "host_device"],
        ["-O", "qcow2", "-o", "backing_file=base"],
    ],
)
def test_refused_by_both(tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "base").write_bytes(bytes(MIB))
    source = filled(tmp_path / "source", random.Random(5))
    assert theirs(*words, source, tmp_path / "b") == 1
    assert ours(*words, source, tmp_path / "a") == 1
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    "words", [["-f", "file"], ["-O", "file"], ["-C"], ["-r", "0"], ["-W", "-m", "3", "-T", "none"]]
)
def test_taken_by_both(tmp_path: Path, words: list[str]) -> None:
    source = filled(tmp_path / "source", random.Random(5))
    for convert, name in ((ours, "a"), (theirs, "b")):
        assert convert(*words, source, tmp_path / name) == 0
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_backing_file_by_o(tmp_path: Path) -> None:
    (tmp_path / "base").write_bytes(bytes(MIB) + b"\1" * MIB)
    assert ours("-O", "qcow2", "-o", "backing_file=base,backing_fmt=raw", tmp_path / "base", tmp_path / "a") == 0
    assert json.loads(run("qemu-img", "info", "--output=json", str(tmp_path / "a")))["backing-filename"] == "base"
    assert ours("-O", "qcow2", "-B", "base", "-F", "raw", tmp_path / "a", tmp_path / "base") == 1  # itself


def test_a_rate(tmp_path: Path) -> None:
    """Zeros are not counted."""
    (tmp_path / "source").write_bytes(random.Random(6).randbytes(MIB) + bytes(8 * MIB))
    begin = time.monotonic()
    assert ours("-r", "4M", "-S", "64k", tmp_path / "source", tmp_path / "a") == 0
    took = time.monotonic() - begin
    assert (tmp_path / "a").read_bytes() == (tmp_path / "source").read_bytes()
    begin = time.monotonic()
    assert ours("-r", "1M", "-S", "0", "-m", "2", tmp_path / "source", tmp_path / "a") == 0
    assert time.monotonic() - begin > 2 > took


def damaged(directory: Path, damage: str) -> Path:
    """An image of whole.raw with a part that cannot be read."""
    words = {"compressed": ["-c"], "table": ["-o", "cluster_size=512"], "entry": ["-o", "compat=0.10"]}
    image = directory / "image.qcow2"
    whole = str(directory / "whole.raw")
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", *words.get(damage, []), whole, str(image))
    data = bytearray(image.read_bytes())
    l1 = int.from_bytes(data[40:48], "big")
    l2 = int.from_bytes(data[l1 : l1 + 8], "big") & ~(1 << 63)
    if damage == "table":
        data[l1 + 64 : l1 + 72] = b"\x80" + bytes(5) + b"\x01\x11"
    elif damage == "entry":
        data[l2 + 80 : l2 + 88] = b"\x80" + bytes(5) + b"\x01\x11"
    elif damage == "compressed":
        at = int.from_bytes(data[l2 + 632 : l2 + 640], "big") & (1 << 54) - 1  # of the bytes that are all the same
        data[at : at + 8] = b"\xff" * 8
    else:
        del data[2 * MIB + 512 :]
    image.write_bytes(data)
    return image


@pytest.mark.parametrize("damage", ["compressed", "truncated", "table", "entry"])
@pytest.mark.parametrize("output", ["raw", "qcow2"])
def test_what_can_still_be_read(tmp_path: Path, damage: str, output: str, capsys: pytest.CaptureFixture[str]) -> None:
    rest = {"truncated": 2 * MIB, "table": 32 * KIB}.get(damage, 64 * KIB)
    whole = random.Random(7).randbytes(3 * MIB) + bytes(MIB) + b"\5" * MIB
    (tmp_path / "whole.raw").write_bytes(whole)
    image = damaged(tmp_path, damage)
    assert ours("-O", output, image, tmp_path / "a") == 1
    capsys.readouterr()
    assert ours("-O", output, "--salvage", image, tmp_path / "a") == 0
    assert "cannot be read" in capsys.readouterr().err
    made = contents(tmp_path / "a", output)
    if theirs("-O", output, "--salvage", image, tmp_path / "b") == 0:
        assert made == contents(tmp_path / "b", output)
    lost = [at for at in range(0, len(made), 512) if made[at : at + 512] != whole[at : at + 512]]
    assert 0 < len(lost) * 512 <= rest + MIB * (damage == "truncated")
    assert not any(any(made[at : at + 512]) for at in lost)
    assert ours("-O", output, "-q", "--salvage", image, tmp_path / "a") == 0
    assert not capsys.readouterr().err
