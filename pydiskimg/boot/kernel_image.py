# SPDX-License-Identifier: MIT
"""kernel.img, GRUB's kernel for the BIOS: an ELF file whose one loaded segment is the beginning of the payload.

The segment's code moves itself to where the linker put it, by a fixed number of bytes: those that the file has of it.
What follows these bytes in memory, the modules, is found there.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from pydiskimg.boot.refusal import check, unknown

LINK_ADDRESS = 0x9000
# From here on memory may be the BIOS's own; GRUB's own installer keeps the same distance.
MEMORY_END = 0x78000
_HEAP_START = 0x68000  # the kernel, with what it zeroes, has to end before it

# The ELF32 header and its program headers. Little-endian.
_IDENTITY = b"\x7fELF\x01\x01\x01"  # 32 bits, little-endian, version 1
_HEADER = struct.Struct(
    "<16s"  #  0  e_ident
    "H"  #    16  e_type       2: executable
    "H"  #    18  e_machine    3: i386
    "I"  #    20  e_version
    "I"  #    24  e_entry
    "I"  #    28  e_phoff      bytes from the start of the file
    "I"  #    32  e_shoff
    "I"  #    36  e_flags
    "H"  #    40  e_ehsize
    "H"  #    42  e_phentsize
    "H"  #    44  e_phnum
    "HHH"
)
assert _HEADER.size == 52
_PROGRAM_HEADER = struct.Struct(
    "<I"  #  0  p_type      1: PT_LOAD
    "I"  #   4  p_offset
    "I"  #   8  p_vaddr
    "I"  #  12  p_paddr
    "I"  #  16  p_filesz
    "I"  #  20  p_memsz
    "II"
)
assert _PROGRAM_HEADER.size == 32
_EXECUTABLE, _I386, _PT_LOAD = 2, 3, 1
_MOST_HEADERS = 16
# "mov ecx, imm32" in front of the instruction that copies.
_MOV_ECX = b"\xb9"
_STARTUP = 0x80  # bytes of code in which that is looked for


@dataclass(frozen=True, slots=True)
class Kernel:
    """data is what is loaded of the file; memory_size (bytes) counts what the kernel zeroes after it, too."""

    data: bytes
    memory_size: int


def read_kernel(contents: bytes, path: str) -> Kernel:
    """Return the kernel in the contents of a kernel.img; path is for messages.

    Raises BootLoaderError for what differs from the kernels known.
    """
    if len(contents) < _HEADER.size:
        text = f"at least {_HEADER.size}"
        raise unknown(path, "is too short for an ELF file", found=f"{len(contents)} bytes", expected=text)
    identity, kind, machine, _, entry, table, *_, entry_size, count, _, _, _ = _HEADER.unpack_from(contents)
    check(path, "is not a 32-bit ELF file", found=identity[: len(_IDENTITY)], expected=_IDENTITY)
    check(path, "is not an executable for i386", found=(kind, machine), expected=(_EXECUTABLE, _I386))
    check(path, "starts at another address", found=hex(entry), expected=hex(LINK_ADDRESS))
    check(path, "has program headers of another size", found=entry_size, expected=_PROGRAM_HEADER.size)
    offset, address, size, memory_size = _only_segment(contents, path, table, count)
    check(path, "is loaded to another address", found=hex(address), expected=hex(LINK_ADDRESS))
    if offset + size > len(contents) or not 0 < size <= memory_size:
        raise unknown(
            path,
            "its segment does not fit the file",
            found=f"{size} bytes at byte {offset}, {memory_size} in memory",
            expected=f"an end within the file's {len(contents)} bytes",
        )
    if LINK_ADDRESS + memory_size > _HEAP_START:
        raise unknown(
            path,
            "takes too much memory",
            found=f"{memory_size} bytes",
            expected=f"at most {_HEAP_START - LINK_ADDRESS}",
        )
    data = contents[offset : offset + size]
    if _MOV_ECX + struct.pack("<I", size) not in data[:_STARTUP]:
        raise unknown(path, "its first code moves another number of bytes", found=data[:16], expected=f"{size} bytes")
    return Kernel(data, memory_size)


def _only_segment(contents: bytes, path: str, table: int, count: int) -> tuple[int, int, int, int]:
    """Return offset, address, size in the file and size in memory of the one segment that is loaded."""
    if count > _MOST_HEADERS or table + count * _PROGRAM_HEADER.size > len(contents):
        raise unknown(
            path,
            "its program headers do not fit the file",
            found=f"{count} at byte {table}",
            expected=f"at most {_MOST_HEADERS} within its {len(contents)} bytes",
        )
    headers = [_PROGRAM_HEADER.unpack_from(contents, table + i * _PROGRAM_HEADER.size) for i in range(count)]
    loaded = [header for header in headers if header[0] == _PT_LOAD]
    check(path, "has another number of segments that are loaded", found=len(loaded), expected=1)
    _, offset, address, _, size, memory_size, _, _ = loaded[0]
    return offset, address, size, memory_size
