# SPDX-License-Identifier: MIT
"""Change the dirty bitmaps of a qcow2 image, any number of them, by one write of its header."""

from __future__ import annotations

from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.bitmap_set import BitmapSet
from pydiskimg.images.qcow2.header import read_header, require_changeable
from pydiskimg.images.qcow2.switch.counts import SwitchedRefcounts
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydiskimg.protocols import Store


def change_bitmaps(store: Store, change: Callable[[BitmapSet], None]) -> None:
    """Change any number of dirty bitmaps of the qcow2 image in store by one write; durable on return.

    store comes from open_qcow2_store(). change is called with the bitmaps: add(name, granularity), remove(), clear(),
    enable() and merge() change them, and contents() reads one; names are bytes and the granularity is bytes, a power of
    two.

    Raises what change raises, InvalidImageError, UnsupportedImageError for an image that cannot be written, and
    StorageError; the image has not changed then.

    >>> from pydiskimg import change_bitmaps, open_qcow2_store
    >>> with open_qcow2_store("disk.qcow2") as store:
    ...     change_bitmaps(store, lambda bitmaps: bitmaps.add(b"since-monday", 65536))
    """
    header = read_header(store)
    require_changeable(header, store.name)
    bitmaps = BitmapSet(store, header)
    change(bitmaps)
    counts = SwitchedRefcounts(store, header)
    extensions = bitmaps.write_new(store, counts.take, counts.leave)
    counts.settle()
    # The contents of the disk do not change, so the other known features stay valid.
    autoclear = header.autoclear_features & layout.AUTOCLEAR_DATA_FILE_RAW
    if layout.EXTENSION_BITMAPS in extensions:
        autoclear |= layout.AUTOCLEAR_BITMAPS
    fields = {"autoclear_features": autoclear} if header.version >= 3 else {}
    counts.publish(extensions, **fields)
