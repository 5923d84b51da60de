# SPDX-License-Identifier: MIT
"""A second reading of each member's headers, against which libarchive's is checked.

libarchive 3.6 to 3.8 changes what it reads: names in pax headers are brought to Unicode NFC, times before 1970 lose
their sign on the fraction, percent-encoded xattr names stay encoded, and sparse members of star's format (typeflag S
with the POSIX magic) come out with their holes cut away, without a word. docs/adr/0031 lists what was seen. So the
extended headers are taken from the bytes, and the sizes that libarchive acts on must be the ones in the bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from pydiskimg.files.tar import layout
from pydiskimg.text import printable

Peek = Callable[[int, int], bytes]
"""Called with (position, length): bytes of the inflated archive that were read a moment ago."""

_SPECIAL_HEADERS = 32  # libarchive's own limit
_EXTENDED = b"xX"
_LONG_NAMES = {b"L": b"path", b"K": b"linkpath"}
# Of global headers: what tells of the archive, or of times and character sets that nothing here depends on. Of vendors
# that are not known here nothing is applied to a member either.
_INFORMS = {b"comment", b"charset", b"hdrcharset", b"ctime", b"GNU.volume.label", b"LIBARCHIVE.creationtime"}
_INFORMS_BEGINNINGS = (b"SCHILY.archtype", b"SCHILY.release", b"SCHILY.volhdr.")
_KNOWN_VENDORS = (b"GNU.", b"LIBARCHIVE.", b"RHT.", b"SCHILY.", b"SUN.")
_VENDOR = re.compile(rb"[A-Z][A-Z0-9_-]*\.")
_UNSIGNED = re.compile(rb"[0-9]{1,19}")
_SIGNED = re.compile(rb"(-?[0-9]{1,19})?")  # an empty record means that the header's field is right
_NUMBERS = {
    b"size": _UNSIGNED,
    b"uid": _SIGNED,
    b"gid": _SIGNED,
    b"GNU.sparse.size": _UNSIGNED,
    b"GNU.sparse.realsize": _UNSIGNED,
    b"SCHILY.devmajor": _UNSIGNED,
    b"SCHILY.devminor": _UNSIGNED,
}
_SUPPORTED = b"\x0001234567SD"
_SPARSE = b"GNU.sparse."
_CHECKED = {b"SUN.holesdata", b"SCHILY.realsize", b"SCHILY.acl.ace", b"GNU.sparse.map", *_NUMBERS}


@dataclass(slots=True)
class Member:
    """What the bytes say of one member: the last header of its chain, and the records of its extended header.

    names_link says whether they mention where a link leads. real_size is the size of a sparse member with its holes;
    None for any other member.
    """

    header: layout.TarHeader
    records: dict[bytes, bytes]
    names_link: bool
    real_size: int | None

    @property
    def stored_size(self) -> int:
        """Bytes of the body; a sparse member of pax version 1.0 has its map in there too."""
        size = self.records.get(b"size")
        return int(size) if size else layout.number(self.header.size)

    @property
    def map_in_body(self) -> bool:
        """True for the sparse format 1.0."""
        return self.records.get(b"GNU.sparse.major") == b"1"

    @property
    def owner(self) -> int:
        """Number of the user, as it is written: perhaps negative, or larger than any that Linux has."""
        return self._id(b"uid", self.header.uid)

    @property
    def group(self) -> int:
        """Number of the group, as it is written."""
        return self._id(b"gid", self.header.gid)

    def _id(self, keyword: bytes, field: bytes) -> int:
        # libarchive bounds it: some versions make a negative one 0, and an empty record 0, which means "as the header".
        text = self.records.get(keyword)
        return int(text) if text else layout.number(field)

    @property
    def device(self) -> tuple[int, int]:
        """Major and minor number; libarchive 3.8 cuts large ones off."""
        if not self.header.magic.startswith(b"ustar"):
            return 0, 0
        major = self.records.get(b"SCHILY.devmajor")
        minor = self.records.get(b"SCHILY.devminor")
        return (
            int(major) if major else layout.number(self.header.devmajor),
            int(minor) if minor else layout.number(self.header.devminor),
        )


def read_member(peek: Peek, position: int) -> Member:
    """Return the member whose first header is at position. Raises ValueError with a clause that says what is wrong."""
    records: dict[bytes, bytes] = {}
    seen: set[bytes] = set()
    for _ in range(_SPECIAL_HEADERS):
        block = peek(position, layout.BLOCK)
        if not layout.checksum_is_right(block):
            raise ValueError(f"the header at byte {position} of the inflated archive has a wrong checksum")
        header = layout.TarHeader._make(layout.USTAR.unpack(block))
        if header.typeflag not in b"xXgLKV":
            _check(header, records, seen)
            is_link = header.typeflag in b"12"
            names_link = is_link or header.linkname[0] > 0 or b"K" in seen or b"linkpath" in records
            return Member(header, records, names_link, _real_size(header, block, records))
        size = 0 if header.typeflag == b"V" else layout.number(header.size)
        if size < 0:
            raise ValueError(f"the header at byte {position} of the inflated archive has a negative size")
        if header.typeflag in _EXTENDED or header.typeflag == b"g":
            found = layout.records(peek(position + layout.BLOCK, size))
            records = _combined(header.typeflag, records, found)
        seen.add(header.typeflag)
        position += layout.BLOCK + -(-size // layout.BLOCK) * layout.BLOCK
    raise ValueError(f"it has more than {_SPECIAL_HEADERS} extension headers")


def _combined(typeflag: bytes, records: dict[bytes, bytes], found: dict[bytes, bytes]) -> dict[bytes, bytes]:
    if typeflag == b"g":
        effective = sorted(keyword for keyword, value in found.items() if value and not _informs(keyword))
        if effective:
            keyword = printable(effective[0][:100])
            raise ValueError(f"a global extended header sets {keyword}, which is not applied")
        return records
    if records:
        raise ValueError("it has two extended headers")
    return found


def _informs(keyword: bytes) -> bool:
    """True when a global header may set it and every member stays as it is."""
    if keyword in _INFORMS or keyword.startswith(_INFORMS_BEGINNINGS):
        return True
    return bool(_VENDOR.match(keyword)) and not keyword.startswith(_KNOWN_VENDORS)


def _real_size(header: layout.TarHeader, block: bytes, records: dict[bytes, bytes]) -> int | None:
    if header.typeflag == b"S":
        return layout.number(block[layout.GNU_REALSIZE])
    for keyword in records:
        if keyword.startswith(_SPARSE):
            size = records.get(b"GNU.sparse.realsize") or records.get(b"GNU.sparse.size", b"-1")
            return int(size)
    return None


def _check(header: layout.TarHeader, records: dict[bytes, bytes], seen: set[bytes]) -> None:
    """Refuse what libarchive is known to read otherwise than it was written."""
    if header.typeflag not in _SUPPORTED:
        raise ValueError(f"entries of its type, '{printable(header.typeflag)}', cannot be unpacked")
    for flag, keyword in _LONG_NAMES.items():
        if flag in seen and keyword in records:
            raise ValueError(f"its {keyword.decode()} is given twice")
    if header.typeflag == b"S" and header.magic != layout.MAGIC_GNU:
        raise ValueError("it is sparse in a format other than GNU tar's; pack it with GNU tar --sparse")
    if not _CHECKED.isdisjoint(records):
        _check_records(records)


def _check_records(records: dict[bytes, bytes]) -> None:
    if b"SUN.holesdata" in records or b"SCHILY.realsize" in records:
        raise ValueError("it is sparse in a format other than GNU tar's; pack it with GNU tar --sparse")
    if b"SCHILY.acl.ace" in records:
        raise ValueError("it has an NFSv4 ACL, which no Linux file system stores")
    if b"GNU.sparse.map" in records and not records[b"GNU.sparse.map"].count(b",") % 2:
        raise ValueError("its sparse map has an odd number of values")
    for keyword, pattern in _NUMBERS.items():
        if keyword in records and not pattern.fullmatch(records[keyword]):
            raise ValueError(f"its {keyword.decode()} is not a number")
