# SPDX-License-Identifier: MIT
"""The content of a file that was named as an image but is not the bytes of a disk, by its first bytes.

Only for files that an administrator chose: a guest can write any of these bytes to its disk.
"""

from __future__ import annotations

from enum import Enum

from pydiskimg.images import looks_like
from pydiskimg.protocols import read_bytes
from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.text import quoted

if TYPE_CHECKING:
    from pydiskimg.protocols import Source

_LOOK_AT = 512  # bytes: the header of a tar, the first sector of a disk
_SHOWN = 40  # characters of a text
_TEXT_BYTES = bytes(byte for byte in range(256) if byte in b"\t\n\f\r" or (byte >= 0x20 and byte != 0x7F))
_BYTE_ORDER_MARKS = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}

_TAR_CHECKSUM = slice(148, 156)
DUMP_MAGIC_OFFSET = 24
DUMP_MAGICS = ((60012).to_bytes(4, "little"), (60012).to_bytes(4, "big"))
_BOOT_SIGNATURE = b"\x55\xaa"
_SURE = 4  # bytes; boot code may begin with a shorter signature
_DMG_TRAILER = b"koly"


class Sort(Enum):
    """What a program that expected something else can do with it."""

    QCOW2 = "a qcow2 image"
    IMAGE = "an image of another format"
    COMPRESSED = "compressed"
    TAR = "a tar archive"
    DUMP = "a dump(8) of a file system"
    TEXT = "text"
    OTHER = "another file"


class Contents:
    """what names the content for a message, such as "a zip archive"; sort is its use for a program."""

    __slots__ = ("sort", "what")

    def __init__(self, sort: Sort, what: str) -> None:
        self.sort = sort
        self.what = what


# Offset, first bytes, name. Formats that looks_like() knows are not repeated.
_SIGNATURES = (
    (0, b"\x04\x22\x4d\x18", Sort.COMPRESSED, "compressed with lz4"),
    (0, b"LZIP", Sort.COMPRESSED, "compressed with lzip"),
    (0, b"\x89LZO\0\r\n\x1a\n", Sort.COMPRESSED, "compressed with lzop"),
    (0, b"\x5d\0\0", Sort.COMPRESSED, "compressed with lzma"),
    (0, b"\x1f\x9d", Sort.COMPRESSED, "compressed with compress"),
    (0, b"Bochs Virtual HD Image", Sort.IMAGE, "a Bochs image"),
    (0, b"\x3a\xff\x26\xed", Sort.IMAGE, "an Android sparse image"),
    (0, b"partclone-image", Sort.IMAGE, "a partclone image"),
    (0, b"FsArCh_", Sort.IMAGE, "a FSArchiver archive"),
    (0, b"MSWIM\0\0\0", Sort.IMAGE, "a Windows image (WIM)"),
    (0, b"PK\x03\x04", Sort.OTHER, "a zip archive"),
    (0, b"PK\x05\x06", Sort.OTHER, "a zip archive"),
    (0, b"PK\x07\x08", Sort.OTHER, "a zip archive"),
    (0, b"7z\xbc\xaf\x27\x1c", Sort.OTHER, "a 7z archive"),
    (0, b"Rar!\x1a\x07", Sort.OTHER, "a RAR archive"),
    (0, b"MSCF\0\0\0\0", Sort.OTHER, "a cabinet archive"),
    (0, b"xar!", Sort.OTHER, "a xar archive"),
    (0, b"!<arch>\n", Sort.OTHER, "an ar archive or Debian package"),
    (0, b"\xed\xab\xee\xdb", Sort.OTHER, "an RPM package"),
    (0, b"070701", Sort.OTHER, "a cpio archive"),
    (0, b"070702", Sort.OTHER, "a cpio archive"),
    (0, b"070707", Sort.OTHER, "a cpio archive"),
    (0, b"\xc7\x71", Sort.OTHER, "a cpio archive"),
    (0, b"\x7fELF", Sort.OTHER, "a program (ELF)"),
    (0, b"%PDF-", Sort.OTHER, "a PDF document"),
    (0, b"btrfs-stream\0", Sort.OTHER, "a stream of btrfs send"),
    (8, bytes.fromhex("accbbaf502000000"), Sort.OTHER, "a stream of zfs send"),
    (0, b"#!", Sort.TEXT, "a script"),
)


def file_contents(source: Source) -> Contents | None:
    """Return the content of the source by its first bytes; None if it may be a disk.

    Raises StorageError as reading does.
    """
    head = read_bytes(source, 0, min(_LOOK_AT, source.size))
    image = looks_like(source)
    if image is not None:
        return Contents(_image_sort(image), image)
    # A tar is checked before the signatures, because it begins with a file name.
    found = _structure(head) or _signature(head)
    if found is None and source.size > _LOOK_AT:
        trailer = read_bytes(source, source.size - _LOOK_AT, len(_DMG_TRAILER))
        return Contents(Sort.IMAGE, "an Apple disk image (DMG)") if trailer == _DMG_TRAILER else None
    return found


def _structure(head: bytes) -> Contents | None:
    if _is_tar_header(head):
        return Contents(Sort.TAR, Sort.TAR.value)
    if head[DUMP_MAGIC_OFFSET : DUMP_MAGIC_OFFSET + 4] in DUMP_MAGICS:
        return Contents(Sort.DUMP, Sort.DUMP.value)
    return None


def _signature(head: bytes) -> Contents | None:
    for offset, magic, sort, what in _SIGNATURES:
        if head.startswith(magic, offset) and (len(magic) >= _SURE or not head.endswith(_BOOT_SIGNATURE)):
            return Contents(sort, what)
    line = _text(head)
    return Contents(Sort.TEXT, f"text that begins with {quoted(line[:_SHOWN])}") if line else None


def _image_sort(what: str) -> Sort:
    if what == Sort.QCOW2.value:
        return Sort.QCOW2
    return Sort.COMPRESSED if what.startswith("compressed") else Sort.IMAGE


def _is_tar_header(head: bytes) -> bool:
    """True for the header of a tar archive's member, of any age: its checksum is correct, and it has a name."""
    field = head[_TAR_CHECKSUM].strip(b" \0")
    if len(head) < _LOOK_AT or not head[0] or not field or field.strip(b"01234567"):
        return False
    others = sum(head) - sum(head[_TAR_CHECKSUM])
    return int(field, 8) == others + 8 * ord(" ")


def _text(head: bytes) -> str:
    """Return the first line of a text, "" for other bytes."""
    encoding = _BYTE_ORDER_MARKS.get(head[:2])
    if encoding is None and not _reads_as_text(head):
        return ""
    lines = head.decode(encoding or "utf-8", "replace").lstrip("\ufeff").strip().splitlines()
    return lines[0].strip() if lines else "blanks"


def _reads_as_text(head: bytes) -> bool:
    """True if there are no control characters, and most of it is ASCII: a disk may be full of 0xFF."""
    return not head.translate(None, _TEXT_BYTES) and 2 * sum(byte < 0x80 for byte in head) > len(head)
