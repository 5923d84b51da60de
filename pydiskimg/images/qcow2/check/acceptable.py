# SPDX-License-Identifier: MIT
"""Conditions that make an image unusable even if its references are counted correctly: it must not be called clean."""

from __future__ import annotations

from pydiskimg.errors import InvalidImageError, UnsupportedImageError
from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.bitmaps import BITMAPS
from pydiskimg.images.qcow2.header import Header, encryption
from pydiskimg.protocols import Source


def require_acceptable(file: Source, header: Header) -> None:
    """Raise if QEMU does not open such an image.

    Raises UnsupportedImageError for an unknown encryption, InvalidImageError for header extensions that contradict the
    header, for an invalid LUKS header, and for a snapshot table at an impossible offset. A key is not needed to check
    an encrypted image.
    """
    if header.crypt_method not in (layout.CRYPT_NONE, layout.CRYPT_AES, layout.CRYPT_LUKS):
        raise UnsupportedImageError(
            f"{file.name}: is encrypted with {encryption(header)}, expected none (0), AES (1) or LUKS (2); "
            "it was not checked"
        )
    if header.crypt_method == layout.CRYPT_LUKS:
        from pydiskimg.images.qcow2.luks import read_luks_header  # imported here: few images are encrypted

        read_luks_header(file, header)
    elif layout.EXTENSION_CRYPTO in header.extensions:
        raise _invalid(file, f"says where a LUKS header is, and the encryption method is {header.crypt_method}")
    _require_bitmaps(file, header)
    if header.autoclear_features & layout.AUTOCLEAR_DATA_FILE_RAW and not header.has_data_file:
        raise _invalid(file, "it says that the external data file is a raw image, and there is no such file")
    if header.has_data_file and header.data_file is None:
        raise _invalid(file, "it says that the data is in an external file, and not in which")
    if header.snapshots_offset % header.cluster_size or header.snapshots_offset >= 1 << 63:
        raise _invalid(
            file,
            f"the snapshot table is at offset 0x{header.snapshots_offset:x}, not a multiple of the cluster size "
            f"{header.cluster_size}",
        )


def _require_bitmaps(file: Source, header: Header) -> None:
    bitmaps = header.extensions.get(layout.EXTENSION_BITMAPS)
    if bitmaps is not None and len(bitmaps) != BITMAPS.size:
        raise _invalid(file, f"the extension for bitmaps has {len(bitmaps)} bytes, expected {BITMAPS.size}")
    if header.has_bitmaps and bitmaps and (reserved := BITMAPS.unpack(bitmaps)["reserved"]):
        raise _invalid(file, f"the extension for bitmaps has reserved bytes {reserved:08x}, expected zeros")


def _invalid(file: Source, text: str) -> InvalidImageError:
    return InvalidImageError(f"{file.name}: qcow2 header: {text}; the image is corrupt and was not checked")
