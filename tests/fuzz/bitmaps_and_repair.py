# SPDX-License-Identifier: MIT
"""Dirty bitmaps of a possibly invalid image are changed, and such an image is repaired."""

from __future__ import annotations

import errno
import random

from pydiskimg.errors import DiskImageError, StorageError
from pydiskimg.images.qcow2.bitmap_set import BitmapSet
from pydiskimg.images.qcow2.check import CheckResult, check_qcow2
from pydiskimg.images.qcow2.header import read_header
from pydiskimg.images.qcow2.reader import open_qcow2
from pydiskimg.images.qcow2.repair.image import repair_qcow2
from pydiskimg.images.qcow2.switch.bitmaps import change_bitmaps
from pydiskimg.protocols import Buffer, read_bytes
from tests.fixtures.qcow2_images import BytesSource
from tests.fixtures.stores import MemoryStore

SMALL = 8 << 20  # a virtual disk that may be read as a whole
STORE_LIMIT = 64 << 20


class FullStore(MemoryStore):
    """A file in memory, on a file system that is full at 64 MiB."""

    def write(self, offset: int, data: Buffer) -> None:
        if offset + len(data) > STORE_LIMIT:
            raise StorageError(f"{self.name}: no space left", errno=errno.ENOSPC, filename=self.name)
        super().write(offset, data)


def shown(image: bytes) -> bytes | None:
    """What the disk holds, as far as it can be read without other files."""
    try:
        header = read_header(BytesSource(image))
        if header.size > SMALL or header.backing_file or header.has_data_file:
            return None
        source = open_qcow2(BytesSource(image))
        return read_bytes(source, 0, source.size)
    except DiskImageError:
        return None


def bitmap(image: bytes, rng: random.Random) -> str:
    """What was in order is in order afterwards, and shows the same."""
    before = _checked(image)
    store = FullStore(image)

    def change(bitmaps: BitmapSet) -> None:
        for _ in range(rng.randrange(1, 4)):
            _change(bitmaps, rng)

    change_bitmaps(store, change)
    changed = bytes(store.data)
    BitmapSet(BytesSource(changed), read_header(BytesSource(changed)))
    if before is not None and not before.corruptions:
        showed = shown(image)
        assert showed is None or shown(changed) == showed, "the disk shows something else"
        found = check_qcow2(BytesSource(changed))
        assert not found.corruptions, found.details[:1]
    return "changed"


def _checked(image: bytes) -> CheckResult | None:
    try:
        return check_qcow2(BytesSource(image))
    except DiskImageError:
        return None


def _change(bitmaps: BitmapSet, rng: random.Random) -> None:
    name = rng.choice([*bitmaps.names, b"new"])
    action = rng.randrange(6)
    if action == 0 or name not in bitmaps.names:
        bitmaps.add(b"%d" % rng.randrange(1 << 60), 512 << rng.randrange(23))
    elif action == 1:
        bitmaps.remove(name)
    elif action == 2:
        bitmaps.contents(name).clear()
    elif action == 3:
        start = rng.randrange(1 << 24)
        bitmaps.contents(name).set_range(start, start + rng.randrange(1 << rng.randrange(1, 50)))
    elif action == 4:
        bitmaps.merge(name, bitmaps.contents(rng.choice(bitmaps.names)))
    else:
        size = bitmaps.disk_size
        bitmaps.resize(rng.randrange(1, 1 << rng.randrange(10, 40)))
        bitmaps.resize(size)


def repair(image: bytes, rng: random.Random) -> str:
    """What is repaired is in order and shows what it did; what is refused was not changed."""
    store = FullStore(image)
    done = repair_qcow2(store, only_leaks=rng.random() < 0.3)
    changed = bytes(store.data)
    if done.refusal:
        assert changed == image, "what is beyond repair was changed"
        return "beyond repair"
    assert done.left.corruptions in (0, done.found.corruptions), done.left.details[:1]
    assert done.left.leaks in (0, done.found.leaks), done.left.details[:1]
    before = shown(image)
    assert before is None or shown(changed) == before, "the disk shows something else"
    return "clean" if done.left.is_clean else "unclean"
