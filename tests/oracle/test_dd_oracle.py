# SPDX-License-Identifier: MIT
"""pydiskimg dd, judged by qemu-img dd: the same status, size and contents."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from pydiskimg.cli import main
from tests.fixtures.both_programs import by_qemu_img
from tests.fixtures.qcow2_chains import contents, write
from tests.fixtures.qcow2_images import run

pytestmark = pytest.mark.oracle

KIB = 1 << 10


def ours(*words: object) -> int:
    try:
        return main(["dd", *map(str, words)])
    except SystemExit as ended:
        return int(str(ended.code))


def theirs(*words: object) -> int:
    return by_qemu_img("dd", *words).status


def theirs_without_suffixes(*words: object) -> int:
    """As theirs(), but numbers of blocks lose a suffix, which QEMU 10 does not take, where it says so."""
    said = by_qemu_img("dd", *words)
    if re.match(r"qemu-img: Invalid (count|skip) specified: '\d+[kME]'", said.err) is None:
        return said.status
    return theirs(*(re.sub(r"^((?:count|skip)=)(\d+)([kME])$", _in_digits, str(word)) for word in words))


def _in_digits(found: re.Match[str]) -> str:
    return f"{found[1]}{int(found[2]) << {'k': 10, 'M': 20, 'E': 60}[found[3]]}"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("dd")
    rng = random.Random(1)
    paths = {"qcow2": directory / "image.qcow2", "raw": directory / "image.raw"}
    run("qemu-img", "create", "-q", "-f", "qcow2", str(paths["qcow2"]), "700k")
    write(paths["qcow2"], rng, 4, 700 * KIB)
    paths["raw"].write_bytes(rng.randbytes(100_000) + bytes(100_000) + rng.randbytes(77))
    return paths


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["bs=64k"],
        ["bs=1000"],
        ["bs=4k", "count=3"],
        ["bs=4k", "count=100000"],
        ["bs=4k", "skip=3"],
        ["skip=100"],
        ["bs=1k", "count=9", "skip=3"],
        ["count=3", "skip=3"],
        ["count=3", "skip=4"],
        ["skip=1M"],
        ["count=0"],
        ["bs=1", "count=700", "skip=3"],
        ["bs=7", "bs=100", "count=2", "count=7"],
        ["bs=2147483647"],
        ["count=2k", "skip=7E"],
    ],
)
@pytest.mark.parametrize(("form", "output"), [("raw", "raw"), ("raw", "qcow2"), ("qcow2", "raw"), ("qcow2", "qcow2")])
def test_the_same_part(tmp_path: Path, images: dict[str, Path], words: list[str], form: str, output: str) -> None:
    made, expected = tmp_path / "made", tmp_path / "expected"
    form_words = ["-f", form, "-O", output]
    assert ours(*form_words, *words, f"if={images[form]}", f"of={made}") == 0
    assert theirs_without_suffixes(*form_words, *words, f"if={images[form]}", f"of={expected}") == 0
    assert contents(made, output) == contents(expected, output)
    if output == "qcow2":
        run("qemu-img", "check", "-q", str(made))


@pytest.mark.parametrize(
    "words",
    [
        ["bs=0"],
        ["bs=2G"],
        ["bs=x"],
        ["count=-1"],
        ["oflag=1"],
        ["more"],
        ["-f", "vmdk"],
        ["-O", "nonsense"],
        ["skip=8E"],
        ["of="],
        ["if=/nothing/there"],
        ["skip="],
    ],
)
def test_refused_by_both(tmp_path: Path, images: dict[str, Path], words: list[str]) -> None:
    files = [f"if={images['raw']}", f"of={tmp_path / 'made'}"]
    assert (ours(*files, *words) > 0, theirs(*files, *words) > 0) == (True, True)
    assert not (tmp_path / "made").exists()


def test_options_between_operands(tmp_path: Path, images: dict[str, Path]) -> None:
    made = tmp_path / "made"
    assert ours(f"if={images['qcow2']}", "-O", "qcow2", f"of={made}", "-U", "bs=64k", "count=2") == 0
    assert contents(made, "qcow2") == contents(images["qcow2"], "qcow2")[: 128 * KIB]
    for words in ([f"if={images['raw']}"], [f"of={made}", f"of={made}"]):
        assert ours(*words) == 1


def test_onto_itself(images: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    before = images["raw"].read_bytes()
    assert ours("-f", "raw", f"if={images['raw']}", f"of={images['raw']}") == 1
    assert "both source and destination" in capsys.readouterr().err
    assert images["raw"].read_bytes() == before
