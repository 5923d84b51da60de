# SPDX-License-Identifier: MIT
"""compare prints what qemu-img compare prints, with its exit statuses."""

from __future__ import annotations

import json
import random
import re
import subprocess
from pathlib import Path

import pytest

from pydiskimg.cli import main
from tests.fixtures.both_programs import by_pydiskimg, by_qemu_img
from tests.fixtures.qcow2_images import SHAPES, make_image, run

pytestmark = pytest.mark.oracle

_OFFSET = re.compile(r"offset (\d+)", re.IGNORECASE)


def verdicts(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, int | None, int, int | None]:
    """Our exit status and offset, and qemu-img's."""
    status = main(("compare", *words))
    ours = _OFFSET.search(capsys.readouterr().out)
    done = subprocess.run(("qemu-img", "compare", *words), capture_output=True, text=True, check=False)
    theirs = _OFFSET.search(done.stdout)
    return status, int(ours[1]) if ours else None, done.returncode, int(theirs[1]) if theirs else None


@pytest.mark.parametrize("seed", range(6))
def test_random_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str], seed: int) -> None:
    rng = random.Random(seed)
    shape = rng.choice(SHAPES)
    image, contents = make_image(tmp_path, shape, seed=seed, writes=15)
    raw, other = tmp_path / "copy.raw", tmp_path / "copy.qcow2"
    changed = bytearray(contents)
    for change in range(4):
        if change:
            changed[rng.randrange(len(changed))] ^= 0x55
        longer = bytes(changed) + bytes(rng.choice((0, 512, 100 * 512)))
        raw.write_bytes(longer)
        run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(other))
        for words in ((str(image), str(other)), ("-f", "raw", "-F", "qcow2", str(raw), str(image))):
            mine, theirs = by_pydiskimg("compare", *words), by_qemu_img("compare", *words)
            assert mine == theirs
            assert mine.status == (1 if change else 0)
            # As text both name the sector, as JSON we name the byte.
            main(("compare", "--output=json", *words))
            offset = json.loads(capsys.readouterr().out).get("offset")
            assert (offset is None) == (not change)
            assert offset is None or changed[offset] != contents[offset]


def test_length_that_is_not_zero_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short, long = tmp_path / "short", tmp_path / "long"
    short.write_bytes(b"x" * 4096)
    long.write_bytes(b"x" * 4096 + bytes(8192) + b"y" + bytes(511))
    for words in ((str(short), str(long)), (str(long), str(short))):
        assert verdicts(capsys, "-f", "raw", "-F", "raw", *words) == (1, 4096 + 8192, 1, 4096 + 8192)
        assert verdicts(capsys, "-s", "-f", "raw", "-F", "raw", *words)[::2] == (1, 1)


def test_strict_looks_at_allocation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty, allocated, zeroed = (str(tmp_path / name) for name in ("empty", "allocated", "zeroed"))
    for name in (empty, allocated, zeroed):
        run("qemu-img", "create", "-q", "-f", "qcow2", name, "4M")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 0 1M 128k", allocated)
    run("qemu-io", "-f", "qcow2", "-c", "write -z 2M 128k", zeroed)
    assert verdicts(capsys, "-s", empty, empty) == (0, None, 0, None)
    # qemu-img names the beginning of a longer stretch, or of another one: it also compares which one is the last.
    assert verdicts(capsys, "-s", empty, allocated)[:3] == (1, 1 << 20, 1)
    assert verdicts(capsys, "-s", empty, zeroed)[:3] == (1, 2 << 20, 1)
    assert verdicts(capsys, empty, allocated) == (0, None, 0, None)


def test_strict_does_not_ask_how_data_and_zeros_are_stored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What differs on purpose, as docs/commands.md says: our exit status and qemu-img's."""
    made = {}
    for name, commands in (
        ("data", ["write -P 7 0 1M"]),
        ("compressed", ["write -c -P 7 0 1M"]),
        ("zeros", ["write -z 0 1M"]),
        ("zeros with clusters", ["write 0 1M", "write -z 0 1M"]),
        ("nothing", []),
    ):
        made[name] = str(tmp_path / name)
        run("qemu-img", "create", "-q", "-f", "qcow2", made[name], "1M")
        for command in commands:
            run("qemu-io", "-f", "qcow2", "-c", command, made[name])
    made["hole"] = str(tmp_path / "hole")
    Path(made["hole"]).touch()
    run("truncate", "-s", "1M", made["hole"])
    for one, other, expected in (
        ("data", "compressed", (0, 1)),
        ("zeros", "zeros with clusters", (0, 1)),
        ("nothing", "hole", (0, 1)),
        ("zeros with clusters", "hole", (1, 0)),
        ("zeros", "hole", (1, 1)),
        ("zeros", "nothing", (1, 1)),
    ):
        assert verdicts(capsys, "-s", made[one], made[other])[::2] == expected, (one, other)


def test_images_that_cannot_be_opened(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there = tmp_path / "there"
    there.write_bytes(bytes(512))
    assert verdicts(capsys, str(there), str(tmp_path / "absent"))[::2] == (2, 2)
    assert verdicts(capsys, "-f", "qcow2", str(there), str(there))[::2] == (2, 2)


def test_image_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both say that a table cannot be read: neither 0 nor 1, which would be a verdict."""
    good, bad = tmp_path / "good", tmp_path / "bad"
    run("qemu-img", "create", "-q", "-f", "qcow2", str(good), "1M")
    run("qemu-io", "-f", "qcow2", "-c", "write 0 1M", str(good))
    data = bytearray(good.read_bytes())
    data[0x30000:0x30008] = (1 << 63 | 512).to_bytes(8, "big")  # the L1 entry: a misaligned L2 table
    bad.write_bytes(data)
    ours, _, theirs, _ = verdicts(capsys, str(good), str(bad))
    assert (ours, theirs) == (3, 3)
