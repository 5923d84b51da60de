# SPDX-License-Identifier: MIT
"""The file systems that the fuzzer changes: 4 MiB each, made by mke2fs, filled, and some with a journal to replay."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.fs.ext4.change.tree import open_changed_tree
from pydiskimg.fs.ext4.file_system import read_file_system
from pydiskimg.fs.ext4.journal import Journal
from tests.fixtures.ext_damage import full_of_metadata
from tests.fixtures.stopping_disk import StoppedError, StoppingDisk

_SHAPES = {
    "ext2": "-t ext2 -b 1024",
    "ext2-plain": "-t ext2 -b 1024 -O ^filetype,^dir_index",
    "ext2-4k": "-t ext2 -b 4096",
    "ext3": "-t ext3 -b 1024",
    "ext3-128": "-t ext3 -b 1024 -I 128 -O ^resize_inode",
    "bigalloc": "-t ext4 -b 1024 -O bigalloc,^resize_inode -C 4096",
    "bigalloc-plain": "-t ext4 -b 1024 -O bigalloc,^resize_inode,^metadata_csum,^has_journal -C 16384",
    "meta_bg": "-t ext4 -b 1024 -O meta_bg,^resize_inode -g 1024",
    "uninit_bg": "-t ext4 -b 1024 -O meta_bg,^resize_inode,^metadata_csum,^64bit,uninit_bg -g 512",
    "inline_data": "-t ext4 -b 1024 -O inline_data",
    "inline_data-plain": "-t ext4 -b 1024 -O inline_data,ea_inode,^metadata_csum",
    "ea_inode": "-t ext4 -b 1024 -O ea_inode,quota",
    "quota": "-t ext4 -b 1024 -O quota,project -E quotatype=usrquota:grpquota:prjquota",
    "orphan_file": "-t ext4 -b 1024 -O orphan_file,metadata_csum_seed",
    "large_dir": "-t ext4 -b 1024 -O large_dir,^metadata_csum",
    "4k": "-t ext4 -b 4096 -O ^has_journal",
    "no-flex_bg": "-t ext4 -b 1024 -O ^flex_bg -g 1024",
    "sparse_super2": "-t ext4 -b 1024 -O sparse_super2,^resize_inode -g 1024",
}
_STOPPED = ("ext3", "orphan_file", "quota")
_MOST_WRITES = 200
_UUID = "6f1c1d5e-53a4-4c11-9f0b-0123456789ab"


def make_seeds(directory: Path) -> dict[str, bytes]:
    """Make all of them in directory; returns their contents by name."""
    seeds = {}
    for name, options in _SHAPES.items():
        (directory / name).mkdir()
        image = full_of_metadata(_tool, directory / name, _repeatable(options), add=_add_twins)
        seeds[name] = _with_large_value(image) if "ea_inode" in options else image
    return seeds | {f"{name}-stopped": _stopped(seeds[name]) for name in _STOPPED}


def _repeatable(options: str) -> str:
    """Return options with which mke2fs puts names at the same places again."""
    extended, _, quotas = options.partition(" -E ")
    return f"{extended} -U {_UUID} -E {','.join(filter(None, (f'hash_seed={_UUID}', quotas)))}"


def _tool(name: str) -> str:
    return shutil.which(name, path="/usr/sbin:/sbin:/usr/bin:/bin") or name


def _add_twins(root: Path) -> None:
    (root / "twice").write_bytes(b"t" * 5000)
    (root / "etc" / "twin").hardlink_to(root / "twice")


def disk_of(image: bytes) -> MemoryDisk:
    disk = MemoryDisk(0, name="disk")
    disk.data = bytearray(image)
    return disk


def _with_large_value(image: bytes) -> bytes:
    """Return the image with an attribute whose value is in an inode of its own."""
    disk = disk_of(image)
    with open_changed_tree(disk) as tree:
        tree.set_attribute("/large", "user.big", random.Random(9).randbytes(9000))
    return bytes(disk.data)


def _stopped(image: bytes) -> bytes:
    """Return the image as a writer leaves it who stops at the last moment at which its journal has to be replayed."""
    found = image
    for writes in range(1, _MOST_WRITES):
        disk = disk_of(image)
        try:
            with open_changed_tree(StoppingDisk(disk, writes)) as tree:
                tree.write("/large", b"x" * 100_000)
            return found
        except StoppedError:
            fs = read_file_system(disk)
            if fs.needs_recovery and Journal(fs).start:
                found = bytes(disk.data)
    return found
