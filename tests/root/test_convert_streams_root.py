# SPDX-License-Identifier: MIT
"""Streams from and onto block devices full of 0xFF."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.block_devices import block_device, filled_file

pytestmark = pytest.mark.root

COMMAND = [sys.executable, "-m", "pydiskimg", "convert"]
ROOT = Path(__file__).resolve().parent.parent.parent
MIB = 1 << 20
SIZE = 24 * MIB


def convert(*arguments: str | Path, data: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], cwd=ROOT, input=data, capture_output=True, timeout=120, check=False
    )


def contents(size: int) -> bytes:
    rng = random.Random(size)
    parts = [rng.choice((bytes(300_000), rng.randbytes(70_001), b"text" * 20_000)) for _ in range(size // 100_000 + 1)]
    return b"".join(parts).ljust(size, b"\0")[:size]


DATA = contents(20 * MIB + 512)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    path.write_bytes(DATA)
    return path


@pytest.mark.parametrize("sector_size", [512, 4096])
@pytest.mark.parametrize("options", [("-O", "raw"), ("-O", "qcow2"), ("-c", "-O", "qcow2")])
def test_onto_a_device(raw: Path, tmp_path: Path, sector_size: int, options: tuple[str, ...]) -> None:
    stream = convert(*options, raw, "-").stdout
    backing = filled_file(tmp_path / "device", SIZE)
    with block_device(backing, sector_size=sector_size) as device:
        done = convert("-f", options[-1], "-", device, data=stream)
        assert (done.returncode, done.stderr) == (0, b"")
    assert backing.read_bytes() == DATA + b"\xff" * (SIZE - len(DATA))
    assert backing.stat().st_blocks * 512 < SIZE


def test_from_a_device_and_as_a_qcow2_on_one(raw: Path, tmp_path: Path) -> None:
    backing = filled_file(tmp_path / "device", SIZE)
    backing.write_bytes(DATA.ljust(SIZE, b"\0"))
    with block_device(backing) as device:
        stream = convert("-c", "-O", "qcow2", device, "-").stdout
    with block_device(filled_file(tmp_path / "other", SIZE)) as device:
        done = convert("-f", "qcow2", "-O", "qcow2", "-", device, data=stream)
        assert (done.returncode, done.stderr) == (0, b"")
        subprocess.run(["qemu-img", "check", "-q", "-f", "qcow2", device], check=True)
        subprocess.run(["qemu-img", "compare", "-q", "-f", "qcow2", "-F", "raw", device, backing], check=True)
        assert convert("-f", "qcow2", device, "-").stdout == backing.read_bytes()
        assert b"looks like a qcow2 image" in convert(device, "-").stderr


@pytest.mark.parametrize("kind", ["raw", "qcow2"])
def test_what_does_not_fit_or_breaks_off_boots_nowhere(raw: Path, tmp_path: Path, kind: str) -> None:
    stream = convert("-O", kind, raw, "-").stdout
    small = filled_file(tmp_path / "small", 20 * MIB)
    with block_device(small) as device:
        done = convert("-f", kind, "-", device, data=stream)
        assert done.returncode == 1
        assert (b"nothing was written" if kind == "qcow2" else b"is full after") in done.stderr
    assert small.read_bytes()[:MIB] == (b"\xff" if kind == "qcow2" else b"\0") * MIB
    if kind == "qcow2":
        large = filled_file(tmp_path / "large", SIZE)
        with block_device(large) as device:
            assert b"the stream ends after" in convert("-f", kind, "-", device, data=stream[:-1]).stderr
        assert large.read_bytes()[:MIB] == bytes(MIB)
        assert large.read_bytes()[:MIB] != DATA[:MIB]


def test_a_device_is_not_its_own_source(raw: Path, tmp_path: Path) -> None:
    with block_device(raw) as device:
        for arguments in ((device, device), ("-n", device, device)):
            done = convert(*arguments)
            assert done.returncode == 1
            assert b"is both source and destination" in done.stderr
    assert raw.read_bytes() == DATA
