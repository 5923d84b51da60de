# SPDX-License-Identifier: MIT
"""The first cluster of an image: its header, whose fields change, its extensions and the backing file's name."""

from __future__ import annotations

from pydiskimg.errors import UnsupportedImageError
from pydiskimg.images.qcow2 import layout
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from pydiskimg.images.qcow2.header import Header
    from pydiskimg.protocols import Store

# Changing data, and data needed to open the image, go into the first sector if they fit; conveniences are last.
_FIRST = (layout.EXTENSION_BACKING_FORMAT, layout.EXTENSION_DATA_FILE, layout.EXTENSION_BITMAPS)
_LAST = (layout.EXTENSION_FEATURE_NAMES,)

# Section "Feature name table": names of bits for programs that do not know them.
_FEATURES = (
    (0, 0, b"dirty bit"),
    (0, 1, b"corrupt bit"),
    (0, 2, b"external data file"),
    (0, 3, b"compression type"),
    (0, 4, b"extended L2 entries"),
    (1, 0, b"lazy refcounts"),
    (2, 0, b"bitmaps"),
    (2, 1, b"raw external data"),
)


def change_header(store: Store, **fields: int) -> None:
    """Change fields of an image's header, all of them by one write to one sector."""
    raw = bytearray(layout.HEADER.size)
    store.read_into(0, raw)
    layout.HEADER.put(raw, fields)
    store.write(0, raw)


def replace_head(
    store: Store, header: Header, extensions: dict[int, bytes], backing_file: bytes | None, /, **fields: int
) -> None:
    """Give the image other extensions, fields, and backing file (None: unchanged), by one write; not durable on return.

    header is the present header; a field version changes its version. The feature names are left out if they do not
    fit. Raises UnsupportedImageError if the rest does not fit in the first cluster; nothing was written then.
    """
    name = (header.backing_file or b"") if backing_file is None else backing_file
    head = bytearray(min(header.cluster_size, store.size))
    store.read_into(0, head)
    fields |= {"header_length": _length(header, fields.get("version", header.version))}
    old = bytes(head[: min(header.header_length, fields["header_length"])])
    new = _packed(header, old.ljust(fields["header_length"], b"\0"), extensions, name, fields)
    if new is None:
        raise UnsupportedImageError(
            f"{store.name}: the header's extensions and the backing file's name do not fit into a cluster of "
            f"{header.cluster_size} bytes; convert the image to larger clusters"
        )
    # The part of the old header beyond the new one's end is overwritten, too.
    end = len(head.rstrip(b"\0")) if header.cluster_size > layout.SECTOR else len(head)
    length = -(-max(end, len(new)) // layout.SECTOR) * layout.SECTOR
    store.write(0, new.ljust(length, b"\0"))


def switch_head(store: Store, header: Header, extensions: dict[int, bytes] | None, /, **fields: int) -> None:
    """Change fields, and extensions if not None, once all earlier writes are durable; durable on return.

    Raises as replace_head().
    """
    store.flush()
    if extensions is None:
        change_header(store, **fields)
    else:
        replace_head(store, header, extensions, None, **fields)
    store.flush()


def feature_names() -> bytes:
    """Return the data of the extension that names the features, which images of version 3 have."""
    return b"".join(layout.FEATURE_NAME.pack(type=kind, bit=bit, name=name) for kind, bit, name in _FEATURES)


def pack_extension(kind: int, data: bytes) -> bytes:
    """Return a header extension of the type kind."""
    return layout.EXTENSION.pack(type=kind, length=len(data)) + data + bytes(-len(data) % 8)


def _length(header: Header, version: int) -> int:
    """The bytes of the header alone, in that version."""
    if version == header.version:
        return header.header_length
    return layout.HEADER.size if version >= 3 else layout.HEADER_LENGTH_V2


def _packed(
    header: Header, old: bytes, extensions: dict[int, bytes], name: bytes, fields: dict[str, int]
) -> bytes | None:
    """The header with its extensions and the name; None if it is longer than a cluster."""
    for kinds in (_in_order(extensions), [kind for kind in _in_order(extensions) if kind not in _LAST]):
        packed = b"".join(pack_extension(kind, extensions[kind]) for kind in kinds)
        packed += layout.EXTENSION.pack(type=layout.EXTENSION_END)
        at = len(old) + len(packed)
        if at + len(name) <= header.cluster_size:
            whole = bytearray(old.ljust(layout.HEADER.size, b"\0"))
            backing = {"backing_file_offset": at if name else 0, "backing_file_size": len(name)}
            layout.HEADER.put(whole, fields | backing)
            return bytes(whole[: len(old)]) + packed + name
    return None


def _in_order(extensions: dict[int, bytes]) -> list[int]:
    return sorted(extensions, key=lambda kind: (kind in _LAST, kind not in _FIRST))
