# SPDX-License-Identifier: MIT
"""Change or remove the backing file of a qcow2 image, by one write of its header's cluster."""

from __future__ import annotations

from pydiskimg.errors import UnsupportedImageError
from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.header import read_header, require_changeable
from pydiskimg.images.qcow2.write.head import replace_head
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from pydiskimg.protocols import Store


def name_backing_file(store: Store, name: bytes, format_name: bytes) -> None:
    """Set another backing file for the image in store, of the format raw or qcow2; an empty name: none. Durable.

    No file is opened, and nothing else of the image changes: its contents stay the same only where both files have the
    same contents. Raises UnsupportedImageError for an image that cannot be written and for a name that does not fit in
    its first cluster, InvalidImageError and StorageError; nothing was changed then.
    """
    header = read_header(store)
    require_changeable(header, store.name)
    if name and header.data_file_raw:
        raise UnsupportedImageError(
            f"{store.name}: has an external data file that is a raw image, too, and such an image has no backing file"
        )
    if len(name) > layout.MAX_BACKING_FILE_SIZE:
        raise UnsupportedImageError(
            f"{store.name}: the backing file's name has {len(name)} bytes, at most {layout.MAX_BACKING_FILE_SIZE} are "
            "possible"
        )
    extensions = {kind: data for kind, data in header.extensions.items() if kind != layout.EXTENSION_BACKING_FORMAT}
    if name and format_name:
        extensions[layout.EXTENSION_BACKING_FORMAT] = format_name
    replace_head(store, header, extensions, name)
    store.flush()
