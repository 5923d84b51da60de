# SPDX-License-Identifier: MIT
"""The targets of commands, and their surroundings: loop devices, mount points, a node's settings. Needs root."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from benchmarks.guest_disk import BOOT, ROOT_START
from benchmarks.inputs import Making
from benchmarks.programs import attached, mounted, run
from pydiskimg.units import GIB
from tests.fixtures.node import Node

Target = Callable[[Path, Making], AbstractContextManager[str]]
TARGETS: dict[str, Target] = {}


def _device(size: str) -> Target:
    """A block device over a new file that reads as zero."""

    @contextmanager
    def device(work: Path, making: Making) -> Iterator[str]:
        with attached(_new_file(work / size, making.scale.numbers[size])) as name:
            yield name

    return device


def _new_file(path: Path, size: int) -> Path:
    if not path.exists():
        with path.open("wb") as file:
            file.truncate(size)
    return path


for _size in ("disk", "large"):
    TARGETS[f"{_size}_device"] = _device(_size)


def _of_input(name: str, *where: int) -> Target:
    @contextmanager
    def device(_work: Path, making: Making) -> Iterator[str]:
        disk = making.input(name)
        length = disk.stat().st_size - ROOT_START if where == (ROOT_START,) else 0
        with attached(disk, *where, *((length,) if length else ())) as device_name:
            yield device_name

    return device


for _name in ("guest", "large_guest"):
    TARGETS[f"{_name}_device"] = _of_input(_name)
    TARGETS[f"{_name}_boot"] = _of_input(_name, *BOOT)
    TARGETS[f"{_name}_root"] = _of_input(_name, ROOT_START)


def _node(**settings: str) -> Target:
    """A node's directory, with settings of ganeti_os in its etc/."""

    @contextmanager
    def node(work: Path, making: Making) -> Iterator[str]:
        directory = work / "-".join(["node", *settings.values()])
        made = Node.make(directory, CUSTOMIZE_DIR=str(work), EXPORT_DIR=str(work), **settings)
        if kind := settings.get("IMAGE_TYPE"):
            source = making.input("debian" if kind == "tarball" else "debian_disk")
            made.images.joinpath(f"x-x86_64.{'tar.gz' if kind == 'tarball' else 'raw'}").symlink_to(source)
        yield str(directory)

    return node


_IMAGE = {"IMAGE_NAME": "x", "ARCH": "x86_64"}
TARGETS.update({f"node_{kind}": _node(EXPORT_COMPRESSION=kind, BOOT_SIZE="100") for kind in ("none", "zlib", "zstd")})
for _switch in ("yes", "no"):
    TARGETS[f"node_identity_{_switch}"] = _node(**_IMAGE, IMAGE_TYPE="raw", IDENTITY=_switch, GROW="no")
for _loader in ("auto", "none"):
    TARGETS[f"node_loader_{_loader}"] = _node(**_IMAGE, IMAGE_TYPE="tarball", SWAP="no", BOOTLOADER=_loader)


@contextmanager
def point(work: Path, _making: Making) -> Iterator[str]:
    """A directory to mount on."""
    directory = work / "point"
    directory.mkdir()
    yield str(directory)
    shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def reflinks(work: Path, making: Making) -> Iterator[str]:
    """A mounted XFS, whose files can share blocks."""
    disk = work / "reflinks.img"
    if not disk.exists():
        run("mkfs.xfs", "-q", str(_new_file(disk, making.scale.numbers["disk"] + GIB)))
    with mounted(disk, work / "mounted") as directory:
        yield str(directory)


TARGETS |= {"point": point, "reflinks": reflinks}
