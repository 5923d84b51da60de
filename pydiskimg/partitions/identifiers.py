# SPDX-License-Identifier: MIT
"""Identifiers of a new partition table that are derived from a UUID instead of random: the same table each time."""

from __future__ import annotations

import zlib
from dataclasses import replace
from uuid import UUID, uuid5

from pydiskimg.partitions.layout import GPT_ENTRY, GPT_HEADER, MBR, gpt_header_crc
from pydiskimg.partitions.make import PartitionTable


def with_identifiers(table: PartitionTable, seed: UUID) -> PartitionTable:
    """Return the table with a disk signature, or the GUIDs of disk and partitions, that are derived from seed."""
    blocks = {offset: bytearray(contents) for offset, contents in table.blocks}
    disk = uuid5(seed, "disk")
    if table.label == "gpt":
        array = _identified_array(table, blocks, seed)
        for start in (table.sector_size, table.disk_size - table.sector_size):
            _identify_gpt(blocks, start, table.sector_size, disk, array)
    else:
        MBR.put(blocks[0], {"UniqueMBRDiskSignature": int.from_bytes(disk.bytes[:4], "little") | 1})  # 0 means none
    return replace(table, blocks=tuple((offset, bytes(contents)) for offset, contents in blocks.items()))


def _identified_array(table: PartitionTable, blocks: dict[int, bytearray], seed: UUID) -> bytes:
    """Return the entries, with the GUIDs of the partitions replaced."""
    header = GPT_HEADER.unpack(_read(blocks, table.sector_size, GPT_HEADER.size))
    length = header["NumberOfPartitionEntries"] * GPT_ENTRY.size
    array = bytearray(_read(blocks, header["PartitionEntryLBA"] * table.sector_size, length))
    for partition in table.partitions:
        guid = uuid5(seed, f"partition {partition.number}").bytes_le
        GPT_ENTRY.put(array, {"UniquePartitionGUID": guid}, (partition.number - 1) * GPT_ENTRY.size)
    return bytes(array)


def _identify_gpt(blocks: dict[int, bytearray], start: int, sector_size: int, disk: UUID, array: bytes) -> None:
    """Put the disk's GUID and the entries into the copy of the GPT whose header begins at start."""
    header = bytearray(_read(blocks, start, GPT_HEADER.size))
    GPT_HEADER.put(header, {"DiskGUID": disk.bytes_le, "PartitionEntryArrayCRC32": zlib.crc32(array)})
    GPT_HEADER.put(header, {"HeaderCRC32": gpt_header_crc(header)})
    _write(blocks, start, header)
    _write(blocks, GPT_HEADER.unpack(header)["PartitionEntryLBA"] * sector_size, array)


def _read(blocks: dict[int, bytearray], offset: int, length: int) -> bytes:
    found = bytearray(length)
    for start, contents in blocks.items():
        first, last = max(start, offset), min(start + len(contents), offset + length)
        if first < last:
            found[first - offset : last - offset] = contents[first - start : last - start]
    return bytes(found)


def _write(blocks: dict[int, bytearray], offset: int, data: bytes | bytearray) -> None:
    """Replace the part of [offset, offset + len(data)) that blocks have; in sectors that they lack, data is zero."""
    for start, contents in blocks.items():
        first, last = max(start, offset), min(start + len(contents), offset + len(data))
        if first < last:
            contents[first - start : last - start] = data[first - offset : last - offset]
