# SPDX-License-Identifier: MIT
"""Images onto block devices full of 0xFF, judged by qemu-img; every rung of the ladder on real devices."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from mmap import mmap
from pathlib import Path

import pytest

from pydiskimg.disks.block import BlockDisk
from pydiskimg.disks.descriptor import DescriptorDisk
from pydiskimg.errors import InUseError, StorageError, VerificationError
from pydiskimg.host.loop import loop_device
from pydiskimg.host.mount import mounted
from pydiskimg.images.open import open_image
from pydiskimg.images.open_disk import open_disk
from pydiskimg.transfer.copy import copy
from tests.fixtures.block_devices import block_device, filled_file

pytestmark = pytest.mark.root
MIB = 1 << 20


@pytest.fixture(params=["v2-512", "v3-64k-zlib", "v3-2M-zstd", "v3-4k-odd"])
def image(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A qcow2 with data, zero clusters and holes at odd places, made by qemu-img and qemu-io."""
    compat, cluster, more, size = {
        "v2-512": ("0.10", 512, "", 40 * MIB),
        "v3-64k-zlib": ("1.1", 65536, "", 64 * MIB),
        "v3-2M-zstd": ("1.1", 2 * MIB, ",compression_type=zstd", 64 * MIB),
        "v3-4k-odd": ("1.1", 4096, "", 50 * MIB + 512 * 3),
    }[request.param]
    path = tmp_path / "an image.qcow2"
    options = f"compat={compat},cluster_size={cluster}{more}"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", options, path, str(size)], check=True)
    commands = ["write -P 17 0 1M", f"write -P 34 5M {cluster}", "write -P 51 7777k 9999k", "write -z 9M 3M"]
    if compat == "1.1":
        commands += [f"write -c -P 68 {30 * MIB} {cluster}", "write -z -u 36M 2M"]
    arguments = [part for command in commands for part in ("-c", command)]
    subprocess.run(["qemu-io", "-f", "qcow2", *arguments, path], check=True, capture_output=True)
    return path


@pytest.mark.parametrize("sector_size", [512, 4096])
@pytest.mark.parametrize("workers", [1, 4])
def test_the_device_reads_as_the_image(tmp_path: Path, image: Path, sector_size: int, workers: int) -> None:
    with block_device(filled_file(tmp_path / "disk", 70 * MIB), sector_size=sector_size) as device:
        with open_image(image) as source, open_disk(device, writable=True) as disk:
            assert disk.sector_size == sector_size
            copied = copy(source, disk, workers=workers, verify=True)
            size = source.size
            assert disk.ladder.current == "punch hole"
        assert copied.total == copied.written + copied.zeroed == size
        raw = tmp_path / "image.raw"
        subprocess.run(["qemu-img", "convert", "-O", "raw", image, raw], check=True)
        subprocess.run(["cmp", "-n", str(size), raw, device], check=True)
        tail = subprocess.run(["tail", "-c", str(70 * MIB - size), device], capture_output=True, check=True).stdout
        assert tail.count(b"\xff") == len(tail), "bytes beyond the image were changed"


@pytest.mark.parametrize("size", [16 * MIB, 16 * MIB + 512 * 3])
def test_what_was_written_is_read_back_past_the_page_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    (tmp_path / "image").write_bytes(os.urandom(8 * MIB) + bytes(size - 8 * MIB))
    read = {True: 0, False: 0}

    def noted(fd: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
        if stat.S_ISBLK(os.fstat(fd).st_mode):
            read[bool(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT)] += len(buffers[0])
        return preadv(fd, buffers, offset, flags)

    preadv = os.preadv
    with block_device(filled_file(tmp_path / "disk", 18 * MIB)) as device:
        with open_image(tmp_path / "image") as source, open_disk(device, writable=True) as disk:
            monkeypatch.setattr(os, "preadv", noted)
            copy(source, disk, verify=True)
        monkeypatch.undo()
        assert Path(device).read_bytes()[:size] == (tmp_path / "image").read_bytes()
    assert read == {True: 16 * MIB, False: size % 4096}


def test_a_byte_that_the_device_changed_is_found(tmp_path: Path) -> None:
    class Changing(BlockDisk):
        def flush(self) -> None:
            super().flush()
            with (tmp_path / "disk").open("r+b") as file:  # below the loop device
                file.seek(9 * MIB + 7)
                file.write(b"x")

    (tmp_path / "image").write_bytes(os.urandom(8 * MIB) + bytes(8 * MIB))
    with block_device(filled_file(tmp_path / "disk", 16 * MIB)) as device:
        fd, direct_fd = os.open(device, os.O_RDWR), os.open(device, os.O_RDWR | os.O_DIRECT)
        try:
            with open_image(tmp_path / "image") as source, pytest.raises(VerificationError) as caught:
                copy(source, Changing(fd, device, direct_fd=direct_fd), verify=True)
        finally:
            os.close(fd)
            os.close(direct_fd)
    assert caught.value.offset == 9 * MIB + 7


@pytest.mark.parametrize("drop", [0, 1, 2, 3])
@pytest.mark.parametrize("sector_size", [512, 4096])
def test_each_rung_zeroes_a_real_device(tmp_path: Path, drop: int, sector_size: int) -> None:
    with block_device(filled_file(tmp_path / "disk", 9 * MIB), sector_size=sector_size) as device:
        with open_disk(device, writable=True) as disk:
            _drop_rungs(disk, drop)
            disk.zero(5000, 7 * MIB + 1)
            disk.flush()
        found = Path(device).read_bytes()
    assert found == b"\xff" * 5000 + bytes(7 * MIB + 1) + b"\xff" * (9 * MIB - 7 * MIB - 5001)


def _drop_rungs(disk: DescriptorDisk, count: int) -> None:
    ladder = disk.ladder
    names = ["punch hole", "zero range", "BLKZEROOUT", "written zeros"]
    ladder._rungs = ladder._rungs[count:]
    assert ladder.current == names[count]


def test_a_mounted_device_is_refused_and_its_mount_point_named(tmp_path: Path, tool: Callable[[str], str]) -> None:
    path = filled_file(tmp_path / "disk", 16 * MIB)
    subprocess.run([tool("mke2fs"), "-q", "-F", path], check=True)
    with block_device(path) as device:
        with mounted(device, fs_type="ext2") as point, pytest.raises(InUseError, match=f"in use .mounted on {point}"):
            open_disk(device, writable=True)
        with open_disk(device, writable=True), pytest.raises(InUseError, match="opened it exclusively"):
            open_disk(device, writable=True)
        with pytest.raises(InUseError, match=f"attached to {device}"):
            open_disk(path, writable=True)


def test_a_device_that_is_full_gives_one_error(tmp_path: Path) -> None:
    """A sparse file on a file system with less room than the image needs."""
    small = filled_file(tmp_path / "small", 16 * MIB, fill=b"\0")
    subprocess.run(["mke2fs", "-q", "-F", small], check=True)
    image = filled_file(tmp_path / "image", 40 * MIB, fill=b"x")
    with loop_device(small) as loop, mounted(loop.path, fs_type="ext2") as point:
        disk_path = Path(point) / "disk"
        with disk_path.open("wb") as file:
            file.truncate(64 * MIB)
        with (
            open_image(image) as source,
            open_disk(disk_path, writable=True) as disk,
            pytest.raises(StorageError, match=r"cannot write \d+ bytes at offset \d+: No space left on device"),
        ):
            copy(source, disk)


def test_peak_memory_is_bounded(tmp_path: Path) -> None:
    """A child converts 600 MiB of data; its peak, a twentieth of that, is measured by the kernel."""
    image = filled_file(tmp_path / "image", 600 * MIB, fill=b"y")
    with block_device(filled_file(tmp_path / "disk", 600 * MIB, fill=b"\0")) as device:
        code = (
            "import sys\nfrom pydiskimg.cli import main\n"
            "assert main(['convert', '-m', '8', sys.argv[1], sys.argv[2]]) == 0\n"
            "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
        )
        done = subprocess.run([sys.executable, "-c", code, image, device], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 250 * 1024, f"peak {done.stdout} KiB"


@pytest.mark.parametrize("compression_type", ["zlib", "zstd"])
def test_peak_memory_of_large_compressed_clusters(tmp_path: Path, compression_type: str) -> None:
    """Eight workers, clusters of 2 MiB of which half is noise, all of it verified."""
    raw, image = tmp_path / "raw", tmp_path / "image.qcow2"
    raw.write_bytes(b"".join(os.urandom(MIB) + b"text" * (MIB // 4) for _ in range(80)))
    options = f"cluster_size=2M,compression_type={compression_type}"
    subprocess.run(["qemu-img", "convert", "-c", "-O", "qcow2", "-o", options, raw, image], check=True)
    with block_device(filled_file(tmp_path / "disk", 160 * MIB)) as device:
        code = (
            "import sys\nfrom pydiskimg.cli import main\n"
            "assert main(['convert', '--verify', '-m', '8', sys.argv[1], sys.argv[2]]) == 0\n"
            "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
        )
        done = subprocess.run([sys.executable, "-c", code, image, device], capture_output=True, text=True, check=True)
        subprocess.run(["cmp", raw, device], check=True)
    assert int(done.stdout) < 150 * 1024, f"peak {done.stdout} KiB"  # half of it is enough


@pytest.mark.parametrize("sector_size", [512, 4096])
def test_direct_and_buffered_writes_are_coherent(tmp_path: Path, sector_size: int) -> None:
    page = memoryview(mmap(-1, 2 * MIB))
    page[:] = b"\x11" * len(page)
    found, again = bytearray(8 * MIB), bytearray(8 * MIB)
    path = filled_file(tmp_path / "disk", 8 * MIB)
    with block_device(path, sector_size=sector_size) as device, open_disk(device, writable=True) as disk:
        disk.write(0, b"\x22" * 3 * MIB)  # buffered, still dirty
        disk.write(MIB, page)  # direct, over it
        disk.write(MIB + 100, b"\x33" * 50)  # buffered, inside
        disk.write(4 * MIB, page[: 2 * MIB - 512])  # not whole pages: buffered
        disk.read_into(0, found)
        disk.flush()
        disk.drop_cache()
        disk.read_into(0, again)
    expected = bytearray(b"\xff" * 8 * MIB)
    expected[:MIB] = b"\x22" * MIB
    expected[MIB : 3 * MIB] = b"\x11" * 2 * MIB
    expected[MIB + 100 : MIB + 150] = b"\x33" * 50
    expected[4 * MIB : 6 * MIB - 512] = b"\x11" * (2 * MIB - 512)
    assert found == again == expected


def test_a_device_without_direct_writes_gets_buffered_ones(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = memoryview(mmap(-1, 4096))
    page[:] = b"\x44" * 4096
    true_pwrite = os.pwrite

    def pwrite(fd: int, data: bytes, offset: int) -> int:
        if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT:
            raise OSError(refusal, os.strerror(refusal))
        return true_pwrite(fd, data, offset)

    with block_device(filled_file(tmp_path / "disk", MIB)) as device:
        with open_disk(device, writable=True) as disk, caplog.at_level("INFO"):
            monkeypatch.setattr(os, "pwrite", pwrite)
            refusal = errno.EIO
            with pytest.raises(StorageError, match="cannot write 4096 bytes at offset 0: Input/output error"):
                disk.write(0, page)
            refusal = errno.EINVAL
            disk.write(0, page)
            disk.flush()
        assert Path(device).read_bytes()[:4097] == b"\x44" * 4096 + b"\xff"
    assert "does not accept direct writes" in caplog.text
