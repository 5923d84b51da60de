# SPDX-License-Identifier: MIT
"""The core image: a first sector that loads the others, a decompressor, and the compressed payload.

The payload is the kernel, a header of three numbers, and the objects that the kernel finds in memory. Each object
begins with its type and its size, which includes these 8 bytes and the zeros up to a multiple of 4. Little-endian.
"""

from __future__ import annotations

import lzma
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from pydiskimg.boot.boot_sector import SECTOR
from pydiskimg.boot.files import Grub
from pydiskimg.boot.kernel_image import LINK_ADDRESS, MEMORY_END, read_kernel
from pydiskimg.boot.modules import closure, read_dependencies
from pydiskimg.boot.refusal import check, unknown
from pydiskimg.errors import BootLoaderError
from pydiskimg.records import Record

_HEADER = Record("grub_module_info32", "<", 12, """
    0 4s magic
    4 I  offset            of the first object; bytes from the header's own start
    8 I  size              of header and objects
""")  # fmt: skip
_MAGIC = b"mimg"
_OBJECT = Record("grub_module_header", "<", 8, """
    0 I  type
    4 I  size              with this header, and zeros up to a multiple of 4
""")  # fmt: skip
_ALIGNMENT = 4


class ObjectKind(IntEnum):
    """The type of an object."""

    MODULE = 0
    CONFIG = 2  # commands, ended by NUL
    PREFIX = 3  # the directory of modules and grub.cfg, ended by NUL


def payload(kernel: bytes, modules: Sequence[bytes], *, config: str, prefix: str) -> bytes:
    """Return the uncompressed payload. config is GRUB commands, prefix a path such as (,msdos1)/boot/grub; ASCII."""
    objects = [
        *(_object(ObjectKind.MODULE, module) for module in modules),
        _object(ObjectKind.CONFIG, config.encode("ascii") + b"\0"),
        _object(ObjectKind.PREFIX, prefix.encode("ascii") + b"\0"),
    ]
    size = _HEADER.size + sum(map(len, objects))
    return b"".join((kernel, _HEADER.pack(magic=_MAGIC, offset=_HEADER.size, size=size), *objects))


def _object(kind: ObjectKind, data: bytes) -> bytes:
    padding = bytes(-len(data) % _ALIGNMENT)
    return _OBJECT.pack(type=kind, size=_OBJECT.size + len(data) + len(padding)) + data + padding


# lzma_decompress.img: it has memory for a dictionary of at most 64 KiB.
_FILTERS = [{"id": lzma.FILTER_LZMA1, "lc": 3, "lp": 0, "pb": 2, "dict_size": 64 << 10}]
_FAR_JUMP = b"\xea"
_DECOMPRESSOR = Record("lzma_decompress.img", "<", 22, """
    00 8s code
    08 I  compressed_size
    0c I  uncompressed_size
    10 I  reed_solomon_redundancy
    14 H  no_reed_solomon_length      bytes at the start that no redundancy protects
""")  # fmt: skip
_DECOMPRESSOR_ADDRESS = 0x8200

# diskboot.img: its block list is read from the end of the sector towards the start, up to an entry of zeros.
BLOCKS = Record("grub_pc_bios_boot_blocklist", "<", 12, """
    0 Q start              sector of the disk, 512 bytes each
    8 H len                sectors
    a H segment            to load them to
""")  # fmt: skip
_SEGMENT = 0x820
_UNSET = BLOCKS.pack(start=2, segment=_SEGMENT)


@dataclass(frozen=True, slots=True)
class CoreImage:
    """A core image without the block list, which depends on its area; size is in bytes, a multiple of 512."""

    first: bytes
    rest: bytes

    @property
    def size(self) -> int:
        return len(self.first) + len(self.rest)

    def at(self, sector: int) -> bytes:
        """Return the bytes for an area that begins at this sector of the disk (of 512 bytes)."""
        blocks = BLOCKS.pack(start=sector + 1, len=len(self.rest) // SECTOR, segment=_SEGMENT)
        return self.first[: -BLOCKS.size] + blocks + self.rest


def make_core(grub: Grub, modules: Sequence[str], *, config: str, prefix: str) -> CoreImage:
    """Build a core image with the given modules and their dependencies, from GRUB's own files.

    config is the commands that it runs first; prefix is the directory of modules and grub.cfg unless these commands set
    another. Both are ASCII. Raises BootLoaderError for files of an unknown GRUB, and when the image does not fit in
    memory below the BIOS's own.
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
    """Return the decompressor with both sizes (bytes) set, without redundancy."""
    name = "lzma_decompress.img"
    contents, path = grub.file(name), grub.path(name)
    room = LINK_ADDRESS - _DECOMPRESSOR_ADDRESS
    if not _DECOMPRESSOR.size <= len(contents) <= room:
        raise unknown(path, "has another size", found=f"{len(contents)} bytes", expected=f"at most {room}")
    fields = _DECOMPRESSOR.unpack(contents)
    check(path, "begins with other code", found=contents[:1], expected=_FAR_JUMP)
    sizes = contents[_DECOMPRESSOR.offsets["compressed_size"] : _DECOMPRESSOR.offsets["no_reed_solomon_length"]]
    check(path, "has other bytes at 0x8", found=sizes, expected=bytes(len(sizes)))
    plain = fields["no_reed_solomon_length"]
    if not 0 < plain <= len(contents):
        raise unknown(path, "has another length at 0x14", found=plain, expected=f"1 to {len(contents)}")
    changed = bytearray(contents)
    _DECOMPRESSOR.put(changed, {"compressed_size": compressed, "uncompressed_size": uncompressed})
    return bytes(changed)


def _loader(grub: Grub) -> bytes:
    """Return the first sector, with its block list as in GRUB's file; at() sets it."""
    name = "diskboot.img"
    contents, path = grub.file(name), grub.path(name)
    check(path, "has another size", found=len(contents), expected=SECTOR)
    check(path, "has another block list", found=contents[-BLOCKS.size :], expected=_UNSET)
    end = contents[-2 * BLOCKS.size : -BLOCKS.size]
    check(path, "has another end of its block list", found=end, expected=bytes(BLOCKS.size))
    return contents
