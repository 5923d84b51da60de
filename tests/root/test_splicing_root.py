# SPDX-License-Identifier: MIT
"""Images moved onto real devices by splice(2), judged by qemu-img; a device that fails, a user with small pipes."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pydiskimg.errors import StorageError
from pydiskimg.host.loop import loop_device
from pydiskimg.host.mount import mounted
from pydiskimg.images.open import open_image
from pydiskimg.images.open_disk import open_disk
from pydiskimg.images.references import allow_references
from pydiskimg.protocols import read_bytes
from pydiskimg.transfer.copy import Copied, copy
from tests.fixtures.all_imported import IMPORT_ALL
from tests.fixtures.block_devices import block_device, filled_file
from tests.fixtures.qcow2_images import EXTENDED_SHAPES, SHAPES, make_image, run
from tests.fixtures.random_chains import make_chain

pytestmark = pytest.mark.root
MIB = 1 << 20
ROOT = Path(__file__).resolve().parent.parent.parent


class Moved:
    """How many bytes os.splice() has put into pipes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bytes = 0
        self._splice = os.splice
        monkeypatch.setattr(os, "splice", self)

    def __call__(self, source: int, target: int, count: int, **offsets: int) -> int:
        done = self._splice(source, target, count, **offsets)
        if "offset_src" in offsets:
            self.bytes += done
        return done


@pytest.fixture
def moved(monkeypatch: pytest.MonkeyPatch) -> Moved:
    return Moved(monkeypatch)


def copied_to_device(
    image: Path, tmp_path: Path, *, kind: str, sector_size: int, snapshot: str | None = None
) -> Copied:
    """Copy onto a device full of 0xFF, and let cmp compare it with what qemu-img reads, and the rest with 0xFF."""
    raw = tmp_path / "by qemu.raw"
    options = ["-l", f"snapshot.name={snapshot}"] if snapshot else []
    run("qemu-img", "convert", "-f", kind, "-O", "raw", *options, str(image), str(raw))
    size = raw.stat().st_size
    with block_device(filled_file(tmp_path / "device", size + -size % MIB + MIB), sector_size=sector_size) as device:
        with (
            allow_references(image.parent) as references,
            open_image(image, format=kind, references=references, snapshot=snapshot) as source,
            open_disk(device, writable=True) as disk,
        ):
            copied = copy(source, disk, verify=True)
            assert copied.total == copied.written + copied.zeroed == source.size
            size = source.size  # qemu-img rounds an odd one up
        run("cmp", "-n", str(size), str(raw), device)
        with open(device, "rb") as file:
            file.seek(size)
            assert not file.read().strip(b"\xff"), "bytes beyond the image were changed"
    return copied


@pytest.mark.parametrize("sector_size", [512, 4096])
@pytest.mark.parametrize("shape", [*SHAPES, *EXTENDED_SHAPES], ids=lambda shape: shape[0])
def test_every_kind_of_qcow2(tmp_path: Path, moved: Moved, shape: tuple[str, int, str], sector_size: int) -> None:
    path, _ = make_image(tmp_path, shape, seed=5)
    copied_to_device(path, tmp_path, kind="qcow2", sector_size=sector_size)


@pytest.mark.parametrize("sector_size", [512, 4096])
@pytest.mark.parametrize("cluster_size", ["512", "4k", "64k", "2M"])
def test_uncompressed_clusters_are_moved(tmp_path: Path, moved: Moved, cluster_size: str, sector_size: int) -> None:
    raw, image = tmp_path / "raw", tmp_path / "image"
    raw.write_bytes(random.Random(3).randbytes(9 * MIB) + bytes(3 * MIB) + random.Random(4).randbytes(4 * MIB + 512))
    run("qemu-img", "convert", "-O", "qcow2", "-o", f"cluster_size={cluster_size}", str(raw), str(image))
    copied = copied_to_device(image, tmp_path, kind="qcow2", sector_size=sector_size)
    assert copied.zeroed >= 2 * MIB
    assert moved.bytes == (0 if cluster_size == "512" else 13 * MIB if cluster_size != "2M" else 12 * MIB)


@pytest.mark.parametrize("sector_size", [512, 4096])
def test_a_raw_file_with_holes_and_an_odd_end(tmp_path: Path, moved: Moved, sector_size: int) -> None:
    raw = tmp_path / "raw"
    with raw.open("wb") as file:
        for start in (0, 3 * MIB, 7 * MIB + 4096, 12 * MIB + 65536):
            file.seek(start)
            file.write(random.Random(start).randbytes(MIB + 5 * 4096))
        file.truncate(17 * MIB + 512)
    copied = copied_to_device(raw, tmp_path, kind="raw", sector_size=sector_size)
    assert moved.bytes > 3 * MIB
    assert copied.zeroed > 10 * MIB


@pytest.mark.parametrize("seed", range(900, 920))
def test_random_chains(tmp_path: Path, moved: Moved, seed: int) -> None:
    path, kind = make_chain(tmp_path, seed)
    copied_to_device(path, tmp_path, kind=kind, sector_size=512)


def test_an_overlay_is_moved_from_two_files_and_a_snapshot_from_one(tmp_path: Path, moved: Moved) -> None:
    (tmp_path / "base").write_bytes(random.Random(1).randbytes(6 * MIB))
    overlay = tmp_path / "overlay"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "base", "-F", "raw", str(overlay), "8M")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 7 1M 512k", str(overlay))
    copied_to_device(overlay, tmp_path, kind="qcow2", sector_size=512)
    assert moved.bytes == 6 * MIB
    run("qemu-img", "snapshot", "-c", "before", str(overlay))
    run("qemu-io", "-f", "qcow2", "-c", "write -P 9 0 2M", str(overlay))
    copied_to_device(overlay, tmp_path, kind="qcow2", sector_size=512, snapshot="before")
    assert moved.bytes == 12 * MIB


def test_a_preallocated_image_does_not_fill_the_device(tmp_path: Path) -> None:
    """Full of clusters that hold zeros, which QEMU has written: the device stays as thin as the data."""
    image = tmp_path / "image"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "preallocation=full", str(image), "64M")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 7 20M 2M", str(image))
    copied = copied_to_device(image, tmp_path, kind="qcow2", sector_size=512)
    assert copied.written == 2 * MIB


@pytest.mark.parametrize("cached", [True, False])
def test_from_device_to_device(tmp_path: Path, moved: Moved, cached: bool) -> None:
    data = random.Random(2).randbytes(8 * MIB)
    (tmp_path / "one").write_bytes(data)
    with block_device(tmp_path / "one") as one, block_device(filled_file(tmp_path / "two", 9 * MIB)) as two:
        with open_image(one, format="raw") as source, open_disk(two, writable=True) as disk:
            if cached:
                read_bytes(source, 0, source.size)
            copy(source, disk, verify=True)
        assert Path(two).read_bytes() == data + b"\xff" * MIB
    assert moved.bytes == (8 * MIB if cached else 0)


def test_a_device_without_room_behind_it_gives_one_error(tmp_path: Path, tool: Callable[[str], str]) -> None:
    """A loop device over a sparse file on a file system that is too small: the error is that of a write."""
    small = filled_file(tmp_path / "small", 16 * MIB, fill=b"\0")
    subprocess.run([tool("mke2fs"), "-q", "-F", small], check=True)
    (tmp_path / "image").write_bytes(random.Random(9).randbytes(40 * MIB))
    with loop_device(small) as loop, mounted(loop.path, fs_type="ext2") as point:
        backing = Path(point) / "backing"
        with backing.open("wb") as file:
            file.truncate(64 * MIB)
        with (
            block_device(backing) as device,
            open_image(tmp_path / "image", format="raw") as source,
            open_disk(device, writable=True) as disk,
            pytest.raises(StorageError, match=r"cannot write \d+ bytes at offset \d+: (No space left|Input/output)"),
        ):
            copy(source, disk)


def test_without_root_and_without_large_pipes(tmp_path: Path) -> None:
    """After 64 MiB of pipes a user gets small ones only: the copy is right, and a message explains why it is slower."""
    image = tmp_path / "image"
    image.write_bytes(random.Random(11).randbytes(6 * MIB))
    with block_device(filled_file(tmp_path / "device", 8 * MIB)) as device:
        code = f"""
import fcntl, logging, os, sys
sys.path.insert(0, {str(ROOT)!r})
{IMPORT_ALL}
from pydiskimg import copy, open_disk, open_image
logging.basicConfig(level="INFO", stream=sys.stdout, format="%(message)s")
with open_image(sys.argv[1], format="raw") as source, open_disk(sys.argv[2], writable=True) as disk:
    os.setuid(65534)
    pipes = []
    for _ in range(200):
        pipes += os.pipe()
        try:
            fcntl.fcntl(pipes[-1], fcntl.F_SETPIPE_SZ, 1 << 20)
        except PermissionError:
            break
    copy(source, disk)
"""
        done = subprocess.run([sys.executable, "-c", code, image, device], capture_output=True, text=True, check=False)
        assert not done.returncode, done.stderr
        with open(device, "rb") as file:
            assert file.read(6 * MIB) == image.read_bytes()
    assert "splicing it does not work here: a pipe holds only" in done.stdout


@pytest.mark.parametrize(
    ("name", "status", "said"),
    [("INT", 130, "interrupted"), ("TERM", 143, "ended by SIGTERM"), ("HUP", 129, "ended by SIGHUP")],
)
def test_a_signal_ends_the_command(tmp_path: Path, name: str, status: int, said: str) -> None:
    with (tmp_path / "image").open("wb") as file:
        for _ in range(16):
            file.write(os.urandom(MIB) * 64)
    (tmp_path / "device").touch()
    os.truncate(tmp_path / "device", 1 << 30)
    with block_device(tmp_path / "device") as device:
        command = [sys.executable, "-m", "pydiskimg", "convert", "-f", "raw", str(tmp_path / "image"), device]
        before = _writes(device)
        with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
            _wait_for_a_write(process, device, before)
            subprocess.run(["kill", f"-{name}", str(process.pid)], check=True)
            assert process.stderr is not None
            assert f"{said}; what was being written is not complete" in process.stderr.read()
        assert process.returncode == status


def _writes(device: str) -> int:
    """How many writes the device has done since the kernel knows it, under whatever file it was before."""
    return int(Path(f"/sys/block/{Path(device).name}/stat").read_text().split()[4])


def _wait_for_a_write(process: subprocess.Popen[str], device: str, before: int) -> None:
    for _ in range(5000):
        if _writes(device) > before:
            return
        assert process.poll() is None, "it has ended already"
        time.sleep(0.001)
    raise AssertionError("nothing was written")
