# SPDX-License-Identifier: MIT
"""Extend a virtual disk by changing its header alone, if the tables have room and nothing must be hidden."""

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
    """Extend the virtual disk to size bytes, a multiple of 512 above the present size; durable on return.

    Returns False, with nothing changed, if that takes more than one write of the header: the L1 table is too short, an
    L2 table maps bytes beyond the end, or the disk has bitmaps. The image must be one that can be changed, and names no
    other file. Raises StorageError.
    """
    if header.has_bitmaps or size > header.l1_size * header.l2_span:
        return False
    first = header.size // header.l2_span  # the L1 entry of the first new byte
    at = header.l1_table_offset + first * layout.ENTRY_SIZE
    if not is_zero(read_bytes(store, at, (header.l1_size - first) * layout.ENTRY_SIZE)):
        return False
    # Autoclear bits are cleared: their data are not maintained here, and version 2 has no such bits.
    autoclear = {"autoclear_features": 0} if header.autoclear_features else {}
    change_header(store, size=size, **autoclear)
    store.flush()
    return True
