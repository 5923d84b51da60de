# SPDX-License-Identifier: MIT
"""The core image: a first sector that loads the others, a decompressor, and the compressed payload.

The payload is the kernel, and after it the objects that it finds in memory. A header of three numbers follows the
kernel, and the objects follow that; each begins with its type and its size, which counts these 8 bytes and the zeros up
to a multiple of 4. Little-endian.
"""

from __future__ import annotations

import lzma
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from pydiskimg.boot.files import Grub
from pydiskimg.boot.kernel_image import LINK_ADDRESS, MEMORY_END, read_kernel
from pydiskimg.boot.modules import closure, read_dependencies
from pydiskimg.boot.refusal import check, unknown
from pydiskimg.errors import BootLoaderError

_HEADER = struct.Struct(
    "<4s"  # 0  magic
    "I"  #   4  offset of the first object   bytes from the header's own start
    "I"  #   8  size                         of header and objects
)
_MAGIC = b"mimg"
_OBJECT = struct.Struct("<II")
_ALIGNMENT = 4


class ObjectKind(IntEnum):
    """What an object is."""

    MODULE = 0
    CONFIG = 2  # commands, ended by NUL
    PREFIX = 3  # where modules and grub.cfg are, ended by NUL


def payload(kernel: bytes, modules: Sequence[bytes], *, config: str, prefix: str) -> bytes:
    """Return the uncompressed payload. config are GRUB's commands, prefix a path as (,msdos1)/boot/grub; ASCII."""
    objects = [
        *(_object(ObjectKind.MODULE, module) for module in modules),
        _object(ObjectKind.CONFIG, config.encode("ascii") + b"\0"),
        _object(ObjectKind.PREFIX, prefix.encode("ascii") + b"\0"),
    ]
    size = _HEADER.size + sum(map(len, objects))
    return b"".join((kernel, _HEADER.pack(_MAGIC, _HEADER.size, size), *objects))


def _object(kind: ObjectKind, data: bytes) -> bytes:
    padding = bytes(-len(data) % _ALIGNMENT)
    return _OBJECT.pack(kind, _OBJECT.size + len(data) + len(padding)) + data + padding


SECTOR = 512

# lzma_decompress.img: it has no room for more than 64 KiB of dictionary.
_FILTERS = [{"id": lzma.FILTER_LZMA1, "lc": 3, "lp": 0, "pb": 2, "dict_size": 64 << 10}]
_FAR_JUMP = b"\xea"
_SIZES = struct.Struct("<III")  # at 0x08: compressed and uncompressed size, bytes of Reed-Solomon redundancy
_SIZES_OFFSET = 0x08
_PLAIN_LENGTH = struct.Struct("<H")  # at 0x14: bytes at the start that no redundancy protects
_PLAIN_LENGTH_OFFSET = 0x14
_DECOMPRESSOR_ADDRESS = 0x8200

# diskboot.img: its block list is read from the end of the sector towards the start, up to an entry of zeros.
BLOCKS = struct.Struct(
    "<Q"  #  0  first sector   512 bytes each, of the disk
    "H"  #   8  how many
    "H"  #  10  segment to load them to
)
assert BLOCKS.size == 12
_SEGMENT = 0x820
_UNSET = BLOCKS.pack(2, 0, _SEGMENT)


@dataclass(frozen=True, slots=True)
class CoreImage:
    """A core image without the block list, which depends on its area; size is bytes, a multiple of 512."""

    first: bytes
    rest: bytes

    @property
    def size(self) -> int:
        return len(self.first) + len(self.rest)

    def at(self, sector: int) -> bytes:
        """Return the bytes for an area that begins at this sector (512 bytes each) of the disk."""
        blocks = BLOCKS.pack(sector + 1, len(self.rest) // SECTOR, _SEGMENT)
        return self.first[: -BLOCKS.size] + blocks + self.rest


def make_core(grub: Grub, modules: Sequence[str], *, config: str, prefix: str) -> CoreImage:
    """Build a core image with the modules, and those that they need, from GRUB's own files.

    config are the commands that it runs first; prefix is where it looks for modules and grub.cfg when these commands
    set no other. Both are ASCII.

    Raises BootLoaderError for files of an unknown GRUB, and when the image is larger than memory below the BIOS's own.
    """
    kernel = read_kernel(grub.file("kernel.img"), grub.path("kernel.img"))
    listed = grub.path("moddep.lst")
    names = closure(modules, read_dependencies(grub.file("moddep.lst"), listed), listed)
    raw = payload(kernel.data, [grub.module(name) for name in names], config=config, prefix=prefix)
    compressed = lzma.compress(raw, format=lzma.FORMAT_RAW, filters=_FILTERS)
    rest = _decompressor(grub, len(compressed), len(raw)) + compressed
    rest += bytes(-len(rest) % SECTOR)
    core = CoreImage(_loader(grub), rest)
    if LINK_ADDRESS + max(core.size, len(raw)) > MEMORY_END:
        raise BootLoaderError(
            f"{grub.directory}: the boot loader with the modules {', '.join(names)} has {max(core.size, len(raw))} "
            f"bytes; a BIOS leaves {MEMORY_END - LINK_ADDRESS}"
        )
    return core


def _decompressor(grub: Grub, compressed: int, uncompressed: int) -> bytes:
    """Return the decompressor with both sizes (bytes), without redundancy."""
    name = "lzma_decompress.img"
    contents, path = grub.file(name), grub.path(name)
    room = LINK_ADDRESS - _DECOMPRESSOR_ADDRESS
    if not _PLAIN_LENGTH_OFFSET + _PLAIN_LENGTH.size <= len(contents) <= room:
        raise unknown(path, "has another size", found=f"{len(contents)} bytes", expected=f"at most {room}")
    check(path, "begins with other code", found=contents[:1], expected=_FAR_JUMP)
    fields = contents[_SIZES_OFFSET : _SIZES_OFFSET + _SIZES.size]
    check(path, f"has other bytes at {_SIZES_OFFSET:#x}", found=fields, expected=bytes(_SIZES.size))
    (plain,) = _PLAIN_LENGTH.unpack_from(contents, _PLAIN_LENGTH_OFFSET)
    if not 0 < plain <= len(contents):
        text = f"has another length at {_PLAIN_LENGTH_OFFSET:#x}"
        raise unknown(path, text, found=plain, expected=f"1 to {len(contents)}")
    return contents[:_SIZES_OFFSET] + _SIZES.pack(compressed, uncompressed, 0) + contents[_SIZES_OFFSET + _SIZES.size :]


def _loader(grub: Grub) -> bytes:
    """Return the first sector, with its block list as GRUB's file has it: at() sets it."""
    name = "diskboot.img"
    contents, path = grub.file(name), grub.path(name)
    check(path, "has another size", found=len(contents), expected=SECTOR)
    check(path, "has another block list", found=contents[-BLOCKS.size :], expected=_UNSET)
    end = contents[-2 * BLOCKS.size : -BLOCKS.size]
    check(path, "has another end of its block list", found=end, expected=bytes(BLOCKS.size))
    return contents
