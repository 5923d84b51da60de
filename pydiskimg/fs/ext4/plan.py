# SPDX-License-Identifier: MIT
"""The division of a new file system on a disk of a given size. Pure arithmetic.

The choices are those of mke2fs 1.47 with Debian's mke2fs.conf, which administrators know.
"""

from __future__ import annotations

from pydiskimg.errors import DoesNotFitError, FileSystemError
from pydiskimg.fs.ext4.features import FEATURES, Compat, Incompat
from pydiskimg.fs.ext4.geometry import PAGE_SIZE, SPARE_BLOCKS, Geometry
from pydiskimg.fs.ext4.layout import FIRST_INODE, GROUP_DESCRIPTOR_32, GROUP_DESCRIPTOR_64, INODE_SIZE
from pydiskimg.units import MIB, TIB, format_bytes

MINIMUM_SIZE = 8 * MIB
MAXIMUM_SIZE = 16 * TIB
BLOCK_SIZES = (1024, 2048, 4096)
MINIMUM_BYTES_PER_INODE = 1024
MAXIMUM_BYTES_PER_INODE = 64 * MIB
_FLEX_SIZE = 16
_MAX_32 = (1 << 32) - 1
_MINIMUM_INODES_PER_GROUP = 16  # inodes 1 to 11 are then always in group 0

# Maps the number of blocks (below the first number) to the blocks in the journal; comments for blocks of 4 KiB.
_JOURNAL_STEPS = (
    (2048, 0),
    (32768, 1024),  # below 128 MiB: 4 MiB
    (256 * 1024, 4096),  # below 1 GiB: 16 MiB
    (512 * 1024, 8192),
    (4096 * 1024, 16384),  # below 16 GiB: 64 MiB
    (8192 * 1024, 32768),
    (16384 * 1024, 65536),
    (32768 * 1024, 131072),
)
_JOURNAL_MAXIMUM = 262144


def journal_blocks(geometry: Geometry) -> int:
    """Return the size of the journal for a new file system; 0: it has none, or is too small for one."""
    if Compat.HAS_JOURNAL not in geometry.features:
        return 0
    return next((journal for below, journal in _JOURNAL_STEPS if geometry.blocks < below), _JOURNAL_MAXIMUM)


def plan_geometry(
    size: int,
    *,
    kind: str,
    where: str,
    sector_size: int = 512,
    block_size: int | None = None,
    bytes_per_inode: int | None = None,
    reserved_percent: float = 5.0,
) -> Geometry:
    """Return the geometry of a file system on size bytes; where names the disk in messages.

    Raises FileSystemError or DoesNotFitError if it cannot be made as requested.
    """
    _check(size, kind, where, block_size, bytes_per_inode, reserved_percent)
    if sector_size > BLOCK_SIZES[-1]:
        raise FileSystemError(
            f"{where}: the disk has sectors of {sector_size} bytes, and {kind} is made with blocks of at most "
            f"{BLOCK_SIZES[-1]}; nothing was written"
        )
    usable = size // PAGE_SIZE * PAGE_SIZE
    usual_block, usual_ratio = _usual(usable)
    chosen = block_size or max(usual_block, sector_size)
    if chosen < sector_size:
        raise FileSystemError(
            f"{where}: blocks of {chosen} bytes are smaller than the disk's sectors of {sector_size} bytes; "
            f"use a block size of {sector_size}; nothing was written"
        )
    blocks = usable // chosen
    features = FEATURES[kind]
    if blocks > _MAX_32:
        if Incompat.BIT64 not in features:
            raise DoesNotFitError(
                f"{where}: {kind} has at most {_MAX_32} blocks, and {format_bytes(usable)} in blocks of {chosen} "
                f"bytes are {blocks}; use ext4{' or larger blocks' if chosen < BLOCK_SIZES[-1] else ''}; "
                "nothing was written",
                needed=usable,
                available=_MAX_32 * chosen,
            )
        features = features.without(Compat.RESIZE_INODE)
    ratio = bytes_per_inode or max(usual_ratio, chosen)
    wanted = min(usable // ratio, _MAX_32)
    if usable // ratio > _MAX_32 and Incompat.BIT64 not in features:
        raise FileSystemError(
            f"{where}: one inode per {ratio} bytes makes {usable // ratio} inodes, and {kind} has at most "
            f"{_MAX_32}; use a larger number of bytes per inode; nothing was written"
        )
    record = GROUP_DESCRIPTOR_64 if Incompat.BIT64 in features else GROUP_DESCRIPTOR_32
    geometry = Geometry(
        features,
        block_size=chosen,
        blocks=blocks,
        blocks_per_group=chosen * 8,
        inodes_per_group=0,
        desc_size=record.size,
        flex_size=_FLEX_SIZE if Incompat.FLEX_BG in features else 1,
        reserved_blocks=int(reserved_percent * blocks / 100.0),
    )
    return _divide(geometry, max(wanted, FIRST_INODE + 1), where)


def _check(
    size: int, kind: str, where: str, block_size: int | None, bytes_per_inode: int | None, reserved_percent: float
) -> None:
    if kind not in FEATURES:
        raise FileSystemError(
            f"{where}: {kind!r} is not a kind of file system made here; expected {', '.join(FEATURES)}; "
            "nothing was written"
        )
    if block_size is not None and block_size not in BLOCK_SIZES:
        raise FileSystemError(
            f"{where}: {block_size} is not a block size of {kind}; expected 1024, 2048 or 4096; nothing was written"
        )
    if bytes_per_inode is not None and not MINIMUM_BYTES_PER_INODE <= bytes_per_inode <= MAXIMUM_BYTES_PER_INODE:
        raise FileSystemError(
            f"{where}: {bytes_per_inode} bytes per inode are outside of {MINIMUM_BYTES_PER_INODE} to "
            f"{MAXIMUM_BYTES_PER_INODE}; nothing was written"
        )
    if not 0 <= reserved_percent <= 50:
        raise FileSystemError(
            f"{where}: {reserved_percent} percent cannot be reserved for the super user; expected 0 to 50; "
            "nothing was written"
        )
    if not MINIMUM_SIZE <= size <= MAXIMUM_SIZE:
        small = size < MINIMUM_SIZE
        limit = f"at least {format_bytes(MINIMUM_SIZE)}" if small else f"at most {format_bytes(MAXIMUM_SIZE)}"
        raise DoesNotFitError(
            f"{where}: {kind} needs {limit}, the disk has {format_bytes(size)}; nothing was written",
            needed=min(max(size, MINIMUM_SIZE), MAXIMUM_SIZE),
            available=size,
        )


def _usual(size: int) -> tuple[int, int]:
    """Return the block size and the bytes per inode that mke2fs.conf gives for a disk of size bytes."""
    if size < 512 * MIB:
        return 1024, 4096
    if size < 4 * TIB:
        return 4096, 16384
    return 4096, 32768 if size < 16 * TIB else 65536


def _divide(geometry: Geometry, wanted_inodes: int, where: str) -> Geometry:
    """Return the geometry with its groups; wanted_inodes is the least number of inodes.

    Each iteration drops a group or makes the groups smaller, so their number is limited.
    """
    whole = geometry
    while True:
        if geometry.groups <= 0:
            raise _no_room(geometry, where)
        inodes_per_group = -(-wanted_inodes // geometry.groups)
        if inodes_per_group > geometry.block_size * 8:
            if geometry.blocks_per_group < 256:
                raise _no_room(geometry, where)
            geometry = whole.replaced(blocks_per_group=geometry.blocks_per_group - 8)
            continue
        geometry = geometry.replaced(inodes_per_group=_whole_inode_blocks(geometry, inodes_per_group))
        geometry = _with_descriptor_reserve(geometry)
        blocks = _useful_blocks(geometry, where)
        if blocks == geometry.blocks:
            return geometry
        percent = 100.0 * whole.reserved_blocks / whole.blocks
        geometry = geometry.replaced(blocks=blocks, reserved_blocks=int(percent * blocks / 100.0))


def _whole_inode_blocks(geometry: Geometry, wanted: int) -> int:
    """Return the inodes per group: at least wanted, filling whole blocks, a multiple of 8, inode numbers in 32 bits."""
    per_block = geometry.block_size // INODE_SIZE
    while True:
        number = max(-(-wanted // per_block) * per_block, _MINIMUM_INODES_PER_GROUP) & ~7
        if number * geometry.groups <= _MAX_32:
            return number
        wanted -= 1


def _with_descriptor_reserve(geometry: Geometry) -> Geometry:
    """Reserve descriptor blocks to grow 1024 times; if descriptors would fill a group, spread them (meta_bg)."""
    reserve = 0
    if Compat.RESIZE_INODE in geometry.features:
        future = min(_MAX_32, geometry.blocks * 1024) if geometry.blocks < _MAX_32 // 1024 else _MAX_32
        groups = -(-(future - geometry.first_data_block) // geometry.blocks_per_group)
        reserve = -(-groups // geometry.desc_per_block) - geometry.desc_blocks
        reserve = max(0, min(reserve, geometry.block_size // 4))
    features = geometry.features
    if reserve + geometry.desc_blocks > geometry.blocks_per_group * 3 // 4:
        # meta_bg excludes the resize inode
        features, reserve = features.without(Compat.RESIZE_INODE).with_(Incompat.META_BG), 0
    return geometry.replaced(features=features, reserved_gdt_blocks=reserve)


def _useful_blocks(geometry: Geometry, where: str) -> int:
    """Return the number of blocks without a short last group that has hardly more room than for its own metadata."""
    table = 2 + geometry.inode_blocks
    head = 1 if Incompat.META_BG in geometry.features else geometry.desc_blocks
    if 1 + table + geometry.reserved_gdt_blocks + head > geometry.blocks_per_group:
        raise _no_room(geometry, where)
    overhead = table
    if geometry.has_superblock(geometry.groups - 1):
        overhead += 1 + geometry.desc_blocks + geometry.reserved_gdt_blocks
    remainder = (geometry.blocks - geometry.first_data_block) % geometry.blocks_per_group
    return geometry.blocks - remainder if remainder < overhead + SPARE_BLOCKS else geometry.blocks


def _no_room(geometry: Geometry, where: str) -> FileSystemError:
    size = geometry.blocks * geometry.block_size
    return FileSystemError(
        f"{where}: {format_bytes(size)} in blocks of {geometry.block_size} bytes have no room for the metadata; "
        "use fewer inodes (more bytes per inode) or another block size; nothing was written"
    )
