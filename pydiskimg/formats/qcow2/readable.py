# SPDX-License-Identifier: MIT
"""What makes a valid qcow2 image unreadable: a mark of corruption, or encryption.

Imports nothing but the layout: the fastest commands come through here.
"""

from __future__ import annotations

from pydiskimg.errors import UnsupportedImageError
from pydiskimg.formats.qcow2 import layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pydiskimg.formats.qcow2.header import Header


def require_readable(header: Header, name: str) -> None:
    """Raise UnsupportedImageError when the image's data is not to be read; name is the image's, for the text."""
    if header.corrupt:
        raise UnsupportedImageError(
            f"{name}: is marked corrupt by the program that wrote it last; repair it with: qemu-img check -r all"
        )
    if header.crypt_method != layout.CRYPT_NONE:
        raise UnsupportedImageError(
            f"{name}: is encrypted with {encryption(header)}, and encrypted images are not read; "
            "decrypt it with qemu-img convert"
        )


def encryption(header: Header) -> str:
    """Return the method of encryption, for people: LUKS, AES, or that it is unknown."""
    if header.crypt_method == layout.CRYPT_LUKS:
        return "LUKS"
    return "AES" if header.crypt_method == layout.CRYPT_AES else f"an unknown method ({header.crypt_method})"
