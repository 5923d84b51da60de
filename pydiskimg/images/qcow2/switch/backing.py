# SPDX-License-Identifier: MIT
"""Which backing file a qcow2 image names: another one, or none, by one write of its header's cluster."""

from __future__ import annotations

from pydiskimg.errors import UnsupportedImageError
from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.header import read_header, require_changeable
from pydiskimg.images.qcow2.write.create import pack_extension
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from pydiskimg.images.qcow2.header import Header
    from pydiskimg.protocols import Store

_SECTOR = layout.SECTOR


def name_backing_file(store: Store, name: bytes, format_name: bytes) -> None:
    """Let the image in store name another backing file, of the format raw or qcow2; an empty name: none. Durable.

    Nothing is opened, and nothing else of the image changes: what it shows is as before only where the files hold the
    same. Raises UnsupportedImageError for an image that is not written and for a name that has no room in its first
    cluster, InvalidImageError and StorageError; then nothing was changed.
    """
    header = read_header(store)
    require_changeable(header, store.name)
    if len(name) > layout.MAX_BACKING_FILE_SIZE:
        raise UnsupportedImageError(
            f"{store.name}: the backing file's name has {len(name)} bytes, at most {layout.MAX_BACKING_FILE_SIZE} are "
            "possible"
        )
    head = bytearray(min(header.cluster_size, store.size))
    store.read_into(0, head)
    new = _packed(header, bytes(head[: header.header_length]), name, format_name)
    if new is None:
        raise UnsupportedImageError(
            f"{store.name}: the backing file's name does not fit into a cluster of {header.cluster_size} bytes; "
            "convert the image to larger clusters"
        )
    # What the old header had beyond the new one's end is overwritten, too.
    end = len(head.rstrip(b"\0")) if header.cluster_size > _SECTOR else len(head)
    length = -(-max(end, len(new)) // _SECTOR) * _SECTOR
    store.write(0, new.ljust(length, b"\0"))
    store.flush()


def _packed(header: Header, fields: bytes, name: bytes, format_name: bytes) -> bytes | None:
    """The header with its extensions and the name; None where it is longer than a cluster."""
    kept = [(kind, data) for kind, data in header.extensions.items() if kind != layout.EXTENSION_BACKING_FORMAT]
    own = [(layout.EXTENSION_BACKING_FORMAT, format_name)] if name and format_name else []
    for extensions in (own + kept, own + [pair for pair in kept if pair[0] != layout.EXTENSION_FEATURE_NAMES]):
        packed = b"".join(pack_extension(kind, data) for kind, data in extensions)
        packed += layout.EXTENSION.pack(type=layout.EXTENSION_END)
        at = len(fields) + len(packed)
        if at + len(name) <= header.cluster_size:
            whole = bytearray(fields.ljust(layout.HEADER.size, b"\0"))
            layout.HEADER.put(whole, {"backing_file_offset": at if name else 0, "backing_file_size": len(name)})
            return bytes(whole[: len(fields)]) + packed + name
    return None
