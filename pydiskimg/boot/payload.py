# SPDX-License-Identifier: MIT
"""What is compressed into a core image: the kernel, and after it the objects that it finds in memory.

A header of three numbers follows the kernel, and the objects follow that; each begins with its type and its size, which
counts these 8 bytes and the zeros up to a multiple of 4. Little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum

_HEADER = struct.Struct(
    "<4s"  # 0  magic
    "I"  #   4  offset of the first object   bytes from the header's own start
    "I"  #   8  size                         of header and objects
)
_MAGIC = b"mimg"
_OBJECT = struct.Struct("<II")
_ALIGNMENT = 4


class Kind(IntEnum):
    """What an object is."""

    MODULE = 0
    CONFIG = 2  # commands, ended by NUL
    PREFIX = 3  # where modules and grub.cfg are, ended by NUL


def payload(kernel: bytes, modules: Sequence[bytes], *, config: str, prefix: str) -> bytes:
    """Return the uncompressed payload. config are GRUB's commands, prefix a path as (,msdos1)/boot/grub; ASCII."""
    objects = [
        *(_object(Kind.MODULE, module) for module in modules),
        _object(Kind.CONFIG, config.encode("ascii") + b"\0"),
        _object(Kind.PREFIX, prefix.encode("ascii") + b"\0"),
    ]
    size = _HEADER.size + sum(map(len, objects))
    return b"".join((kernel, _HEADER.pack(_MAGIC, _HEADER.size, size), *objects))


def _object(kind: Kind, data: bytes) -> bytes:
    padding = bytes(-len(data) % _ALIGNMENT)
    return _OBJECT.pack(kind, _OBJECT.size + len(data) + len(padding)) + data + padding
