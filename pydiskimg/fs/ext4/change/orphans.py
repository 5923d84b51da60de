# SPDX-License-Identifier: MIT
"""Before the first change, delete or truncate the inodes that a crash left, as the kernel does when it mounts."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import pairwise

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.change.contents import Contents, has_map
from pydiskimg.fs.ext4.change.files import FileChanges
from pydiskimg.fs.ext4.change.inodes import changed, store
from pydiskimg.fs.ext4.change.transaction import Transaction
from pydiskimg.fs.ext4.features import RoCompat
from pydiskimg.fs.ext4.inodes import StoredInode, read_inode
from pydiskimg.fs.ext4.map_reader import pointers_in
from pydiskimg.fs.ext4.orphans import listed_orphans, orphan_blocks, orphan_checksum, orphan_inode

_AT_ONCE = 64  # changed blocks after which a transaction is committed


def release_orphans(transaction: Transaction, changes: FileChanges) -> None:
    """Delete the inodes without links in the list or file of orphans, and truncate the others at their size.

    Several share a transaction. Raises NotBelievedError for an inode that cannot be an orphan, and as commit() does;
    the orphans before it are then finished.
    """
    savepoint = transaction.savepoint()
    batches = _batches(transaction, changes)
    try:
        while next(batches, None) is not None:
            transaction.commit()
            savepoint = transaction.savepoint()
    except BaseException:
        transaction.restore(savepoint)
        raise


def _batches(transaction: Transaction, changes: FileChanges) -> Iterator[int]:
    """Yield, with the number of blocks, whenever the changes since the last time should be committed."""
    fs = transaction.fs
    listed = listed_orphans(fs)
    for number, following in pairwise([*listed, 0]):
        _release(transaction, changes, number)
        transaction.set_superblock({"s_last_orphan": following})
        if transaction.size >= _AT_ONCE:
            yield transaction.size
    if RoCompat.ORPHAN_PRESENT in fs.geometry.features:
        yield from _batches_in_file(transaction, changes)
        features = fs.superblock.features.without(RoCompat.ORPHAN_PRESENT)
        transaction.set_superblock({"s_feature_ro_compat": features.ro_compat})
    yield transaction.size


def _batches_in_file(transaction: Transaction, changes: FileChanges) -> Iterator[int]:
    fs = transaction.fs
    seed = orphan_inode(fs).seed
    for block, stored in list(orphan_blocks(fs)):
        numbers = list(pointers_in(stored[: -layout.ORPHAN_TAIL.size]))
        for index, number in enumerate(numbers):
            if not number:
                continue
            _release(transaction, changes, number)
            numbers[index] = 0
            if transaction.size >= _AT_ONCE:
                transaction.put(block, _sealed(numbers, stored, seed, block))
                yield transaction.size
        transaction.put(block, _sealed(numbers, stored, seed, block))


def _sealed(numbers: list[int], stored: bytes, seed: int, block: int) -> bytes:
    """Return a block of the orphan file with other inodes in it."""
    data = bytearray(struct.pack(f"<{len(numbers)}I", *numbers) + stored[-layout.ORPHAN_TAIL.size :])
    at = len(data) - layout.ORPHAN_TAIL.size
    layout.ORPHAN_TAIL.put(data, {"ob_checksum": orphan_checksum(seed, block, bytes(data))}, at)
    return bytes(data)


def _release(transaction: Transaction, changes: FileChanges, number: int) -> None:
    fs = transaction.fs
    if number < fs.superblock.first_inode:
        raise fs.not_believed(f"its list of orphans has inode {number}, which belongs to the file system itself")
    inode = read_inode(fs, number)
    if not inode.links:
        changes.release(inode)
        return
    inode = changed(inode, {"i_dtime": 0})
    store(transaction, _cut(transaction, inode) if inode.kind == layout.REGULAR_FILE and has_map(inode) else inode)


def _cut(transaction: Transaction, inode: StoredInode) -> StoredInode:
    """Return a file without its blocks after its size. Encrypted data is kept up to the end of its block."""
    contents = Contents(transaction, inode)
    unit = transaction.fs.geometry.cluster_blocks * transaction.fs.geometry.block_size
    size = inode.size
    if inode.flags & layout.ENCRYPT_FLAG:
        contents.cut(-(-size // unit) * unit)
    else:
        tail = contents.cut(size)
        contents.add([(size - size % unit, tail)] if tail else [], size)
    return contents.finished(size)
