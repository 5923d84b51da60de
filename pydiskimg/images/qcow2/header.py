# SPDX-License-Identifier: MIT
"""The header of a qcow2 file: read, and every number in it bounded.

Imports nothing but the layout: the fastest commands come through here.
"""

from __future__ import annotations

from pydiskimg.errors import InvalidImageError, UnsupportedImageError
from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.extensions import extensions_of, feature_list

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pydiskimg.protocols import Source


class Header:
    """The fields of the header under the specification's names; all within their limits. Made by read_header().

    size and the offsets are bytes, l1_size is entries. compression_type is "zlib" or "zstd". backing_file,
    backing_format and data_file are what the image says, None where it says nothing: nobody has looked whether
    there is such a file, and the bytes may be anything. extension_types are all of the header extensions.
    """

    __slots__ = (
        "autoclear_features",
        "backing_file",
        "backing_format",
        "cluster_bits",
        "compatible_features",
        "compression_type",
        "crypt_method",
        "data_file",
        "extension_types",
        "header_length",
        "incompatible_features",
        "l1_size",
        "l1_table_offset",
        "nb_snapshots",
        "refcount_order",
        "refcount_table_clusters",
        "refcount_table_offset",
        "size",
        "snapshots_offset",
        "version",
    )

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
    backing_format: bytes | None
    data_file: bytes | None
    extension_types: tuple[int, ...]

    @property
    def cluster_size(self) -> int:
        """Bytes in a cluster."""
        return 1 << self.cluster_bits

    @property
    def l2_entry_size(self) -> int:
        """Bytes in an L2 entry: 8, or 16 where it has subclusters."""
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
        """L1 entries that the virtual disk needs; any further ones map the state of saved machines."""
        return -(-self.size // self.l2_span)

    @property
    def subcluster_size(self) -> int:
        """Bytes that are allocated at once: a cluster, or a 32nd of it."""
        return self.cluster_size // layout.SUBCLUSTERS if self.extended_l2 else self.cluster_size

    @property
    def compressed_offset_bits(self) -> int:
        """Bits that an offset has in the L2 entry of a compressed cluster; those above them are a number of sectors."""
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
        """True when reference counts may be wrong; reading is not affected."""
        return bool(self.incompatible_features & layout.INCOMPATIBLE_DIRTY)

    @property
    def corrupt(self) -> bool:
        """True when the last writer found the image corrupt."""
        return bool(self.incompatible_features & layout.INCOMPATIBLE_CORRUPT)

    @property
    def extended_l2(self) -> bool:
        """True when L2 entries have subclusters."""
        return bool(self.incompatible_features & layout.INCOMPATIBLE_EXTENDED_L2)

    @property
    def has_data_file(self) -> bool:
        """True when the clusters of the guest are in another file, which data_file should name."""
        return bool(self.incompatible_features & layout.INCOMPATIBLE_DATA_FILE)

    @property
    def data_file_raw(self) -> bool:
        """True when the external data file is at the same time a raw image of the disk."""
        return self.has_data_file and bool(self.autoclear_features & layout.AUTOCLEAR_DATA_FILE_RAW)

    @property
    def lazy_refcounts(self) -> bool:
        """True when writers may leave the reference counts behind, with the dirty bit set."""
        return bool(self.compatible_features & layout.COMPATIBLE_LAZY_REFCOUNTS)

    @property
    def has_bitmaps(self) -> bool:
        """True when the image holds dirty bitmaps that agree with its data."""
        present = layout.EXTENSION_BITMAPS in self.extension_types
        return present and bool(self.autoclear_features & layout.AUTOCLEAR_BITMAPS)


def read_header(file: Source, *, tables_inside: bool = True) -> Header:
    """Read and check the header of the qcow2 file.

    False for tables_inside lets tables begin beyond the end of the file or in the header's cluster, and lets there be
    no refcount table.

    Raises InvalidImageError when it contradicts the specification, UnsupportedImageError when it needs a feature
    that nobody knows here, or a version. That the image can be read is more: see require_readable().
    """
    return _Parser(file, tables_inside=tables_inside).parse()


class _Parser:
    """One reading of one header: every check may use the file's name and size."""

    def __init__(self, file: Source, *, tables_inside: bool) -> None:
        self.file = file
        self.name = file.name
        self.tables_inside = tables_inside
        self.header = Header()
        self.head = b""

    def parse(self) -> Header:
        backing_offset, backing_size = self._fixed_fields()
        self._check_features_and_extensions(backing_offset, backing_size)
        self._check_numbers()
        self._check_tables()
        return self.header

    def _invalid(self, text: str) -> InvalidImageError:
        return InvalidImageError(f"{self.name}: qcow2 header: {text}; the image is truncated or corrupt")

    def _fixed_fields(self) -> tuple[int, int]:
        """Set the fields at fixed places; returns where the name of the backing file is: offset, size."""
        header = self.header
        magic, version, backing_offset, backing_size, cluster_bits, header.size, header.crypt_method, *tables = (
            layout.HEADER_V2.unpack(self._read(layout.HEADER_V2.size))
        )
        self._check_magic(magic, version)
        self._check_cluster_bits(cluster_bits)
        header.version, header.cluster_bits = version, cluster_bits
        header.l1_size, header.l1_table_offset, *tables = tables
        header.refcount_table_offset, header.refcount_table_clusters, *tables = tables
        header.nb_snapshots, header.snapshots_offset = tables
        (
            header.incompatible_features,
            header.compatible_features,
            header.autoclear_features,
            header.refcount_order,
            header.header_length,
        ) = self._version_3_fields(version)
        if version == 3:
            self._check_header_length(header.header_length, header.cluster_size)
        # Extensions and names live in the first cluster; nothing beyond it belongs to the header.
        self.head = self._read(min(header.cluster_size, self.file.size))
        header.compression_type = self._compression_type()
        return backing_offset, backing_size

    def _version_3_fields(self, version: int) -> tuple[int, ...]:
        """The fields from incompatible_features to header_length; for version 2 what the specification assumes."""
        if version == 2:
            return 0, 0, 0, 4, layout.HEADER_V2.size
        whole = layout.HEADER_V2.size + layout.HEADER_V3.size
        return layout.HEADER_V3.unpack_from(self._read(whole), layout.HEADER_V2.size)

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
        if length < 104 or length % 8 or length > cluster_size:
            raise self._invalid(
                f"header_length is {length}, expected a multiple of 8 from 104 to the cluster size {cluster_size}"
            )
        if length > self.file.size:
            raise self._invalid(f"header_length is {length}, and the file has {self.file.size} bytes")

    def _compression_type(self) -> str:
        at = layout.COMPRESSION_TYPE_OFFSET
        number = self.head[at] if self.header.header_length > at else layout.COMPRESSION_ZLIB
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
        header.extension_types, data = extensions_of(self.head, header.header_length, name=self.name)
        header.backing_file = self._backing_name(backing_offset, backing_size)
        header.backing_format = data.get(layout.EXTENSION_BACKING_FORMAT) or None
        header.data_file = data.get(layout.EXTENSION_DATA_FILE) or None
        if unknown := header.incompatible_features & ~layout.INCOMPATIBLE_KNOWN:
            features = feature_list(unknown, data.get(layout.EXTENSION_FEATURE_NAMES, b""))
            raise UnsupportedImageError(
                f"{self.name}: needs {features}, which a reader must know and this one does "
                "not; convert it with the program that made it"
            )
        if header.extended_l2 and header.cluster_bits < layout.MIN_EXTENDED_CLUSTER_BITS:
            raise self._invalid(
                f"clusters have {header.cluster_size} bytes, and extended L2 entries (subclusters) need at least "
                f"{1 << layout.MIN_EXTENDED_CLUSTER_BITS}"
            )

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
        """length is what must be inside the file: what is read of the table, or one byte to see that it is there."""
        if not length:
            return
        cluster_size = self.header.cluster_size
        if offset % cluster_size:
            raise self._invalid(
                f"the {what} is at offset 0x{offset:x}, which is no multiple of the cluster size {cluster_size}"
            )
        if offset < cluster_size and self.tables_inside:
            raise self._invalid(f"the {what} is at offset 0x{offset:x}, inside the header's cluster")
        if offset + length > (self.file.size if self.tables_inside else layout.MAX_FILE_SIZE):
            raise self._invalid(
                f"the {what} at 0x{offset:x} ends at 0x{offset + length:x}, beyond the end of the file "
                f"(0x{self.file.size:x})"
            )
