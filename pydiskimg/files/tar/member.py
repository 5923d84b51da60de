# SPDX-License-Identifier: MIT
"""The headers of one member of a tar archive: extension headers, its own, and the map of a sparse one.

POSIX.1-2017, pax, "ustar Interchange Format" and "pax Interchange Format"; GNU tar 1.35 manual, "Basic Tar Format".
Headers that different programs are known to interpret differently are refused (docs/adr/0133).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pydiskimg.files.tar import layout
from pydiskimg.files.tar.archive_bytes import ArchiveBytes
from pydiskimg.files.tar.sparse import StoredMap, sparse_map
from pydiskimg.text import printable

_SPECIAL_HEADERS = 32
_HEADERS_LIMIT = 8 << 20  # bytes: some 380,000 pieces of a sparse file
_ZEROS = bytes(layout.BLOCK)
_BEFORE_MEMBERS = b"xXgLKV"
_LONG_NAMES = {b"L": b"path", b"K": b"linkpath"}
_HARD_LINK = b"1"
_REGULAR = b"\x0007S"
_WITH_BODY = _REGULAR + b"D"
_SUPPORTED = b"\x0001234567SD"
# Harmless keywords of global headers: they describe the archive, or times and character sets that nothing here depends
# on. Unknown vendors' keywords are not applied to members either.
_INFORMS = {b"comment", b"charset", b"hdrcharset", b"ctime", b"GNU.volume.label", b"LIBARCHIVE.creationtime"}
_INFORMS_BEGINNINGS = (b"SCHILY.archtype", b"SCHILY.release", b"SCHILY.volhdr.")
_KNOWN_VENDORS = (b"GNU.", b"LIBARCHIVE.", b"RHT.", b"SCHILY.", b"SUN.")
_VENDOR = re.compile(rb"[A-Z][A-Z0-9_-]*\.")
_UNSIGNED = re.compile(rb"[0-9]{1,19}")
_SIGNED = re.compile(rb"(-?[0-9]{1,19})?")  # an empty record means that the header's field applies
_NUMBERS = {
    b"size": _UNSIGNED,
    b"uid": _SIGNED,
    b"gid": _SIGNED,
    b"GNU.sparse.size": _UNSIGNED,
    b"GNU.sparse.realsize": _UNSIGNED,
    b"SCHILY.devmajor": _UNSIGNED,
    b"SCHILY.devminor": _UNSIGNED,
}
_PLAIN = {b"path", b"linkpath", b"mtime", b"atime", b"ctime", b"uname", b"gname", b"comment"}


@dataclass(slots=True)
class Member:
    """The headers of one member.

    header is the last of its chain, records those of its extended header, path and link its names. stored is the size
    of its body in bytes, sparse the map of a sparse one. is_plain is True if all records are names or times.
    """

    header: layout.TarHeader
    records: dict[bytes, bytes]
    path: bytes
    link: bytes
    is_plain: bool
    stored: int = 0
    sparse: StoredMap | None = None

    @property
    def is_old_directory(self) -> bool:
        """True for a directory in the form of the oldest archives: a file with a slash after its name, and no body."""
        return self.header.typeflag in _REGULAR and self.path.endswith(b"/")

    @property
    def size(self) -> int:
        """Size of a regular file in bytes, including its holes."""
        return self.stored if self.sparse is None else self.sparse.size

    @property
    def owner(self) -> int:
        """Number of the user, as written: perhaps negative, or larger than Linux allows."""
        return layout.number(self.header.uid) if self.is_plain else self._id(b"uid", self.header.uid)

    @property
    def group(self) -> int:
        """Number of the group, as written."""
        return layout.number(self.header.gid) if self.is_plain else self._id(b"gid", self.header.gid)

    def _id(self, keyword: bytes, field: bytes) -> int:
        text = self.records.get(keyword)
        return int(text) if text else layout.number(field)

    @property
    def device(self) -> tuple[int, int]:
        """Major and minor number."""
        if self.header.typeflag not in b"34" or not self.header.magic.startswith(b"ustar"):
            return 0, 0
        major = self.records.get(b"SCHILY.devmajor")
        minor = self.records.get(b"SCHILY.devminor")
        return (
            int(major) if major else layout.number(self.header.devmajor),
            int(minor) if minor else layout.number(self.header.devminor),
        )


class Members:
    """Reads headers from a stream, which must be at the end of a body.

    path is the name of the current member, once it is known, for messages.
    """

    def __init__(self, stream: ArchiveBytes) -> None:
        self._stream = stream
        self._is_pax = False  # an extended header was seen
        self.path: bytes | None = None

    def next(self) -> Member | None:
        """Return the next member; None at the marker of the archive's end, which is consumed.

        Raises ValueError with a clause that describes the problem, and as the stream does.
        """
        stream = self._stream
        self.path = None
        if not stream.position and len(stream.peek(layout.BLOCK)) < layout.BLOCK:
            raise ValueError("it is shorter than a header, which has 512 bytes; it is truncated or not a tar archive")
        limit = stream.position + _HEADERS_LIMIT
        before = _Before()
        for _ in range(_SPECIAL_HEADERS):
            block = stream.take(layout.BLOCK)
            if not block[0] and block == _ZEROS:
                before.check_nothing_follows(stream.position - layout.BLOCK)
                return None
            if not layout.checksum_is_right(block):
                raise ValueError(_not_a_header(stream.position - layout.BLOCK))
            typeflag = block[layout.TYPEFLAG]
            if typeflag not in _BEFORE_MEMBERS:
                return self._member(block, before, limit)
            before.add(typeflag, self._special_body(typeflag, block[layout.SIZE], limit))
            self._is_pax = self._is_pax or typeflag in b"xXg"
        raise ValueError(f"it has more than {_SPECIAL_HEADERS} extension headers")

    def _special_body(self, typeflag: bytes, size_field: bytes, limit: int) -> bytes:
        size = 0 if typeflag == b"V" else layout.number(size_field)
        start, length = self._stream.position, layout.padded(size)
        if size < 0:
            raise ValueError(f"the extension header before byte {start} has a negative size")
        if start + length > limit:
            raise ValueError(layout.HEADERS_TOO_LARGE)
        return self._stream.take(length)[:size]

    def _member(self, block: bytes, before: _Before, limit: int) -> Member:
        header = layout.TarHeader._make(layout.USTAR.unpack(block))
        records = before.records
        link = b""
        if header.typeflag in b"12":
            link = records.get(b"linkpath") or before.long_names.get(b"K") or header.linkname.partition(b"\0")[0]
        is_plain = records.keys() <= _PLAIN
        path = records.get(b"path") or before.long_names.get(b"L") or _name(header)
        member = Member(header, records, path if is_plain else records.get(b"GNU.sparse.name") or path, link, is_plain)
        self.path = member.path
        _check(header, before, is_plain)
        size = records.get(b"size")
        stored = int(size) if size else layout.number(header.size)
        if header.typeflag in _WITH_BODY and not member.is_old_directory:
            member.stored = stored
        elif header.typeflag == _HARD_LINK:
            member.stored = stored if self._hard_link_has_body() else 0
        if member.stored < 0:
            raise ValueError("its size is negative")
        if not is_plain or header.typeflag == b"S":
            member.sparse = sparse_map(self._stream, block, records, before.extended, limit)
            _check_stored(member)
        return member

    def _hard_link_has_body(self) -> bool:
        """True if the size in a hard link's header counts: pax gives such members a body, others only a size."""
        if self._is_pax:
            return True
        following = self._stream.peek(layout.BLOCK)
        return len(following) == layout.BLOCK and following != _ZEROS and not layout.checksum_is_right(following)


class _Before:
    """The extension headers before a member: seen has their typeflags."""

    __slots__ = ("extended", "long_names", "records", "seen")

    def __init__(self) -> None:
        self.seen = b""
        self.records: dict[bytes, bytes] = {}
        self.extended = b""
        self.long_names: dict[bytes, bytes] = {}

    def add(self, typeflag: bytes, body: bytes) -> None:
        self.seen += typeflag
        if typeflag == b"g":
            _check_global(layout.records(body))
        elif typeflag in b"xX":
            if self.records:
                raise ValueError("it has two extended headers")
            self.records, self.extended = layout.records(body), body
        elif typeflag in _LONG_NAMES:
            self.long_names[typeflag] = body.partition(b"\0")[0]

    def check_nothing_follows(self, position: int) -> None:
        """Raise ValueError if these headers belong to a member, not to the archive."""
        if self.seen.strip(b"gV"):
            raise ValueError(f"the end-of-archive marker at byte {position} follows extension headers of a member")


def _not_a_header(position: int) -> str:
    if not position:
        return "its first 512 bytes are not a header; it is corrupt or not a tar archive"
    return f"the header at byte {position} of the inflated archive has a wrong checksum; the archive is corrupt"


def _name(header: layout.TarHeader) -> bytes:
    name = header.name.partition(b"\0")[0]
    if header.prefix[0] and header.magic.startswith(b"ustar") and header.magic != layout.MAGIC_GNU:
        return header.prefix.partition(b"\0")[0].removesuffix(b"/") + b"/" + name
    return name


def _check_global(found: dict[bytes, bytes]) -> None:
    effective = sorted(keyword for keyword, value in found.items() if value and not _informs(keyword))
    if effective:
        keyword = printable(effective[0][:100])
        raise ValueError(f"a global extended header sets {keyword}, which is not applied")


def _informs(keyword: bytes) -> bool:
    """True if a global header may set the keyword without a change to any member."""
    if keyword in _INFORMS or keyword.startswith(_INFORMS_BEGINNINGS):
        return True
    return bool(_VENDOR.match(keyword)) and not keyword.startswith(_KNOWN_VENDORS)


def _check(header: layout.TarHeader, before: _Before, is_plain: bool) -> None:
    """Refuse members that other programs are known to read differently from how they were written."""
    if header.typeflag not in _SUPPORTED:
        raise ValueError(f"entries of its type, '{printable(header.typeflag)}', cannot be unpacked")
    for flag, keyword in _LONG_NAMES.items():
        if flag in before.long_names and keyword in before.records:
            raise ValueError(f"its {keyword.decode()} is given twice")
    if header.typeflag == b"S" and header.magic != layout.MAGIC_GNU:
        raise ValueError("it is sparse in a format other than GNU tar's; pack it with GNU tar --sparse")
    if not is_plain:
        _check_records(before.records)


def _check_records(records: dict[bytes, bytes]) -> None:
    if b"SUN.holesdata" in records or b"SCHILY.realsize" in records:
        raise ValueError("it is sparse in a format other than GNU tar's; pack it with GNU tar --sparse")
    if b"SCHILY.acl.ace" in records:
        raise ValueError("it has an NFSv4 ACL, which Linux file systems do not store")
    for keyword, pattern in _NUMBERS.items():
        if keyword in records and not pattern.fullmatch(records[keyword]):
            raise ValueError(f"its {keyword.decode()} is not a number")


def _check_stored(member: Member) -> None:
    if member.sparse is None:
        return
    if member.header.typeflag not in _REGULAR or member.is_old_directory:
        raise ValueError("it has a sparse map and is not a regular file")
    if member.sparse.in_body and member.stored == member.sparse.size:
        # Some writers also put the size with holes in the extended header; a body with a map never has that size.
        member.stored = layout.number(member.header.size)
    mapped = sum(length for _, length in member.sparse.pieces)
    stored = member.stored - member.sparse.in_body
    if mapped != stored:
        raise ValueError(f"its sparse map lists {mapped} bytes of data, but {stored} are stored")
