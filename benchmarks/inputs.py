# SPDX-License-Identifier: MIT
"""The inputs of measurements: made once, by other programs than ours where these exist, and kept below .bench/."""

from __future__ import annotations

import os
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Protocol

from benchmarks.crafted import clusters_of, scatter
from benchmarks.programs import attached, mounted, run
from benchmarks.scale import Scale
from pydiskimg.units import GIB, MIB, TIB
from tests.fixtures.bootable_debian import DEBIAN_12, bootable_debian, packed


class Making(Protocol):
    """The part of the bench that makers of inputs and targets use."""

    @property
    def kept(self) -> Path: ...
    @property
    def scale(self) -> Scale: ...
    def input(self, name: str) -> Path: ...


Maker = Callable[[Path, Making], None]
INPUTS: dict[str, Maker] = {}
TAR = ("--numeric-owner", "--xattrs", "--xattrs-include=*", "--acls")
_PIECE = 4096
_TREES = ("usr/bin", "usr/lib", "usr/share", "usr/include")
_SMALL_SYSTEM = "etc/passwd etc/group etc/hostname etc/os-release usr/lib/os-release usr/share/zoneinfo"


def _input(maker: Maker) -> Maker:
    INPUTS[maker.__name__] = maker
    return maker


def _made_from(name: str, source: str, command: str) -> None:
    """Register an input that a command makes of another one; the paths of both come after its words."""

    def make(path: Path, making: Making) -> None:
        run(*command.split(), str(making.input(source)), str(path))

    INPUTS[name] = make


# Disks, and images of them.


@_input
def raw(path: Path, making: Making) -> None:
    """A disk with an ext4 file system that holds real files."""
    _ext4_disk(path, making.scale.disk, making.scale.data_size)


@_input
def sparse(path: Path, making: Making) -> None:
    _ext4_disk(path, making.scale.sparse_size, making.scale.sparse_data)


@_input
def xfs(path: Path, making: Making) -> None:
    """A disk with an XFS file system that holds real files. Needs root."""
    _truncated(path, making.scale.disk)
    run("mkfs.xfs", "-q", str(path))
    with mounted(path, path.with_name("point")) as point:
        real_files(point, making.scale.data_size)


@_input
def data(path: Path, making: Making) -> None:
    """The data that raw stores, without its holes: plain copies copy this."""
    source = making.input("raw")
    with source.open("rb") as reader, path.open("wb") as writer:
        for start, length in _stored(reader.fileno()):
            reader.seek(start)
            for offset in range(0, length, MIB):
                writer.write(reader.read(min(MIB, length - offset)))


@_input
def zlib_clusters(path: Path, making: Making) -> None:
    """The compressed clusters of $zlib, each after its length: the input of benchmarks.inflate."""
    clusters_of(making.input("zlib"), path)


_made_from("plain", "raw", "qemu-img convert -f raw -O qcow2")
_made_from("zlib", "raw", "qemu-img convert -c -W -m 8 -f raw -O qcow2")
_made_from("zstd", "raw", "qemu-img convert -c -o compression_type=zstd -W -m 8 -f raw -O qcow2")


@_input
def block_map(path: Path, making: Making) -> None:
    run("bmaptool", "create", "-o", str(path), str(making.input("raw")))


# Images of many extents: pieces of 4 KiB, at equal distances. In qcow2 their clusters have 4 KiB, too, so that both
# formats store the same bytes.


def _fragmented(name: str) -> None:
    def make(path: Path, making: Making) -> None:
        fragmented_disk(path, making.scale.fragmented, making.scale.numbers[name])

    INPUTS[f"{name}_raw"] = make
    _made_from(f"{name}_qcow2", f"{name}_raw", "qemu-img convert -o cluster_size=4k -f raw -O qcow2")


for _name in ("few_extents", "many_extents", "most_extents"):
    _fragmented(_name)


_made_from("padded_extents_qcow2", "many_extents_raw", "qemu-img convert -W -m 8 -f raw -O qcow2")


def fragmented_disk(path: Path, size: int, extents: int) -> None:
    """Make a raw disk of that many equal parts, each with 4 KiB of data after a hole of 4 KiB."""
    _truncated(path, size)
    distance, piece = size // extents, os.urandom(_PIECE - 8)
    with path.open("r+b", buffering=0) as file:
        for number in range(extents):
            os.pwrite(file.fileno(), number.to_bytes(8, "big") + piece, number * distance + _PIECE)


@_input
def empty_qcow2(path: Path, making: Making) -> None:
    run("qemu-img", "create", "-q", "-f", "qcow2", str(path), str(64 * TIB if making.scale.name == "full" else GIB))


@_input
def scattered(path: Path, making: Making) -> None:
    """A qcow2 image whose allocated clusters, 1 % of all, are at random places in it and in the file."""
    scatter(path, making.scale.scattered_size)


# Directories: a chain of images, and small images for short commands.


@_input
def chain(path: Path, making: Making) -> None:
    """base and other differ in data that top does not hold; alone has snapshots and no backing file."""
    path.mkdir()
    changes = making.scale.changes // MIB
    for name, first in (("base", 0), ("other", changes // 4), ("alone", 0)):
        image = path / f"{name}.qcow2"
        run("qemu-img", "create", "-q", "-f", "qcow2", str(image), str(4 * making.scale.changes))
        _fill(image, first, max(1, changes // 2))
    top = path / "top.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", str(path / "base.qcow2"), "-F", "qcow2", str(top))
    _fill(top, changes, changes)
    run("qemu-img", "rebase", "-u", "-b", "base.qcow2", "-F", "qcow2", str(top))
    for number in range(4):
        run("qemu-img", "snapshot", "-c", f"s{number}", str(path / "alone.qcow2"))


@_input
def short(path: Path, _making: Making) -> None:
    path.mkdir()
    image = str(path / "image.qcow2")
    run("qemu-img", "create", "-q", "-f", "qcow2", image, "1G")
    run("qemu-io", "-c", "write 0 1M", "-c", "write 512M 1M", image)
    run("qemu-img", "snapshot", "-c", "one", image)
    _truncated(path / "disk.raw", MIB)


# Systems and their files.


@_input
def debian(path: Path, making: Making) -> None:
    """A whole Debian with its kernel as a tarball with gzip, which needs root; the small one has files from here."""
    if making.scale.name == "full":
        path.hardlink_to(packed(bootable_debian(making.kept / "systems", DEBIAN_12)))
    else:
        names = [name for name in _SMALL_SYSTEM.split() if Path("/", name).exists()]
        parents = sorted({str(parent) for name in names for parent in Path(name).parents} - {"."})
        run("tar", "-czf", str(path), *TAR, "-C", "/", "--no-recursion", *parents, "--recursion", *names)


@_input
def debian_tar(path: Path, making: Making) -> None:
    run("sh", "-c", f"pigz -dc {making.input('debian')} > {path}")


@_input
def debian_xz(path: Path, making: Making) -> None:
    run("sh", "-c", f"xz -0 -T0 -c {making.input('debian_tar')} > {path}")


@_input
def debian_tree(path: Path, making: Making) -> None:
    path.mkdir()
    run("tar", "-xpf", str(making.input("debian_tar")), *TAR, "-C", str(path))


@_input
def million(path: Path, making: Making) -> None:
    tarball_of(path, making.scale.files)


def tarball_of(path: Path, files: int) -> None:
    """Make a tarball of that many files of ten bytes, a thousand in each directory."""
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for number in range(files):
            if number % 1000 == 0:
                directory = tarfile.TarInfo(f"./{number // 1000:04}")
                directory.type, directory.mode, directory.mtime = tarfile.DIRTYPE, 0o755, 1_600_000_000
                archive.addfile(directory)
            entry = tarfile.TarInfo(f"./{number // 1000:04}/{number:07}")
            entry.size, entry.mtime = 10, 1_600_000_000
            archive.addfile(entry, BytesIO(b"%09d\n" % number))


def _file_system(name: str, tarball: str, size: str, *options: str) -> None:
    def make(path: Path, making: Making) -> None:
        _truncated(path, making.scale.numbers[size])
        run("mke2fs", "-q", "-F", "-t", "ext4", *options, str(path))
        with mounted(path, path.with_name("point")) as point:
            run("tar", "-xpf", str(making.input(tarball)), *TAR, "-C", str(point))

    INPUTS[name] = make


_file_system("debian_ext4", "debian", "system")
_file_system("million_ext4", "million", "files_system", "-i", "4096")


@_input
def debian_disk(path: Path, making: Making) -> None:
    """A disk that boots; only ours makes one without a mount."""
    run("pydiskimg", "build", str(making.input("debian")), str(path), "--size", str(making.scale.system))


@_input
def debian_dump(path: Path, making: Making) -> None:
    with attached(making.input("debian_ext4")) as device:
        run("dump", "-0", "-q", "-z9", "-f", str(path), device)


def real_files(tree: Path, amount: int, number: int = 0) -> None:
    """Put that many bytes of this machine's real files into the directory tree, different files for each number."""
    words = " ".join(_TREES)
    subprocess.run(
        f"{{ tar -C / -cf - {words}; tar -C / -cf - usr/bin usr/lib; }} 2>/dev/null"
        f" | tail -c +{number * amount + 1} | head -c {amount} | tar -C {tree} -ixf - 2>/dev/null",
        shell=True,
        check=False,
    )


def _ext4_disk(path: Path, size: int, amount: int) -> None:
    _truncated(path, size)
    tree = path.with_name("tree")
    parts = max(1, amount // (400 * MIB))
    for number in range(parts):
        (tree / str(number)).mkdir(parents=True)
        real_files(tree / str(number), amount // parts, number)
    run("mke2fs", "-q", "-F", "-t", "ext4", "-d", str(tree), str(path))


def _truncated(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.truncate(size)


def _fill(image: Path, first: int, count: int) -> None:
    """Write count MiB from the first one on, each with other bytes."""
    commands = [f"write -q -P {1 + number % 255} {number}M 1M" for number in range(first, first + count)]
    run("qemu-io", "-f", "qcow2", *(part for command in commands for part in ("-c", command)), str(image))


def _stored(fd: int) -> Iterator[tuple[int, int]]:
    """Yield start and length of each range of data that a file stores."""
    end, size = 0, os.fstat(fd).st_size
    while end < size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError:  # no more data
            return
        end = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, end - start
