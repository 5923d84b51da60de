# SPDX-License-Identifier: MIT
"""A short run of the fuzzer for ext file systems, and what it takes for a finding. tests/fuzz does it for longer."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import pytest

from pydiskimg.errors import DiskImageError
from pydiskimg.fs.ext4 import layout
from pydiskimg.protocols import Disk
from tests.fuzz import worker
from tests.fuzz.ext4 import seeds, targets
from tests.fuzz.ext4.fuzzer import ExtFuzzer
from tests.fuzz.ext4.targets import BoundedDisk

pytestmark = pytest.mark.oracle

CASES = 25
_MADE: dict[str, bytes] = {}


@pytest.fixture
def fuzzer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ExtFuzzer:
    """The fuzzer with two file systems to change: a part of all it has, one of them with a journal to replay."""
    monkeypatch.setattr(seeds, "_SHAPES", {"ext3": "-t ext3 -b 1024", "inline_data": "-t ext4 -b 1024 -O inline_data"})
    monkeypatch.setattr(seeds, "_STOPPED", ("ext3",))
    for name in ("seeds", "made"):
        (tmp_path / name).mkdir()
    if not _MADE:
        _MADE.update(seeds.make_seeds(tmp_path / "made"))
    for name, image in _MADE.items():
        (tmp_path / "seeds" / name).write_bytes(image)
    monkeypatch.setattr(signal, "setitimer", lambda *_: None)  # which would end the tests
    return ExtFuzzer(tmp_path, tmp_path, qemu=False)


def test_changed_file_systems_are_used_or_refused(fuzzer: ExtFuzzer) -> None:
    first = int(os.environ.get("PYDISKIMG_TEST_SEED", "1")) << 32
    for number in range(first, first + CASES):
        fuzzer.run(number)
    assert not fuzzer.found
    assert sum(fuzzer.outcomes.values()) == CASES
    assert any(word.endswith("sound") for word in fuzzer.outcomes)


def test_a_case_repeats_itself(fuzzer: ExtFuzzer) -> None:
    assert fuzzer.case(7) == fuzzer.case(7)
    assert fuzzer.case(7) != fuzzer.case(8)
    name, _, image = fuzzer.case(7)
    assert image != fuzzer.seeds[name]
    assert len(image) == len(fuzzer.seeds[name])


def _raises(disk: Disk, rng: random.Random) -> None:
    raise KeyError("x")


class UntidyError(DiskImageError):
    """What no error of ours can be since DiskImageError makes one line of its text."""

    def __str__(self) -> str:
        return "two: lines\nof it"


def _says_too_much(disk: Disk, rng: random.Random) -> None:
    raise UntidyError("")


def _damages(disk: Disk, rng: random.Random) -> None:
    disk.write(2048 + layout.GROUP_DESCRIPTOR_32.offsets["bg_free_blocks_count_lo"], b"\1\0")


@pytest.mark.parametrize(
    ("target", "does", "key"),
    [
        ("read", _raises, "read KeyError"),
        ("read", _says_too_much, "read AssertionError"),
        ("grow", _damages, "grow AssertionError"),
    ],
)
def test_what_is_a_finding(
    fuzzer: ExtFuzzer, monkeypatch: pytest.MonkeyPatch, target: str, does: targets.Target, key: str
) -> None:
    monkeypatch.setattr(targets, "TARGETS", {target: does})
    problem = fuzzer.try_image(target, fuzzer.seeds["ext3"], 1)
    assert problem is not None
    assert problem[0].startswith(key)


def test_what_lies_outside_is_not_touched() -> None:
    disk = BoundedDisk(bytes(4096), 0)
    disk.region.read_into(0, bytearray(4096))
    for offset in (-1, 4096):
        with pytest.raises(AssertionError, match="outside of the file system"):
            disk.read_into((64 << 10) + offset, bytearray(1))


def test_both_kinds_are_known() -> None:
    assert {kind: worker.fuzzer_of(kind).suffix for kind in worker.IMAGES} == {"qcow2": ".qcow2", "ext4": ".ext"}
