# SPDX-License-Identifier: MIT
"""What keeps a valid qcow2 image from being read, or from being written: encryption, a mark of corruption.

Imports nothing but the layout: the fastest commands come through here.
"""

from __future__ import annotations

from pydiskimg.errors import UnsupportedImageError
from pydiskimg.images.qcow2 import layout
from pydiskimg.text import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pydiskimg.images.qcow2.header import Header


def require_readable(header: Header, name: str) -> None:
    """Raise UnsupportedImageError when the image's data cannot be read; name is the image's, for the text."""
    if header.crypt_method != layout.CRYPT_NONE:
        raise UnsupportedImageError(
            f"{name}: is encrypted with {encryption(header)}, and encrypted images are not read; "
            "decrypt it with qemu-img convert"
        )


def warn_of_corruption(header: Header, name: str) -> None:
    """Log a warning for an image that is marked corrupt: it is read, as QEMU does, since its tables are checked."""
    if not header.corrupt:
        return
    import logging  # only here: it takes long to import

    logging.getLogger(__name__).warning(
        "%s: is marked corrupt by the program that wrote it last; it is read all the same, and what comes out may be "
        "wrong; repair it with: qemu-img check -r all",
        printable(name),  # logging prints what it gets, escape sequences too
    )


def require_sound(header: Header, name: str) -> None:
    """Raise UnsupportedImageError for an image that is marked corrupt: it must not be written, nor be relied on."""
    if header.corrupt:
        raise UnsupportedImageError(
            f"{name}: is marked corrupt by the program that wrote it last; repair it with: qemu-img check -r all"
        )


def encryption(header: Header) -> str:
    """Return the method of encryption, for people: LUKS, AES, or that it is unknown."""
    if header.crypt_method == layout.CRYPT_LUKS:
        return "LUKS"
    return "AES" if header.crypt_method == layout.CRYPT_AES else f"an unknown method ({header.crypt_method})"
