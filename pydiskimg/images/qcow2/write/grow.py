# SPDX-License-Identifier: MIT
"""A virtual disk becomes larger by its header alone, where the tables have room and nothing to hide."""

from __future__ import annotations

from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.words import is_zero
from pydiskimg.images.qcow2.write.head import change_header
from pydiskimg.protocols import read_bytes
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from pydiskimg.images.qcow2.header import Header
    from pydiskimg.protocols import Store


def grow_by_header(store: Store, header: Header, size: int) -> bool:
    """Make the virtual disk size bytes large, a multiple of 512 above the present size; durable on return.

    Returns False, with nothing changed, where that takes more than one write of the header: the L1 table is too short,
    an L2 table maps what lies beyond the end, or bitmaps are about the disk. The image is one that can be changed, and
    names no other file. Raises StorageError.
    """
    if header.has_bitmaps or size > header.l1_size * header.l2_span:
        return False
    first = header.size // header.l2_span  # the L1 entry of the first byte that is new
    at = header.l1_table_offset + first * layout.ENTRY_SIZE
    if not is_zero(read_bytes(store, at, (header.l1_size - first) * layout.ENTRY_SIZE)):
        return False
    # Autoclear bits go: what they vouch for is not kept right here, and version 2 has no such bits.
    autoclear = {"autoclear_features": 0} if header.autoclear_features else {}
    change_header(store, size=size, **autoclear)
    store.flush()
    return True
