# SPDX-License-Identifier: MIT
"""Images of 4 MiB with numbers changed and their checksums made right again: read and changed, within limits.

Nothing is written outside of the file system, and what is refused is refused in one sentence.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.errors import DiskImageError
from pydiskimg.fs.ext4.change.tree import ChangedTree, open_changed_tree
from pydiskimg.fs.ext4.check import check_ext
from pydiskimg.fs.ext4.grow import plan_ext_growth
from pydiskimg.fs.ext4.shrink import shrink_ext
from pydiskimg.protocols import Disk
from pydiskimg.regions.region import Region
from pydiskimg.units import KIB, MIB
from tests.fixtures.ext_damage import full_of_metadata
from tests.fixtures.hostile_reading import look_at_everything
from tests.fixtures.limits import assert_sentence, limits
from tests.fixtures.made_entries import everything, hard_link, regular, symlink
from tests.fixtures.programs import Tool
from tests.fixtures.resealed import structures

pytestmark = pytest.mark.oracle

SECONDS, MEMORY = 2.0, 256 << 20
ROUNDS = 6
GUARD = b"\xa5" * (64 * KIB)
KINDS = {
    "inline": "-t ext4 -b 1024 -O inline_data",
    "clusters": "-t ext4 -b 1024 -O bigalloc,^resize_inode -C 4096",
    "groups": "-t ext4 -b 1024 -O meta_bg,^resize_inode -g 1024",
    "pointers": "-t ext3 -b 1024",
    "no journal": "-t ext2 -b 4096",
    "quota": "-t ext4 -b 1024 -O quota,project,ea_inode -E quotatype=usrquota:grpquota:prjquota",
    "orphans": "-t ext4 -b 1024 -O orphan_file,metadata_csum_seed",
}
CHANGES: tuple[Callable[[ChangedTree], None], ...] = (
    lambda tree: tree.write("/etc/new", b"n" * 5000),
    lambda tree: tree.write("/large", b"x" * 200_000),
    lambda tree: tree.append("/pieces", b"more" * 100),
    lambda tree: tree.truncate("/large", 1234),
    lambda tree: tree.truncate("/pieces", 400_000),
    lambda tree: tree.remove("/etc/40"),
    lambda tree: tree.rename("/etc/0", "/a/b/zero"),
    lambda tree: tree.rename("/a/b", "/etc/moved"),
    lambda tree: tree.make_directory("/a/new"),
    lambda tree: tree.chmod("/pieces", 0o600),
    lambda tree: tree.set_attribute("/pieces", "user.two", b"2" * 300),
    lambda tree: tree.remove_attribute("/large", "user.small"),
    lambda tree: tree.link("/large", "/etc/link"),
    lambda tree: tree.write("/twice", b"once"),
    lambda tree: tree.symlink("/etc/symlink", "t" * 200),
    lambda tree: tree.write_files("/etc", [(f"{number:03d}" + "m" * 60, b"x") for number in range(80)]),
    lambda tree: tree.remove("/pieces"),
    lambda tree: tree.remove("/large"),
    lambda tree: tree.remove_directory("/a"),
)


def add_twins(root: Path) -> None:
    """Add a file with two names."""
    (root / "twice").write_bytes(b"t" * 5000)
    (root / "etc" / "twin").hardlink_to(root / "twice")


_IMAGES: dict[str, bytes] = {}


@pytest.fixture(params=KINDS)
def image(request: pytest.FixtureRequest, tool: Tool, tmp_path: Path) -> bytes:
    kind = request.param
    if kind not in _IMAGES:
        _IMAGES[kind] = full_of_metadata(tool, tmp_path, KINDS[kind], add=add_twins)
    return _IMAGES[kind]


def changed(disk: Disk) -> None:
    with open_changed_tree(disk) as tree:
        for change in CHANGES:
            with refused_in_a_sentence():
                change(tree)


def put(disk: Disk) -> None:
    others = [symlink("large", "s" * 90), hard_link("pieces", "a/b/c/up"), regular("a/b/c/up", b"x")]
    with open_changed_tree(disk) as tree:
        tree.put([*everything(), *others])


def grown(disk: Disk) -> None:
    plan_ext_growth(disk).write()


def shrunk(disk: Disk) -> None:
    shrink_ext(disk)


@contextmanager
def refused_in_a_sentence() -> Iterator[None]:
    try:
        yield
    except DiskImageError as error:
        assert_sentence(str(error))


def test_what_is_sealed_again_is_as_it_was(image: bytes) -> None:
    found = structures(image)
    for structure in found:
        sealed = bytearray(image)
        structure.seal(sealed)
        assert sealed == image
    assert len(found) > 80


@pytest.mark.parametrize(
    ("use", "more"),
    [(look_at_everything, 0), (check_ext, 0), (changed, 0), (put, 0), (grown, 3 * MIB), (shrunk, 0)],
    ids=["read", "checked", "changed", "put", "grown", "shrunk"],
)
def test_numbers_that_pass_their_checksums(image: bytes, use: Callable[[Disk], object], more: int) -> None:
    rng = random.Random(int(os.environ.get("PYDISKIMG_TEST_SEED", "1")))
    places = structures(image)
    for _ in range(ROUNDS):
        data = bytearray(image)
        for _ in range(rng.choice((1, 1, 2, 5))):
            # The superblock, the descriptor and the bitmaps of group 0, or anything.
            rng.choice(places[:4] if rng.random() < 0.4 else places).damaged(data, rng)
        disk = MemoryDisk(0, name="disk")
        disk.data = bytearray(GUARD + data + bytes(more) + GUARD)
        with limits(SECONDS, MEMORY), refused_in_a_sentence():
            use(Region(disk, len(GUARD), len(data) + more, name="disk"))
        assert disk.data.startswith(GUARD)
        assert disk.data.endswith(GUARD)
