# SPDX-License-Identifier: MIT
"""What is done with a possibly invalid ext file system. Each target returns a word for the outcome.

What was in order before a change, by our check, is in order afterwards, also after one that was refused; and nothing
outside of the region is read or written.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping
from functools import partial

from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.errors import DiskImageError
from pydiskimg.files.tar.writer import write_archive
from pydiskimg.fs.ext4.change.tree import ChangedTree, open_changed_tree
from pydiskimg.fs.ext4.check import check_ext
from pydiskimg.fs.ext4.grow import plan_ext_growth
from pydiskimg.fs.ext4.shrink import shrink_ext
from pydiskimg.fs.ext4.tree import open_ext_tree
from pydiskimg.fs.ext4.tree.entries import TreeEntries
from pydiskimg.protocols import Buffer, Disk, WritableBuffer
from pydiskimg.regions.region import Region
from pydiskimg.units import KIB, MIB
from pydiskimg.volumes.used import used_source
from tests.fixtures.hostile_reading import look_at_everything
from tests.fixtures.limits import assert_sentence
from tests.fixtures.made_entries import everything, folder, hard_link, regular, sparse, symlink
from tests.fuzz.ext4.seeds import disk_of

_AROUND = b"\xa5" * (64 * KIB)
_MOST_DATA = 1 << 28  # bytes that are archived

_CHANGES: tuple[Callable[[ChangedTree], object], ...] = (
    lambda tree: tree.write("/etc/new", b"n" * 5000),
    lambda tree: tree.write("/large", b"x" * 200_000),
    lambda tree: tree.write("/twice", b"once"),
    lambda tree: tree.write("/slow", b"through"),
    lambda tree: tree.write("/a/b/c/up/x", b"y" * 9000),
    lambda tree: tree.replace("/large", b"r" * 70_000),
    lambda tree: tree.append("/pieces", b"more" * 800),
    lambda tree: tree.append("/large", b"q"),
    lambda tree: tree.truncate("/large", 1234),
    lambda tree: tree.truncate("/large", (1 << 42) + 5),
    lambda tree: tree.truncate("/pieces", 400_000),
    lambda tree: tree.truncate("/pieces", 1 << 40),
    lambda tree: tree.truncate("/pieces", 0),
    lambda tree: tree.rename("/etc/0", "/a/b/zero"),
    lambda tree: tree.rename("/a/b", "/etc/moved"),
    lambda tree: tree.rename("/etc", "/a/b/c/etc"),
    lambda tree: tree.rename("/slow", "/large"),
    lambda tree: tree.rename("/pieces", "/twice"),
    lambda tree: tree.make_directory("/a/new"),
    lambda tree: tree.make_node("/n", 0o20600, device=(5, 1)),
    lambda tree: tree.symlink("/etc/symlink", "t" * 200),
    lambda tree: tree.link("/large", "/etc/link"),
    lambda tree: tree.chmod("/pieces", 0o600),
    lambda tree: tree.chown("/large", 70_000, 3),
    lambda tree: tree.utime("/large", atime_ns=-5, mtime_ns=1 << 62),
    lambda tree: tree.set_attribute("/pieces", "user.two", b"2" * 300),
    lambda tree: tree.set_attribute("/a", "user.two", b"2" * 3000),
    lambda tree: tree.set_attribute("/large", "user.big", b"Z" * 9000),
    lambda tree: tree.remove_attribute("/large", "user.small"),
    lambda tree: tree.remove_attribute("/large", "user.big"),
    lambda tree: tree.write_files("/etc", [(f"{number:03d}" + "m" * 60, b"x") for number in range(80)]),
    lambda tree: tree.remove("/etc/40"),
    lambda tree: tree.remove("/etc/twin"),
    lambda tree: tree.remove("/pieces"),
    lambda tree: tree.remove("/large"),
    lambda tree: tree.remove_directory("/a"),
    lambda tree: tree.remove_tree("/lost+found"),
    lambda tree: tree.remove_tree("/etc"),
    lambda tree: tree.remove_tree("/a"),
)


class BoundedDisk(MemoryDisk):
    """Contains a file system between other bytes, which must be neither read nor written."""

    def __init__(self, image: bytes, more: int) -> None:
        super().__init__(0, name="disk")
        self.data = bytearray(_AROUND + image + bytes(more) + _AROUND)
        self._end = len(self.data) - len(_AROUND)
        self.region = Region(self, len(_AROUND), self._end - len(_AROUND), name="disk")

    def _check(self, offset: int, length: int) -> None:
        assert len(_AROUND) <= offset <= offset + length <= self._end, f"byte {offset} is outside of the file system"

    def read_into(self, offset: int, buffer: WritableBuffer) -> None:
        self._check(offset, len(buffer))
        super().read_into(offset, buffer)

    def write(self, offset: int, data: Buffer) -> None:
        self._check(offset, len(data))
        super().write(offset, data)

    def zero(self, offset: int, length: int) -> None:
        self._check(offset, length)
        super().zero(offset, length)


def _read(disk: Disk, rng: random.Random) -> None:
    look_at_everything(disk)


def _checked(disk: Disk, rng: random.Random) -> None:
    for _, text in check_ext(disk).details:
        assert_sentence(f"disk: {text}")


def _used(disk: Disk, rng: random.Random) -> None:
    source = used_source(disk)
    position = 0
    for extent in source.extents():
        assert extent.start == position, "extents are not contiguous"
        position = extent.end
    assert position == source.size, "the extents do not end where the disk does"


def _archived(disk: Disk, rng: random.Random) -> None:
    tree = open_ext_tree(disk)
    if sum(min(status.st_size, _MOST_DATA) for _, status in tree.walk()) >= _MOST_DATA:
        return  # a hole may be as large as that, and takes its time
    fd = os.open(os.devnull, os.O_WRONLY)
    try:
        write_archive(TreeEntries(tree, "/").entries(), fd, "archive")
    finally:
        os.close(fd)


def _changed(disk: Disk, rng: random.Random) -> None:
    changes = rng.sample(_CHANGES, 14)
    with open_changed_tree(disk) as tree:
        if rng.random() < 0.3:
            with tree.together():
                for change in changes[:5]:
                    _refused_or_not(partial(change, tree))
        for change in changes:
            _refused_or_not(partial(change, tree))


def _refused_or_not(change: Callable[[], object]) -> None:
    try:
        change()
    except DiskImageError as error:
        assert_sentence(str(error))


def _put(disk: Disk, rng: random.Random) -> None:
    entries = [*everything()]
    for number in range(40):
        attributes = {b"user.a": b"q" * number * 10}
        name = f"etc/{'long ' * number}{number}"
        entries.append(regular(name, b"%d" % number * (number + 3), xattrs=attributes))
    entries += [regular("large", rng.randbytes(100_000)), symlink("pieces", "x" * 90), regular("slow", b"z" * 3000)]
    entries += [hard_link("a/b/c/hard", "large"), symlink("a/b/c/up", "t")]
    entries += [sparse("sparse", 1 << 33, [(1 << 20, b"x" * 5000), (1 << 32, b"y")])]
    entries += [folder(f"made/{number}/{number}") for number in range(20)]
    with open_changed_tree(disk) as tree:
        tree.put(entries, rng.choice(("/", "/", "/etc", "/a/b")))


def _grown(disk: Disk, rng: random.Random) -> None:
    plan_ext_growth(disk).write()


def _shrunk(disk: Disk, rng: random.Random) -> None:
    shrink_ext(disk, *rng.choice(((), (), (2 * MIB,), (3 * MIB + 333,), (1,))))


Target = Callable[[Disk, random.Random], None]
TARGETS: Mapping[str, Target] = {
    "read": _read,
    "check": _checked,
    "used": _used,
    "tar": _archived,
    "change": _changed,
    "put": _put,
    "grow": _grown,
    "shrink": _shrunk,
}
_WRITING = ("change", "put", "grow", "shrink")


def outcome(target: str, image: bytes, seed: object) -> str:
    """Run a target; returns "done", or "refused" for an error of ours that is in order."""
    rng = random.Random(f"{target} {seed}")
    more = rng.choice((0, 3 * MIB, 60 * MIB)) if target == "grow" else 0
    disk = BoundedDisk(image, more)
    word = "done"
    try:
        TARGETS[target](disk.region, rng)
    except DiskImageError as error:
        assert_sentence(str(error))
        word = "refused"
    if target in _WRITING and _is_sound(disk_of(image)):
        found = check_ext(disk.region)
        assert found.is_clean, f"a sound file system was damaged: {found.details[:3]}"
        word += ", sound"
    return word


def _is_sound(disk: Disk) -> bool:
    try:
        found = check_ext(disk)
    except DiskImageError:
        return False
    return found.is_clean and not found.unchecked
