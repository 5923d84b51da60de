# SPDX-License-Identifier: MIT
"""A small FAT12 volume with files in its root directory, made and read as bytes (layout: fat.py).

It has one sector per cluster, two tables and long names. Times of files are the format's first instant, so that equal
files give equal bytes.

    | boot sector | table | table | root directory | cluster 2, 3, ... |
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydiskimg.errors import FileSystemError
from pydiskimg.fs.fat import (
    ARCHIVE,
    BOOT_SECTOR,
    DELETED,
    DIRECTORY,
    ENTRY,
    LONG,
    LONG_MASK,
    LONG_NAME,
    SIGNATURE_WORD,
    VOLUME_ID,
)
from pydiskimg.protocols import Source, read_bytes
from pydiskimg.text import quoted

_FIRST_DAY = 0x0021  # 1980-01-01
_END = 0xFFF  # of a chain of clusters
_CHAINED = range(2, 0xFF0)
_MAX_CLUSTERS = 4084  # the most that FAT12 has
_PART = 13  # characters of a long name in one entry
_LAST_PART, _MAX_PARTS = 0x40, 20
_ROOT_ENTRIES = 128
_LARGEST = 8 << 20  # bytes: the largest volume that is read
_IN_SHORT_NAMES = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")


@dataclass(frozen=True, slots=True)
class _Layout:
    """The layout of a volume; sector, root_size and total are bytes, the others sectors or counts."""

    sector: int
    reserved: int
    tables: int
    table_sectors: int
    root_size: int
    per_cluster: int
    total: int

    @property
    def root(self) -> int:
        """The root directory's offset (bytes)."""
        return (self.reserved + self.tables * self.table_sectors) * self.sector

    @property
    def data(self) -> int:
        """The offset of cluster 2 (bytes)."""
        return self.root + -(-self.root_size // self.sector) * self.sector

    @property
    def cluster(self) -> int:
        """The size of a cluster (bytes)."""
        return self.per_cluster * self.sector

    @property
    def clusters(self) -> int:
        return max(0, self.total - self.data) // self.cluster


def make_fat12(
    size: int, files: Mapping[str, bytes], *, label: str, serial: int, sector_size: int = 512, hidden_sectors: int = 0
) -> bytes:
    """Return a volume of at most size (bytes) with these files.

    sector_size is 512 to 4096 (bytes) and at least the disk's; hidden_sectors is the volume's first sector on the disk.
    label has at most 11 capital letters, digits and blanks. Names of files are printable ASCII; the root directory has
    room for 63 files with names of at most 13 characters. Raises FileSystemError when the files do not fit, and for
    other names.
    """
    layout = _layout(size, sector_size)
    table = bytearray(layout.table_sectors * sector_size)
    _set(table, 0, 0xFF8)
    _set(table, 1, _END)
    directory = [ENTRY.pack(DIR_Name=_padded(label, 11), DIR_Attr=VOLUME_ID, DIR_WrtDate=_FIRST_DAY)]
    data = bytearray()
    for number, (name, contents) in enumerate(files.items(), 1):
        first = 2 + len(data) // layout.cluster
        count = -(-len(contents) // layout.cluster)
        if first + count > 2 + layout.clusters:
            raise FileSystemError(f"{sum(map(len, files.values()))} bytes of files do not fit on {size} bytes of FAT12")
        for cluster in range(first, first + count):
            _set(table, cluster, cluster + 1 if cluster + 1 < first + count else _END)
        directory += _entries(name, number, first if count else 0, len(contents))
        data += contents.ljust(count * layout.cluster, b"\0")
    if len(directory) * ENTRY.size > layout.root_size:
        raise FileSystemError(f"{len(files)} files do not fit in a root directory of {_ROOT_ENTRIES} entries")
    root = b"".join(directory).ljust(layout.root_size, b"\0")
    head = _boot_sector(layout, label, serial, hidden_sectors)
    return b"".join((head, bytes(table) * layout.tables, root, data)).ljust(layout.total, b"\0")


def read_fat12(source: Source) -> dict[str, bytes]:
    """Return the files in the root directory of a FAT12 volume of at most 8 MiB, by name.

    Directories are left out. Raises FileSystemError if the source is not such a volume, and for damaged chains of
    clusters.
    """
    if source.size > _LARGEST:
        raise FileSystemError(f"{source.name}: {source.size} bytes; expected at most {_LARGEST} of a small FAT12")
    volume = read_bytes(source, 0, source.size)
    layout = _read_layout(source.name, volume)
    table = volume[layout.reserved * layout.sector :][: layout.table_sectors * layout.sector]
    found: dict[str, bytes] = {}
    used = 0
    for name, first, size in _files(volume[layout.root : layout.root + layout.root_size]):
        used += size
        if used > layout.clusters * layout.cluster:
            raise FileSystemError(f"{source.name}: its files are larger than the volume")
        found.setdefault(name, _contents(source.name, volume, layout, table, first, size))
    return found


def _layout(size: int, sector: int) -> _Layout:
    total = min(size // sector, 0xFFFF)
    root_size = _ROOT_ENTRIES * ENTRY.size
    for table_sectors in range(1, 13):
        layout = _Layout(sector, 1, 2, table_sectors, root_size, 1, total * sector)
        excess = layout.clusters - _MAX_CLUSTERS
        if excess > 0:  # more clusters would make it a FAT16; the rest of the size stays unused
            layout = _Layout(sector, 1, 2, table_sectors, root_size, 1, (total - excess) * sector)
        if layout.clusters > 0 and (layout.clusters + 2) * 3 <= table_sectors * sector * 2:
            return layout
    raise FileSystemError(f"{size} bytes are too few for a FAT12 with sectors of {sector} bytes")


def _boot_sector(layout: _Layout, label: str, serial: int, hidden_sectors: int) -> bytes:
    head = BOOT_SECTOR.pack(
        BS_jmpBoot=b"\xeb\x3c\x90",
        BS_OEMName=b"pydiskim",
        BPB_BytsPerSec=layout.sector,
        BPB_SecPerClus=layout.per_cluster,
        BPB_RsvdSecCnt=layout.reserved,
        BPB_NumFATs=layout.tables,
        BPB_RootEntCnt=layout.root_size // ENTRY.size,
        BPB_TotSec16=layout.total // layout.sector,
        BPB_Media=0xF8,
        BPB_FATSz16=layout.table_sectors,
        BPB_SecPerTrk=32,
        BPB_NumHeads=8,
        BPB_HiddSec=hidden_sectors,
        BS_DrvNum=0x80,
        BS_BootSig=0x29,
        BS_VolID=serial,
        BS_VolLab=_padded(label, 11),
        BS_FilSysType=b"FAT12   ",
        BS_BootCode=b"\xcd\x18\xeb\xfe",  # for a BIOS that starts it: int 18h (no bootable disk), a jump to itself
        Signature_word=SIGNATURE_WORD,
    )
    return head.ljust(layout.sector, b"\0")


def _padded(text: str, length: int) -> bytes:
    encoded = text.encode("ascii").ljust(length)
    if len(encoded) != length:
        raise ValueError(f"{quoted(text)} is longer than {length} characters")
    return encoded


def _entries(name: str, number: int, first: int, size: int) -> list[bytes]:
    """Return the entries of a file; the parts of its long name come first."""
    short = _short_name(name, number)
    parts = [name[at : at + _PART] for at in range(0, len(name), _PART)]
    if not 1 <= len(parts) <= _MAX_PARTS or not (name.isascii() and name.isprintable()):
        expected = f"1 to {_MAX_PARTS * _PART} characters of printable ASCII"
        raise FileSystemError(f"{quoted(name)}: cannot be the name of a file; expected {expected}")
    entries = []
    for index in range(len(parts), 0, -1):
        text = parts[index - 1].encode("utf-16-le")
        if len(text) < 2 * _PART:
            text = (text + b"\0\0").ljust(2 * _PART, b"\xff")
        entries.append(
            LONG_NAME.pack(
                LDIR_Ord=index | (_LAST_PART if index == len(parts) else 0),
                LDIR_Name1=text[:10],
                LDIR_Attr=LONG,
                LDIR_Chksum=_checksum(short),
                LDIR_Name2=text[10:22],
                LDIR_Name3=text[22:],
            )
        )
    day = _FIRST_DAY
    dates = {"DIR_CrtDate": day, "DIR_LstAccDate": day, "DIR_WrtDate": day}
    file = ENTRY.pack(DIR_Name=short, DIR_Attr=ARCHIVE, DIR_FstClusLO=first, DIR_FileSize=size, **dates)
    return [*entries, file]


def _short_name(name: str, number: int) -> bytes:
    """Return a short name that no other file has; number is the file's own."""
    tail = f"~{number}"
    letters = "".join(letter for letter in name.upper() if letter in _IN_SHORT_NAMES)
    return _padded(letters[: 8 - len(tail)] + tail, 11)


def _checksum(short: bytes) -> int:
    total = 0
    for byte in short:
        total = ((total & 1) << 7 | total >> 1) + byte & 0xFF
    return total


def _set(table: bytearray, cluster: int, value: int) -> None:
    """Set an entry of a table. Two entries share three bytes; the entry of the even cluster is the lower 12 bits."""
    at = cluster * 3 // 2
    word = int.from_bytes(table[at : at + 2], "little")
    word = (word & 0x000F | value << 4) if cluster & 1 else (word & 0xF000 | value)
    table[at : at + 2] = word.to_bytes(2, "little")


def _next(table: bytes, cluster: int) -> int:
    at = cluster * 3 // 2
    word = int.from_bytes(table[at : at + 2], "little")
    return word >> 4 if cluster & 1 else word & 0xFFF


def _read_layout(name: str, volume: bytes) -> _Layout:
    if len(volume) < BOOT_SECTOR.size:
        raise FileSystemError(f"{name}: {len(volume)} bytes; expected a FAT12")
    fields = BOOT_SECTOR.unpack(volume)
    sector, per_cluster = fields["BPB_BytsPerSec"], fields["BPB_SecPerClus"]
    layout = _Layout(
        sector,
        fields["BPB_RsvdSecCnt"],
        fields["BPB_NumFATs"],
        fields["BPB_FATSz16"],
        fields["BPB_RootEntCnt"] * ENTRY.size,
        per_cluster,
        (fields["BPB_TotSec16"] or fields["BPB_TotSec32"]) * sector,
    )
    sane = sector in (512, 1024, 2048, 4096) and per_cluster and layout.reserved and layout.tables
    if not (sane and layout.table_sectors and layout.root_size and layout.total <= len(volume)):
        raise FileSystemError(f"{name}: its boot sector does not describe a FAT12")
    if not 0 < layout.clusters <= _MAX_CLUSTERS or (layout.clusters + 2) * 3 > layout.table_sectors * sector * 2:
        raise FileSystemError(f"{name}: {layout.clusters} clusters; expected a FAT12")
    return layout


def _files(directory: bytes) -> Iterator[tuple[str, int, int]]:
    """Yield (name, first cluster, size) of each file, in the order of the directory.

    A long name counts only with the checksum of the short one: software that knows only short names leaves the long
    name of a file that it removes in front of the next file's entry.
    """
    parts: list[str] = []
    checksum = -1
    for at in range(0, len(directory) - ENTRY.size + 1, ENTRY.size):
        entry = ENTRY.unpack(directory, at)
        name, attributes = entry["DIR_Name"], entry["DIR_Attr"]
        if name[0] == 0:
            return
        if name[0] != DELETED and attributes & LONG_MASK == LONG:
            part = LONG_NAME.unpack(directory, at)
            if part["LDIR_Ord"] & _LAST_PART or part["LDIR_Chksum"] != checksum:
                parts, checksum = [], part["LDIR_Chksum"]
            text = part["LDIR_Name1"] + part["LDIR_Name2"] + part["LDIR_Name3"]
            parts = [text.decode("utf-16-le", "replace").partition("\0")[0], *parts][:_MAX_PARTS]
            continue
        if name[0] != DELETED and not attributes & (VOLUME_ID | DIRECTORY):
            long_name = "".join(parts) if checksum == _checksum(name) else ""
            yield long_name or _spelled(name), entry["DIR_FstClusLO"], entry["DIR_FileSize"]
        parts = []


def _spelled(short: bytes) -> str:
    name, suffix = (part.decode("latin-1").rstrip().lower() for part in (short[:8], short[8:]))
    return f"{name}.{suffix}" if suffix else name


def _contents(name: str, volume: bytes, layout: _Layout, table: bytes, cluster: int, size: int) -> bytes:
    """Return the contents, size bytes, of the file that begins in the cluster first."""
    found = bytearray()
    while len(found) < size:
        if cluster not in _CHAINED or cluster >= layout.clusters + 2:
            raise FileSystemError(f"{name}: a chain of clusters is damaged")
        at = layout.data + (cluster - 2) * layout.cluster
        found += volume[at : at + layout.cluster]
        cluster = _next(table, cluster)
    return bytes(found[:size])
