# SPDX-License-Identifier: MIT
"""qcow2 images on block devices: written in place, no image until they are complete, refused where they do not fit."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pydiskimg.cli import main
from pydiskimg.errors import DoesNotFitError, InUseError, StorageError
from pydiskimg.images.create import new_image
from pydiskimg.images.open import open_image
from pydiskimg.images.open_disk import open_disk
from pydiskimg.images.qcow2.write.disk import Qcow2Disk
from pydiskimg.protocols import read_bytes
from pydiskimg.transfer.copy import copy
from tests.fixtures.block_devices import block_device, filled_file
from tests.fixtures.qcow2_images import run

pytestmark = pytest.mark.root
MIB = 1 << 20


def made_raw(path: Path, size: int) -> Path:
    rng = random.Random(3)
    with path.open("wb") as file:
        while file.tell() < size:
            file.write(rng.choice((rng.randbytes(100000), b"text " * 20000, bytes(200000))))
        file.truncate(size)
    return path


@pytest.mark.parametrize("sector_size", [512, 4096])
@pytest.mark.parametrize("compress", [False, True])
def test_onto_a_device(tmp_path: Path, sector_size: int, *, compress: bool) -> None:
    raw = made_raw(tmp_path / "raw", 20 * MIB + 1024)
    with block_device(filled_file(tmp_path / "disk", 40 * MIB), sector_size=sector_size) as device:
        with (
            open_image(raw, format="raw") as source,
            new_image(device, source.size, format="qcow2", compress=compress) as disk,
        ):
            copy(source, disk, unit=65536, verify=True)
        run("qemu-img", "check", "-q", "-f", "qcow2", device)
        run("qemu-img", "compare", "-q", "-f", "raw", "-F", "qcow2", str(raw), device)
        with open_disk(device, writable=True, format="qcow2") as opened:
            opened.write(5 * MIB + 7, b"changed in place")
            opened.zero(10 * MIB, 3 * MIB)
        run("qemu-img", "check", "-q", "-f", "qcow2", device)
        with open_image(device, format="qcow2") as image:
            assert read_bytes(image, 5 * MIB + 7, 16) == b"changed in place"
            assert read_bytes(image, 10 * MIB, 3 * MIB) == bytes(3 * MIB)


def test_a_device_that_is_too_small(tmp_path: Path) -> None:
    raw = made_raw(tmp_path / "raw", 20 * MIB)
    with block_device(filled_file(tmp_path / "disk", 8 * MIB)) as device:
        with (
            open_image(raw, format="raw") as source,
            pytest.raises(StorageError, match=rf"^{device}: is too small: the image needs [0-9]+ bytes .* or more"),
            new_image(device, source.size, format="qcow2") as disk,
        ):
            copy(source, disk, unit=65536)
        assert (tmp_path / "disk").read_bytes()[:4] == bytes(4)


def test_a_raw_image_is_the_device(tmp_path: Path) -> None:
    with block_device(filled_file(tmp_path / "disk", MIB)) as device:
        with new_image(device, 1000, format="raw") as disk:
            assert (disk.size, disk.reads_as_zero) == (MIB, False)
            disk.write(0, b"raw")
            disk.flush()
        assert (tmp_path / "disk").read_bytes()[:4] == b"raw\xff"
        words = f"^{device}: the image to be made needs 1048577 bytes .*, the disk has 1048576 .*; nothing was written$"
        with pytest.raises(DoesNotFitError, match=words), new_image(device, MIB + 1, format="raw"):
            raise AssertionError


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["1M"], "it already is a raw disk"),
        (["-f", "qcow2", "-u", "-b", "x", "-F", "raw", "1M"], "an image with a backing file must be a file"),
    ],
)
def test_what_create_does_not_make_on_a_device(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], reason: str
) -> None:
    with block_device(filled_file(tmp_path / "disk", MIB)) as device, pytest.raises(SystemExit, match="1"):
        main(["create", device, *words])
    assert f"{device} is a block device: {reason}" in capsys.readouterr().err
    assert (tmp_path / "disk").read_bytes() == b"\xff" * MIB


def test_one_writer(tmp_path: Path) -> None:
    path = tmp_path / "x.qcow2"
    with new_image(path, MIB, format="qcow2"):
        pass
    with (
        open_disk(path, writable=True, format="qcow2"),
        pytest.raises(InUseError, match="another process has locked it"),
    ):
        open_disk(path, writable=True, format="qcow2")


KILLED = """
import sys
from pydiskimg.images.create import new_image
with new_image(sys.argv[1], 1 << 30, format="qcow2", compress=True) as disk:
    for start in range(0, 1 << 30, 1 << 20):
        disk.write(start, start.to_bytes(8, "big") * (1 << 17))
        if not start:
            print("writing", flush=True)
    while True:
        disk.flush()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_conversion_is_no_image(tmp_path: Path, number: signal.Signals) -> None:
    with block_device(filled_file(tmp_path / "disk", 64 * MIB)) as device:
        with new_image(device, MIB, format="qcow2"):
            pass  # an image was there before
        assert (tmp_path / "disk").read_bytes()[:4] == b"QFI\xfb"
        writer = subprocess.Popen(
            [sys.executable, "-c", KILLED, device], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"writing\n"
        time.sleep(0.1)
        writer.send_signal(number)
        writer.wait()
        writer.stdout.close()
        with open(device, "rb") as file:
            assert file.read(4) == bytes(4)


def test_a_full_file_system(tmp_path: Path) -> None:
    mounted = tmp_path / "small"
    mounted.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=4M", "none", str(mounted))
    try:
        with (  # noqa: PT012 - one of many writes finds it full
            pytest.raises(StorageError, match=r"new\.qcow2: cannot write [0-9]+ bytes at offset [0-9]+: No space left"),
            new_image(mounted / "new.qcow2", 64 * MIB, format="qcow2") as disk,
        ):
            assert isinstance(disk, Qcow2Disk)
            for start in range(0, 64 * MIB, MIB):
                disk.write(start, b"full" * (MIB // 4))
        assert list(mounted.iterdir()) == []
    finally:
        run("umount", str(mounted))
