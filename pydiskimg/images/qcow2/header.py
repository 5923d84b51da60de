# SPDX-License-Identifier: MIT
"""The header of a qcow2 file and its extensions: parsed, with every number checked, and its description of the image.

It imports only the layout: the fastest commands come through here.
"""

from __future__ import annotations

import os

from pydiskimg.errors import InvalidImageError, UnsupportedImageError
from pydiskimg.images.qcow2 import layout
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from pydiskimg.protocols import Addressable, Source


class Header:
    """The fields of the header under the specification's names; all within their limits. Made by read_header().

    size and the offsets are bytes, l1_size is entries. compression_type is "zlib" or "zstd". extensions are the data of
    the header extensions, by type and in their order. backing_file, backing_format and data_file are the image's own
    names, None if missing: the files were not looked up, and the bytes are arbitrary.
    """

    version: int
    cluster_bits: int
    size: int
    crypt_method: int
    l1_size: int
    l1_table_offset: int
    refcount_table_offset: int
    refcount_table_clusters: int
    nb_snapshots: int
    snapshots_offset: int
    incompatible_features: int
    compatible_features: int
    autoclear_features: int
    refcount_order: int
    header_length: int
    compression_type: str
    backing_file: bytes | None
    extensions: dict[int, bytes]

    @property
    def backing_format(self) -> bytes | None:
        """The format of the backing file; None if the image does not state it."""
        return self.extensions.get(layout.EXTENSION_BACKING_FORMAT) or None

    @property
    def data_file(self) -> bytes | None:
        """The name of the external data file; None if the image does not state it."""
        return self.extensions.get(layout.EXTENSION_DATA_FILE) or None

    @property
    def cluster_size(self) -> int:
        """Bytes in a cluster."""
        return 1 << self.cluster_bits

    @property
    def l2_entry_size(self) -> int:
        """Bytes in an L2 entry: 8, or 16 with subclusters."""
        return layout.EXTENDED_ENTRY_SIZE if self.extended_l2 else layout.ENTRY_SIZE

    @property
    def l2_entries(self) -> int:
        """Entries in an L2 table, which fills one cluster."""
        return self.cluster_size // self.l2_entry_size

    @property
    def l2_span(self) -> int:
        """Bytes of the virtual disk that one L2 table maps."""
        return self.l2_entries * self.cluster_size

    @property
    def l1_entries_used(self) -> int:
        """L1 entries that the virtual disk needs; further ones map the state of saved machines."""
        return -(-self.size // self.l2_span)

    @property
    def subcluster_size(self) -> int:
        """Bytes that are allocated at once: a cluster, or a 32nd of it."""
        return self.cluster_size // layout.SUBCLUSTERS if self.extended_l2 else self.cluster_size

    @property
    def compressed_offset_bits(self) -> int:
        """Bits of an offset in the L2 entry of a compressed cluster; those above them are a number of sectors."""
        return 62 - (self.cluster_bits - 8)

    def compressed_at(self, entry: int) -> tuple[int, int]:
        """Return (offset, length) in the file of a compressed cluster's data; length is exact to one sector."""
        bits = self.compressed_offset_bits
        offset = entry & ((1 << bits) - 1)
        sectors = ((entry & (layout.L2_COMPRESSED - 1)) >> bits) + 1
        return offset, sectors * layout.SECTOR - offset % layout.SECTOR

    @property
    def refcount_bits(self) -> int:
        """Width of a reference count: a power of two from 1 to 64."""
        return 1 << self.refcount_order

    @property
    def dirty(self) -> bool:
        """True if reference counts may be wrong; reading is not affected."""
        return bool(self.incompatible_features & layout.INCOMPATIBLE_DIRTY)

    @property
    def corrupt(self) -> bool:
        """True if the last writer found the image corrupt."""
        return bool(self.incompatible_features & layout.INCOMPATIBLE_CORRUPT)

    @property
    def extended_l2(self) -> bool:
        """True if L2 entries have subclusters."""
        return bool(self.incompatible_features & layout.INCOMPATIBLE_EXTENDED_L2)

    @property
    def has_data_file(self) -> bool:
        """True if the guest's clusters are in another file, which data_file should name."""
        return bool(self.incompatible_features & layout.INCOMPATIBLE_DATA_FILE)

    @property
    def names_files(self) -> bool:
        """True if the image has a backing file, or keeps its data in another file."""
        return self.backing_file is not None or self.has_data_file

    @property
    def data_file_raw(self) -> bool:
        """True if the external data file is also a raw image of the disk."""
        return self.has_data_file and bool(self.autoclear_features & layout.AUTOCLEAR_DATA_FILE_RAW)

    @property
    def lazy_refcounts(self) -> bool:
        """True if writers may leave the reference counts outdated, with the dirty bit set."""
        return bool(self.compatible_features & layout.COMPATIBLE_LAZY_REFCOUNTS)

    @property
    def has_bitmaps(self) -> bool:
        """True if the image has dirty bitmaps that agree with its data."""
        return layout.EXTENSION_BITMAPS in self.extensions and bool(self.autoclear_features & layout.AUTOCLEAR_BITMAPS)


def read_header(file: Addressable, *, tables_inside: bool = True) -> Header:
    """Read and check the header of the qcow2 file.

    tables_inside False permits tables that begin beyond the end of the file or in the header's cluster, and a missing
    refcount table.

    Raises InvalidImageError if it contradicts the specification, UnsupportedImageError if it needs a feature or a
    version that is not known here. require_readable() checks whether the image can be read.
    """
    return _Parser(file, tables_inside=tables_inside).parse()


class _Parser:
    """The state of reading one header: every check may use the file's name and size."""

    def __init__(self, file: Addressable, *, tables_inside: bool) -> None:
        self.file = file
        self.name = file.name
        self.tables_inside = tables_inside
        self.header = Header()
        self.head = b""

    def parse(self) -> Header:
        fields = self._fixed_fields()
        header = self.header
        vars(header).update(fields)
        header.compression_type = self._compression_type(fields["compression_type"])
        self._check_features_and_extensions(fields["backing_file_offset"], fields["backing_file_size"])
        self._check_numbers()
        self._check_tables()
        return header

    def _invalid(self, text: str) -> InvalidImageError:
        return InvalidImageError(f"{self.name}: qcow2 header: {text}; the image is truncated or corrupt")

    def _fixed_fields(self) -> dict[str, Any]:
        """Return the fields of the header, and keep the first cluster: the header does not reach beyond it."""
        fields = _fields(self._read(layout.HEADER_LENGTH_V2))
        self._check_magic(fields["magic"], fields["version"])
        self._check_cluster_bits(fields["cluster_bits"])
        cluster_size, length = 1 << fields["cluster_bits"], layout.HEADER_LENGTH_V2
        if fields["version"] == 3:
            length = _fields(self._read(layout.MIN_HEADER_LENGTH_V3))["header_length"]
            self._check_header_length(length, cluster_size)
        self.head = self._read(min(cluster_size, self.file.size))
        fields = _fields(self.head[:length])
        # The values that the specification assumes for version 2.
        return fields if fields["version"] == 3 else fields | {"refcount_order": 4, "header_length": length}

    def _check_magic(self, magic: bytes, version: int) -> None:
        if magic != layout.MAGIC:
            found, expected = magic.hex(" "), layout.MAGIC.hex(" ")
            raise InvalidImageError(f"{self.name}: not a qcow2 image: it starts with {found}, expected {expected}")
        if version not in (2, 3):
            raise UnsupportedImageError(
                f"{self.name}: is a qcow image of version {version}, and versions 2 and 3 are read; "
                "convert it with: qemu-img convert -O qcow2 OLD NEW"
            )

    def _read(self, length: int) -> bytes:
        if length > self.file.size:
            raise self._invalid(f"the file ends at byte {self.file.size}, inside the first {length} bytes")
        buffer = bytearray(length)
        self.file.read_into(0, buffer)
        return bytes(buffer)

    def _check_cluster_bits(self, bits: int) -> None:
        if not layout.MIN_CLUSTER_BITS <= bits <= layout.MAX_CLUSTER_BITS:
            raise self._invalid(
                f"cluster_bits is {bits}, expected {layout.MIN_CLUSTER_BITS} to {layout.MAX_CLUSTER_BITS}"
            )

    def _check_header_length(self, length: int, cluster_size: int) -> None:
        if length < layout.MIN_HEADER_LENGTH_V3 or length % 8 or length > cluster_size:
            raise self._invalid(
                f"header_length is {length}, expected a multiple of 8 from {layout.MIN_HEADER_LENGTH_V3} to the "
                f"cluster size {cluster_size}"
            )
        if length > self.file.size:
            raise self._invalid(f"header_length is {length}, and the file has {self.file.size} bytes")

    def _compression_type(self, number: int) -> str:
        flagged = bool(self.header.incompatible_features & layout.INCOMPATIBLE_COMPRESSION_TYPE)
        if flagged != (number != layout.COMPRESSION_ZLIB):
            raise self._invalid(f"compression_type is {number} while the compression type bit is {int(flagged)}")
        if number == layout.COMPRESSION_ZLIB:
            return "zlib"
        if number == layout.COMPRESSION_ZSTD:
            return "zstd"
        raise UnsupportedImageError(
            f"{self.name}: is compressed by method {number}, and zlib (0) and zstd (1) are read"
        )

    def _check_features_and_extensions(self, backing_offset: int, backing_size: int) -> None:
        header = self.header
        # They end where the backing file's name begins.
        end = backing_offset if 0 < backing_offset < len(self.head) else len(self.head)
        header.extensions = self._extensions(header.header_length, end)
        header.backing_file = self._backing_name(backing_offset, backing_size)
        if unknown := header.incompatible_features & ~layout.INCOMPATIBLE_KNOWN:
            features = _feature_list(unknown, header.extensions.get(layout.EXTENSION_FEATURE_NAMES, b""))
            raise UnsupportedImageError(
                f"{self.name}: needs {features}, which a reader must know and this one does "
                "not; convert it with the program that made it"
            )
        if header.extended_l2 and header.cluster_bits < layout.MIN_EXTENDED_CLUSTER_BITS:
            raise self._invalid(
                f"clusters have {header.cluster_size} bytes, and extended L2 entries (subclusters) need at least "
                f"{1 << layout.MIN_EXTENDED_CLUSTER_BITS}"
            )

    def _extensions(self, at: int, end: int) -> dict[int, bytes]:
        """Return the data of the extensions in [at, end) of the first cluster; of several of one type the last."""
        found: dict[int, bytes] = {}
        while at + layout.EXTENSION.size <= end:
            kind, length = layout.EXTENSION.unpack(self.head, at).values()
            at += layout.EXTENSION.size
            if length > end - at:
                raise self._invalid(
                    f"the extension 0x{kind:08x} at byte {at - layout.EXTENSION.size} has {length} bytes, and "
                    f"{end - at} are left in the first cluster"
                )
            if kind == layout.EXTENSION_END:
                break
            found[kind] = self.head[at : at + length]
            at += -(-length // 8) * 8
        return found

    def _backing_name(self, offset: int, size: int) -> bytes | None:
        if not offset or (not size and offset <= self.header.cluster_size):
            return None
        if size > layout.MAX_BACKING_FILE_SIZE:
            raise self._invalid(
                f"the backing file's name has {size} bytes, at most {layout.MAX_BACKING_FILE_SIZE} are allowed"
            )
        if offset + size > len(self.head):
            raise self._invalid(
                f"the backing file's name is at bytes {offset} to {offset + size}, outside of the first cluster"
            )
        return self.head[offset : offset + size]

    def _check_numbers(self) -> None:
        header = self.header
        if header.refcount_order > layout.MAX_REFCOUNT_ORDER:
            raise self._invalid(
                f"refcount_order is {header.refcount_order}, at most {layout.MAX_REFCOUNT_ORDER} is allowed"
            )
        if header.size >= 1 << 63:
            raise self._invalid(f"the virtual size is {header.size} bytes, and no disk is larger than 2^63 - 1")
        if header.l1_size * layout.ENTRY_SIZE > layout.MAX_L1_TABLE_SIZE:
            raise self._invalid(
                f"the L1 table has {header.l1_size} entries, "
                f"at most {layout.MAX_L1_TABLE_SIZE // layout.ENTRY_SIZE} are allowed"
            )
        if header.l1_size < header.l1_entries_used:
            from pydiskimg.units import format_bytes

            raise self._invalid(
                f"the L1 table has {header.l1_size} entries, and a virtual size of {format_bytes(header.size)} "
                f"needs {header.l1_entries_used}"
            )
        if header.nb_snapshots > layout.MAX_SNAPSHOTS:
            raise self._invalid(
                f"there are {header.nb_snapshots} snapshots, at most {layout.MAX_SNAPSHOTS} are allowed"
            )
        refcount_size = header.refcount_table_clusters << header.cluster_bits
        least = 1 if self.tables_inside else 0
        if not least <= refcount_size <= layout.MAX_REFCOUNT_TABLE_SIZE:
            raise self._invalid(
                f"the refcount table has {header.refcount_table_clusters} clusters, expected at least one and at most "
                f"{layout.MAX_REFCOUNT_TABLE_SIZE} bytes"
            )

    def _check_tables(self) -> None:
        header = self.header
        self._check_table("L1 table", header.l1_table_offset, header.l1_size * layout.ENTRY_SIZE)
        self._check_table("refcount table", header.refcount_table_offset, 1)
        self._check_table("snapshot table", header.snapshots_offset, min(header.nb_snapshots, 1))

    def _check_table(self, what: str, offset: int, length: int) -> None:
        """length is the part that must be inside the file: the read part of the table, or one byte to check that it
        exists.
        """
        if not length:
            return
        cluster_size = self.header.cluster_size
        if offset % cluster_size:
            raise self._invalid(
                f"the {what} is at offset 0x{offset:x}, not a multiple of the cluster size {cluster_size}"
            )
        if offset < cluster_size and self.tables_inside:
            raise self._invalid(f"the {what} is at offset 0x{offset:x}, inside the header's cluster")
        if offset + length > (self.file.size if self.tables_inside else layout.MAX_FILE_SIZE):
            raise self._invalid(
                f"the {what} at 0x{offset:x} ends at 0x{offset + length:x}, beyond the end of the file "
                f"(0x{self.file.size:x})"
            )


def _fields(head: bytes) -> dict[str, Any]:
    return layout.HEADER.unpack(head.ljust(layout.HEADER.size, b"\0"))


def _feature_list(unknown: int, names: bytes) -> str:
    """Return "incompatible features 5 ('name'), 6" for the unknown bits; names is the feature name table."""
    from pydiskimg.text import quoted  # imported here, for an image that is refused

    size = layout.FEATURE_NAME.size
    padded = names + bytes(-len(names) % size)  # the last name may be cut short
    entries = (layout.FEATURE_NAME.unpack(padded, at) for at in range(0, len(padded), size))
    table = {entry["bit"]: entry["name"].partition(b"\0")[0] for entry in entries if entry["type"] == 0}
    numbers = [bit for bit in range(64) if unknown >> bit & 1]
    texts = [f"{bit} ({quoted(table[bit])})" if bit in table else str(bit) for bit in numbers[:4]]
    more = f" and {len(numbers) - 4} more" if len(numbers) > 4 else ""
    return f"incompatible feature{'s' if len(numbers) > 1 else ''} {', '.join(texts)}{more}"


def require_readable(header: Header, name: str) -> None:
    """Raise UnsupportedImageError if the image's data cannot be read; name is the image's, for the text."""
    if header.crypt_method != layout.CRYPT_NONE:
        raise UnsupportedImageError(
            f"{name}: is encrypted with {encryption(header)}, and encrypted images cannot be read; decrypt it with "
            "qemu-img convert"
        )


def warn_of_corruption(header: Header, name: str) -> None:
    """Log a warning for an image that is marked corrupt: it is read, as by QEMU, because its tables are checked."""
    if not header.corrupt:
        return
    import logging  # imported here: it takes long to import

    from pydiskimg.text import printable

    logging.getLogger(__name__).warning(
        "%s: is marked corrupt by the program that wrote it last; it is read nevertheless, and its contents may be "
        "wrong; repair it with: pydiskimg check -r all",
        printable(name),  # logging prints its arguments unchanged, including escape sequences
    )


def require_sound(header: Header, name: str) -> None:
    """Raise UnsupportedImageError for an image that is marked corrupt: it must not be written or relied on."""
    if header.corrupt:
        raise UnsupportedImageError(
            f"{name}: is marked corrupt by the program that wrote it last; repair it with: pydiskimg check -r all"
        )


def require_changeable(header: Header, name: str) -> None:
    """Raise UnsupportedImageError for an image that is encrypted, marked corrupt or not closed; name is the image's."""
    require_sound(header, name)
    require_readable(header, name)
    if header.dirty:
        raise UnsupportedImageError(
            f"{name}: was not closed by its last writer, so that its reference counts may be wrong; "
            "repair it before it is written, with: pydiskimg check -r all"
        )


def require_resizable(header: Header, name: str) -> None:
    """Raise UnsupportedImageError for an image whose size cannot be changed; name is for its text."""
    if header.nb_snapshots and header.version < 3:
        raise UnsupportedImageError(
            f"{name}: an image of version 2 (0.10) cannot change its size with snapshots; delete them first"
        )


def encryption(header: Header) -> str:
    """Return the method of encryption, for people: LUKS, AES, or unknown."""
    if header.crypt_method == layout.CRYPT_LUKS:
        return "LUKS"
    return "AES" if header.crypt_method == layout.CRYPT_AES else f"an unknown method ({header.crypt_method})"


def image_facts(file: Source, path: str, *, stored: int | None) -> dict[str, Any]:
    """Return the facts of `qemu-img info --output=json`; path is shown for file, which takes stored bytes.

    Files that the image names are not opened: the description is from its own bytes alone, even for a corrupt or
    encrypted image. Code for features of few images is imported only for those. Snapshots and bitmaps, of which there
    may be thousands, are iterators: they can be printed once. Raises InvalidImageError, UnsupportedImageError and
    StorageError.
    """
    header = read_header(file)
    facts: dict[str, Any] = {"virtual-size": header.size, "filename": path, "cluster-size": header.cluster_size}
    facts |= {"format": "qcow2"} | ({} if stored is None else {"actual-size": stored}) | {"dirty-flag": header.dirty}
    if header.crypt_method != layout.CRYPT_NONE:
        facts["encrypted"] = True
    if header.backing_file:
        facts["backing-filename"] = backing = os.fsdecode(header.backing_file)
        facts["full-backing-filename"] = full_backing_filename(path, backing)
        if header.backing_format:
            facts["backing-filename-format"] = os.fsdecode(header.backing_format)
    if header.nb_snapshots:
        from pydiskimg.images.qcow2.snapshots import read_snapshots, snapshot_facts

        facts["snapshots"] = snapshot_facts(read_snapshots(file, header))
    facts["format-specific"] = {"type": "qcow2", "data": _format_data(file, header)}
    return facts


def full_backing_filename(path: str, backing: str) -> str:
    """Return the path of the backing file of the image at path: relative to the image, unless the name is absolute.

    A name with a protocol (nbd://host, json:{...}) is absolute too.
    """
    has_protocol = ":" in backing.partition("/")[0]
    if has_protocol or backing.startswith("/"):
        return backing
    return path[: path.rfind("/") + 1] + backing


def _format_data(file: Source, header: Header) -> dict[str, Any]:
    data: dict[str, Any] = {
        "compat": "1.1" if header.version == 3 else "0.10",
        "compression-type": header.compression_type,
    }
    if header.version == 3:
        data["lazy-refcounts"] = header.lazy_refcounts
    if header.has_bitmaps:
        from pydiskimg.images.qcow2.bitmaps import read_bitmaps

        if bitmaps := read_bitmaps(file, header):
            data["bitmaps"] = ({"flags": b.flags, "name": b.name, "granularity": b.granularity} for b in bitmaps)
    data["refcount-bits"] = header.refcount_bits
    if header.has_data_file:
        if header.data_file:
            data["data-file"] = os.fsdecode(header.data_file)
        data["data-file-raw"] = header.data_file_raw
    if header.crypt_method != layout.CRYPT_NONE:
        from pydiskimg.images.qcow2.luks import encryption_facts

        data["encrypt"] = encryption_facts(file, header)
    if header.version == 3:
        data["corrupt"] = header.corrupt
        data["extended-l2"] = header.extended_l2
    return data
