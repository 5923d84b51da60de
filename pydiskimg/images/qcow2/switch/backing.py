# SPDX-License-Identifier: MIT
"""Which backing file a qcow2 image names: another one, or none, by one write of its header's cluster."""

from __future__ import annotations

from pydiskimg.errors import UnsupportedImageError
from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.header import read_header, require_changeable
from pydiskimg.images.qcow2.write.head import replace_head
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from pydiskimg.protocols import Store


def name_backing_file(store: Store, name: bytes, format_name: bytes) -> None:
    """Let the image in store name another backing file, of the format raw or qcow2; an empty name: none. Durable.

    Nothing is opened, and nothing else of the image changes: what it shows is as before only where the files hold the
    same. Raises UnsupportedImageError for an image that is not written and for a name that has no room in its first
    cluster, InvalidImageError and StorageError; then nothing was changed.
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
