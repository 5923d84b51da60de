# SPDX-License-Identifier: MIT
"""kernel.img, GRUB's kernel for the BIOS: an ELF file whose one loaded segment is the beginning of the payload.

The segment's code moves itself to its link address; it moves exactly as many bytes as the file has. The modules follow
these bytes in memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydiskimg.boot.refusal import check, unknown
from pydiskimg.records import Record

LINK_ADDRESS = 0x9000
# Memory from here on may belong to the BIOS; GRUB's own installer has the same limit.
MEMORY_END = 0x78000
_HEAP_START = 0x68000  # the kernel, with the memory that it zeroes, must end before it

# System V ABI, "Object Files"; little-endian.
ELF_IDENTITY = b"\x7fELF\x01\x01\x01"  # 32 bits, little-endian, version 1
ELF_HEADER = Record("Elf32_Ehdr", "<", 52, """
    00 16s e_ident
    10 H   e_type       2: executable
    12 H   e_machine    3: i386
    14 I   e_version
    18 I   e_entry
    1c I   e_phoff      bytes from the start of the file
    20 I   e_shoff
    24 I   e_flags
    28 H   e_ehsize
    2a H   e_phentsize
    2c H   e_phnum
    2e H   e_shentsize
    30 H   e_shnum
    32 H   e_shstrndx
""")  # fmt: skip
_PROGRAM_HEADER = Record("Elf32_Phdr", "<", 32, """
    00 I   p_type       1: PT_LOAD
    04 I   p_offset
    08 I   p_vaddr
    0c I   p_paddr
    10 I   p_filesz
    14 I   p_memsz
    18 I   p_flags
    1c I   p_align
""")  # fmt: skip
I386 = 3
_EXECUTABLE, _PT_LOAD = 2, 1
_MOST_HEADERS = 16
# "mov ecx, imm32" before the instruction that copies.
_MOV_ECX = b"\xb9"
_STARTUP = 0x80  # bytes of code that are searched for it


@dataclass(frozen=True, slots=True)
class Kernel:
    """data is the loaded part of the file; memory_size (bytes) includes the memory after it that the kernel zeroes."""

    data: bytes
    memory_size: int


def read_kernel(contents: bytes, path: str) -> Kernel:
    """Return the kernel in the contents of a kernel.img; path is for messages.

    Raises BootLoaderError if it differs from the known kernels.
    """
    if len(contents) < ELF_HEADER.size:
        text = f"at least {ELF_HEADER.size}"
        raise unknown(path, "is too short for an ELF file", found=f"{len(contents)} bytes", expected=text)
    header = ELF_HEADER.unpack(contents)
    kind = header["e_type"], header["e_machine"]
    check(path, "is not a 32-bit ELF file", found=header["e_ident"][: len(ELF_IDENTITY)], expected=ELF_IDENTITY)
    check(path, "is not an executable for i386", found=kind, expected=(_EXECUTABLE, I386))
    check(path, "starts at another address", found=hex(header["e_entry"]), expected=hex(LINK_ADDRESS))
    check(path, "has program headers of another size", found=header["e_phentsize"], expected=_PROGRAM_HEADER.size)
    segment = _only_segment(contents, path, header["e_phoff"], header["e_phnum"])
    offset, size, memory_size = segment["p_offset"], segment["p_filesz"], segment["p_memsz"]
    check(path, "is loaded to another address", found=hex(segment["p_vaddr"]), expected=hex(LINK_ADDRESS))
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
    if _MOV_ECX + size.to_bytes(4, "little") not in data[:_STARTUP]:
        raise unknown(path, "its first code moves another number of bytes", found=data[:16], expected=f"{size} bytes")
    return Kernel(data, memory_size)


def _only_segment(contents: bytes, path: str, table: int, count: int) -> dict[str, Any]:
    """Return the program header of the one loaded segment."""
    if count > _MOST_HEADERS or table + count * _PROGRAM_HEADER.size > len(contents):
        raise unknown(
            path,
            "its program headers do not fit the file",
            found=f"{count} at byte {table}",
            expected=f"at most {_MOST_HEADERS} within its {len(contents)} bytes",
        )
    headers = [_PROGRAM_HEADER.unpack(contents, table + i * _PROGRAM_HEADER.size) for i in range(count)]
    loaded = [header for header in headers if header["p_type"] == _PT_LOAD]
    check(path, "has another number of loaded segments", found=len(loaded), expected=1)
    return loaded[0]
