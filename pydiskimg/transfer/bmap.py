# SPDX-License-Identifier: MIT
"""Block maps, made and read as by bmaptool: which blocks of a raw image hold data, with a checksum for each run.

    <bmap version="2.0">
        <ImageSize> 2097152 </ImageSize> <BlockSize> 4096 </BlockSize> <BlocksCount> 512 </BlocksCount> ...
        <BlockMap> <Range chksum="…"> 0-15 </Range> <Range chksum="…"> 64 </Range> </BlockMap>
    </bmap>

Versions 1.0 to 2.0 (the format's own comments in bmaptool's output).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree import ElementTree

from pydiskimg.errors import InvalidImageError, UnsupportedImageError, VerificationError
from pydiskimg.extents import Kind
from pydiskimg.protocols import Progress, Source
from pydiskimg.text import printable
from pydiskimg.transfer.meter import Meter
from pydiskimg.transfer.pieces import CHUNK_SIZE, checked_extents

MAX_SIZE = 64 << 20  # bytes of a block map; a million runs take 100 MB with bmaptool's spaces; no image has that many
_BLOCK_SIZE = 4096
_KNOWN = ("md5", "sha1", "sha224", "sha256", "sha384", "sha512")
_LARGEST = 1 << 63


@dataclass(frozen=True, slots=True)
class MappedRange:
    """Bytes start to before end hold data; checksum is hexadecimal, None if the map has none."""

    start: int
    end: int
    checksum: str | None


@dataclass(frozen=True, slots=True)
class BlockMap:
    """The map of an image of image_size bytes; ranges are ascending and disjoint; algorithm makes their checksums."""

    image_size: int
    algorithm: str
    ranges: tuple[MappedRange, ...]

    @property
    def checked_ranges(self) -> int:
        """How many ranges have a checksum."""
        return sum(one.checksum is not None for one in self.ranges)

    @property
    def checked_bytes(self) -> int:
        """How many bytes have a checksum."""
        return sum(one.end - one.start for one in self.ranges if one.checksum is not None)


def parse_bmap(data: bytes, name: str) -> BlockMap:
    """Return the block map in data. name is for messages.

    Raises InvalidImageError for one that is damaged or not a block map, UnsupportedImageError for a later version.
    """
    if len(data) > MAX_SIZE:
        raise _invalid(name, f"it has {len(data)} bytes, expected at most {MAX_SIZE}")
    if b"<!" in data.replace(b"<!--", b""):  # no expansion of a small file by a document type
        raise _invalid(name, "it has a document type, expected none")
    try:
        root = ElementTree.fromstring(data)  # noqa: S314 - without a document type there are no entities
    except ElementTree.ParseError as error:
        raise _invalid(name, f"it is not XML ({error})") from error
    version = root.get("version", "")
    if root.tag != "bmap" or not version.partition(".")[0].isdecimal():
        raise _invalid(name, f"its first element is {printable(root.tag)}, expected bmap with a version")
    if int(version.partition(".")[0][:9]) > 2:
        raise UnsupportedImageError(f"{name}: is a block map of version {printable(version)}, expected 1 or 2")
    algorithm = _text(root, "ChecksumType") or "sha1"
    if algorithm not in _KNOWN:
        raise UnsupportedImageError(f"{name}: its checksums are of the kind {printable(algorithm)}, which is not known")
    _check_own(root, data, algorithm, name)
    size, block = _number(root, "ImageSize", name), _number(root, "BlockSize", name)
    if not (0 < block <= CHUNK_SIZE and size < _LARGEST):
        raise _invalid(name, f"it states {size} bytes in blocks of {block}")
    ranges = tuple(_ranges(root, size, block, name))
    if _text(root, "MappedBlocksCount") is not None:
        stated, found = (
            _number(root, "MappedBlocksCount", name),
            sum(-((one.start - one.end) // block) for one in ranges),
        )
        if stated != found:
            raise _invalid(name, f"its ranges have {found} blocks, and it states {stated}")
    return BlockMap(size, algorithm, ranges)


def make_bmap(source: Source, *, progress: Progress | None = None) -> bytes:
    """Return a block map, version 2.0 with SHA-256, of the data of source. progress counts the bytes that are read.

    Raises as reading source does.
    """
    blocks = -(-source.size // _BLOCK_SIZE)
    meter = Meter(progress, 0 if progress is None else sum(end - start for start, end in _runs_of_data(source)))
    lines, mapped = [], 0
    for start, stop in _runs_of_data(source):
        checksum = _checksum(source, start, stop, "sha256", meter)
        first, end = start // _BLOCK_SIZE, -(-stop // _BLOCK_SIZE)
        mapped += end - first
        shown = str(first) if end == first + 1 else f"{first}-{end - 1}"
        lines.append(f'        <Range chksum="{checksum}"> {shown} </Range>')
    head = (
        ("ImageSize", source.size),
        ("BlockSize", _BLOCK_SIZE),
        ("BlocksCount", blocks),
        ("MappedBlocksCount", mapped),
        ("ChecksumType", "sha256"),
    )
    empty = "0" * hashlib.sha256().digest_size * 2
    text = "\n".join(
        (
            '<?xml version="1.0" ?>',
            '<bmap version="2.0">',
            *(f"    <{name}> {value} </{name}>" for name, value in head),
            f"    <BmapFileChecksum> {empty} </BmapFileChecksum>",
            "    <BlockMap>",
            *lines,
            "    </BlockMap>",
            "</bmap>",
            "",
        )
    ).encode()
    return text.replace(empty.encode(), hashlib.sha256(text).hexdigest().encode(), 1)


def check_by_bmap(source: Source, block_map: BlockMap, *, progress: Progress | None = None) -> None:
    """Compare the ranges of source with the checksums of the map. Raises VerificationError for the first that differs.

    progress counts the bytes that have a checksum.
    """
    meter = Meter(progress, block_map.checked_bytes)
    for one in block_map.ranges:
        if one.checksum is not None:
            found = _checksum(source, one.start, one.end, block_map.algorithm, meter)
            if found != one.checksum:
                raise VerificationError(
                    f"{source.name}: bytes {one.start} to {one.end} have the {block_map.algorithm} {found}, expected "
                    f"{one.checksum} by the block map: the image is damaged, or the disk did not keep what was written",
                    offset=one.start,
                )


def _check_own(root: ElementTree.Element, data: bytes, algorithm: str, name: str) -> None:
    """Compare the map with its own checksum, which was computed with that field empty."""
    own = _text(root, "BmapFileChecksum") or _text(root, "BmapFileSHA1")
    if own is None:
        return
    found = hashlib.new(algorithm, data.replace(own.encode(), b"0" * len(own), 1), usedforsecurity=False).hexdigest()
    if found != own.lower():
        raise _invalid(name, f"its own {algorithm} is {found}, and it states {printable(own)}")


def _ranges(root: ElementTree.Element, size: int, block: int, name: str) -> Iterator[MappedRange]:
    before = 0
    for element in root.iterfind("BlockMap/Range"):
        first, _, last = (element.text or "").strip().partition("-")
        numbers = [first.strip(), (last or first).strip()]
        if not all(number.isascii() and number.isdecimal() and len(number) < 20 for number in numbers):
            raise _invalid(name, f"a range of it is {printable(element.text or '')}, expected such as 0-15")
        start, end = int(numbers[0]) * block, min((int(numbers[1]) + 1) * block, size)
        if not before <= start < end:
            raise _invalid(
                name, f"a range of it is {printable(element.text or '')}, after one to block {before // block}"
            )
        before = end
        checksum = element.get("chksum") or element.get("sha1")
        yield MappedRange(start, end, checksum.lower() if checksum else None)


def _runs_of_data(source: Source) -> Iterator[tuple[int, int]]:
    """Yield (start, end), in bytes, of the runs of blocks that contain any data; the last may be part of a block."""
    start = end = 0
    for extent in checked_extents(source):
        if extent.kind is not Kind.DATA:
            continue
        first = extent.start - extent.start % _BLOCK_SIZE
        if first > end:
            if start < end:
                yield start, end
            start = first
        end = min(extent.end + -extent.end % _BLOCK_SIZE, source.size)
    if start < end:
        yield start, end


def _checksum(source: Source, start: int, end: int, algorithm: str, meter: Meter) -> str:
    hasher = hashlib.new(algorithm, usedforsecurity=False)
    buffer = memoryview(bytearray(min(CHUNK_SIZE, end - start)))
    for at in range(start, end, CHUNK_SIZE):
        piece = buffer[: min(CHUNK_SIZE, end - at)]
        source.read_into(at, piece)
        hasher.update(piece)
        meter.advance(len(piece))
    return hasher.hexdigest()


def _number(root: ElementTree.Element, tag: str, name: str) -> int:
    text = _text(root, tag)
    if text is None or not (text.isascii() and text.isdecimal()) or len(text) > 20:
        raise _invalid(name, f"its {tag} is {printable(text or 'missing')}, expected a number")
    return int(text)


def _text(root: ElementTree.Element, tag: str) -> str | None:
    text = (root.findtext(tag) or "").strip()
    return text or None


def _invalid(name: str, problem: str) -> InvalidImageError:
    return InvalidImageError(f"{name}: is not a block map that can be used: {problem}")
