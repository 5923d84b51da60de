# SPDX-License-Identifier: MIT
"""What nobody could use an image for, however well its references are counted: it must not be called clean."""

from __future__ import annotations

from pydiskimg.errors import InvalidImageError, UnsupportedImageError
from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.extensions import extensions_of
from pydiskimg.images.qcow2.header import Header
from pydiskimg.images.qcow2.luks import read_luks_header
from pydiskimg.images.qcow2.refcount_reader import read_padded
from pydiskimg.images.qcow2.support import encryption
from pydiskimg.protocols import Source

# Section "Bitmap directory"
DIRTY_TRACKING = 1
KNOWN_FLAGS = 0b11
IN_USE = 1 << 0
MIN_GRANULARITY_BITS, MAX_GRANULARITY_BITS = 9, 31
MAX_BITMAP_SIZE = 512 << 20  # bytes of one bitmap, QEMU's limit


def require_acceptable(file: Source, header: Header) -> dict[int, bytes]:
    """Raise where QEMU opens no such image; return the data of the header extensions, by type.

    Raises UnsupportedImageError for encryption that nobody knows, InvalidImageError for header extensions that
    contradict the header, for a LUKS header that is none, and for a snapshot table where none can be. A key is not
    needed: an encrypted image is as well checked without one.
    """
    head = bytes(read_padded(file, 0, header.cluster_size))
    _, extensions = extensions_of(head, header.header_length, name=file.name)
    if header.crypt_method not in (layout.CRYPT_NONE, layout.CRYPT_AES, layout.CRYPT_LUKS):
        raise UnsupportedImageError(
            f"{file.name}: is encrypted with {encryption(header)}, expected none (0), AES (1) or LUKS (2); "
            "it was not checked"
        )
    if header.crypt_method == layout.CRYPT_LUKS:
        read_luks_header(file, header)
    elif layout.EXTENSION_CRYPTO in extensions:
        raise _invalid(file, f"says where a LUKS header is, and the encryption method is {header.crypt_method}")
    bitmaps = extensions.get(layout.EXTENSION_BITMAPS)
    if bitmaps is not None and len(bitmaps) != layout.BITMAPS.size:
        raise _invalid(file, f"the extension for bitmaps has {len(bitmaps)} bytes, expected {layout.BITMAPS.size}")
    if header.has_bitmaps and any((reserved := extensions[layout.EXTENSION_BITMAPS])[4:8]):
        raise _invalid(file, f"the extension for bitmaps has reserved bytes {reserved[4:8].hex()}, expected zeros")
    if header.autoclear_features & layout.AUTOCLEAR_DATA_FILE_RAW and not header.has_data_file:
        raise _invalid(file, "it says that the external data file is a raw image, and there is no such file")
    if header.has_data_file and header.data_file is None:
        raise _invalid(file, "it says that the data is in an external file, and not in which")
    if header.snapshots_offset % header.cluster_size or header.snapshots_offset >= 1 << 63:
        raise _invalid(
            file,
            f"the snapshot table is at offset 0x{header.snapshots_offset:x}, which is no multiple of the cluster size "
            f"{header.cluster_size}",
        )
    return extensions


def is_possible_bitmap(header: Header, entry: bytes) -> bool:
    """True when the fixed part of a bitmap directory's entry is one that QEMU takes, its place not considered."""
    _, entries, flags, kind, granularity_bits, name_size, extra_size = layout.BITMAP_ENTRY.unpack(entry)
    if extra_size or kind != DIRTY_TRACKING or flags & ~KNOWN_FLAGS or name_size > layout.MAX_BITMAP_NAME_SIZE:
        return False
    size = entries * header.cluster_size
    if not MIN_GRANULARITY_BITS <= granularity_bits <= MAX_GRANULARITY_BITS or size > MAX_BITMAP_SIZE:
        return False
    bits = -(-header.size // (1 << granularity_bits))
    return bool(flags & IN_USE) or entries == -(-bits // (8 * header.cluster_size))


def _invalid(file: Source, text: str) -> InvalidImageError:
    return InvalidImageError(f"{file.name}: qcow2 header: {text}; the image is corrupt and was not checked")
