# SPDX-License-Identifier: MIT
"""The header of a qcow2 file: read, bounded, and refused where it asks for what is not read here."""

from __future__ import annotations

from dataclasses import dataclass

from pydiskimg.errors import InvalidImageError, UnsupportedImageError
from pydiskimg.formats.qcow2 import layout
from pydiskimg.protocols import Source, read_bytes
from pydiskimg.units import format_bytes

_TELLING_EXTENSIONS = (layout.EXTENSION_BACKING_FORMAT, layout.EXTENSION_FEATURE_NAMES, layout.EXTENSION_DATA_FILE)


@dataclass(frozen=True, slots=True)
class Header:
    """The fields of the header that matter to a reader, under the specification's names; all within their limits.

    size and the offsets are bytes, l1_size is entries. compression_type is "zlib" or "zstd".
    """

    version: int
    cluster_bits: int
    size: int
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

    @property
    def cluster_size(self) -> int:
        """Bytes in a cluster."""
        return 1 << self.cluster_bits

    @property
    def l2_entries(self) -> int:
        """Entries in an L2 table, which fills one cluster."""
        return self.cluster_size // layout.ENTRY_SIZE

    @property
    def l2_span(self) -> int:
        """Bytes of the virtual disk that one L2 table maps."""
        return self.l2_entries * self.cluster_size

    @property
    def l1_entries_used(self) -> int:
        """L1 entries that the virtual disk needs; any further ones map the state of saved machines."""
        return -(-self.size // self.l2_span)


def read_header(file: Source) -> Header:
    """Read and check the header of the qcow2 file.

    Raises InvalidImageError when it contradicts the specification, UnsupportedImageError when it is valid and
    asks for a feature that is not read here.
    """
    return _Parser(file).parse()


class _Parser:
    """One reading of one header: every check may use the file's name and size."""

    def __init__(self, file: Source) -> None:
        self.file = file
        self.name = file.name
        self.head = b""
        self.backing_offset = self.backing_size = self.crypt_method = 0

    def parse(self) -> Header:
        header = self._fields()
        self._check_features(header)
        self._check_references(header)
        self._check_tables(header)
        return header

    def _invalid(self, text: str) -> InvalidImageError:
        return InvalidImageError(f"{self.name}: qcow2 header: {text}; the image is truncated or corrupt")

    def _fields(self) -> Header:
        magic, version, backing_offset, backing_size, cluster_bits, size, crypt_method, *tables = (
            layout.HEADER_V2.unpack(self._read(layout.HEADER_V2.size))
        )
        self._check_magic(magic, version)
        self._check_cluster_bits(cluster_bits)
        self.backing_offset, self.backing_size, self.crypt_method = backing_offset, backing_size, crypt_method
        incompatible, compatible, autoclear, refcount_order, header_length = self._version_3_fields(version)
        if version == 3:
            self._check_header_length(header_length, 1 << cluster_bits)
        # Extensions and names live in the first cluster; nothing beyond it belongs to the header.
        self.head = self._read(min(1 << cluster_bits, self.file.size))
        l1_size, l1_table_offset, refcount_table_offset, refcount_table_clusters, snapshots, snapshots_offset = tables
        return Header(
            version=version,
            cluster_bits=cluster_bits,
            size=size,
            l1_size=l1_size,
            l1_table_offset=l1_table_offset,
            refcount_table_offset=refcount_table_offset,
            refcount_table_clusters=refcount_table_clusters,
            nb_snapshots=snapshots,
            snapshots_offset=snapshots_offset,
            incompatible_features=incompatible,
            compatible_features=compatible,
            autoclear_features=autoclear,
            refcount_order=refcount_order,
            header_length=header_length,
            compression_type=self._compression_type(incompatible, header_length),
        )

    def _version_3_fields(self, version: int) -> tuple[int, ...]:
        """The fields from incompatible_features to header_length; for version 2 what the specification assumes."""
        if version == 2:
            return 0, 0, 0, 4, layout.HEADER_V2.size
        whole = layout.HEADER_V2.size + layout.HEADER_V3.size
        return layout.HEADER_V3.unpack_from(self._read(whole), layout.HEADER_V2.size)

    def _check_magic(self, magic: bytes, version: int) -> None:
        if magic != layout.MAGIC:
            raise InvalidImageError(f"{self.name}: not a qcow2 image: it starts with {magic!r}, not {layout.MAGIC!r}")
        if version not in (2, 3):
            raise UnsupportedImageError(
                f"{self.name}: is a qcow image of version {version}, and versions 2 and 3 are read; "
                "convert it with: qemu-img convert -O qcow2 OLD NEW"
            )

    def _read(self, length: int) -> bytes:
        if length > self.file.size:
            raise self._invalid(f"the file ends at byte {self.file.size}, inside the first {length} bytes")
        return read_bytes(self.file, 0, length)

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

    def _compression_type(self, incompatible: int, header_length: int) -> str:
        at = layout.COMPRESSION_TYPE_OFFSET
        number = self.head[at] if header_length > at else layout.COMPRESSION_ZLIB
        flagged = bool(incompatible & layout.INCOMPATIBLE_COMPRESSION_TYPE)
        if flagged != (number != layout.COMPRESSION_ZLIB):
            raise self._invalid(f"compression_type is {number} while the compression type bit is {int(flagged)}")
        try:
            return {layout.COMPRESSION_ZLIB: "zlib", layout.COMPRESSION_ZSTD: "zstd"}[number]
        except KeyError:
            raise UnsupportedImageError(
                f"{self.name}: is compressed by method {number}, and zlib (0) and zstd (1) are read"
            ) from None

    def _check_features(self, header: Header) -> None:
        bits = header.incompatible_features
        if unknown := bits & ~layout.INCOMPATIBLE_KNOWN:
            raise UnsupportedImageError(
                f"{self.name}: needs {self._feature_list(header, unknown)}, which a reader must know and this one does "
                "not; convert it with the program that made it"
            )
        if bits & layout.INCOMPATIBLE_CORRUPT:
            raise UnsupportedImageError(
                f"{self.name}: is marked corrupt by the program that wrote it last; "
                "repair it with: qemu-img check -r all"
            )
        if bits & layout.INCOMPATIBLE_DATA_FILE:
            data_file = self._extensions(header).get(layout.EXTENSION_DATA_FILE, b"")
            raise UnsupportedImageError(
                f"{self.name}: keeps its data in the external file {_quoted(data_file)}, and external data files are "
                "not read; convert it with: qemu-img convert -O qcow2 OLD NEW"
            )
        if bits & layout.INCOMPATIBLE_EXTENDED_L2:
            raise UnsupportedImageError(
                f"{self.name}: has extended L2 entries (subclusters), which are not read; "
                "convert it with: qemu-img convert -O qcow2 OLD NEW"
            )

    def _check_references(self, header: Header) -> None:
        if self.crypt_method:
            known = {layout.CRYPT_AES: "AES", layout.CRYPT_LUKS: "LUKS"}
            method = known.get(self.crypt_method, f"an unknown method ({self.crypt_method})")
            raise UnsupportedImageError(
                f"{self.name}: is encrypted with {method}, and encrypted images are not read; "
                "decrypt it with qemu-img convert"
            )
        if self.backing_offset and self.backing_size:
            backing = self._backing_name()
            kind = self._extensions(header).get(layout.EXTENSION_BACKING_FORMAT)
            of_format = f" (format {_quoted(kind)})" if kind else ""
            raise UnsupportedImageError(
                f"{self.name}: has the backing file {_quoted(backing)}{of_format}, and backing files are not read; "
                "merge the two with: qemu-img convert -O qcow2 OLD NEW"
            )
        self._extensions(header)

    def _backing_name(self) -> bytes:
        if self.backing_size > layout.MAX_BACKING_FILE_SIZE:
            raise self._invalid(
                f"the backing file's name has {self.backing_size} bytes, "
                f"at most {layout.MAX_BACKING_FILE_SIZE} are allowed"
            )
        end = self.backing_offset + self.backing_size
        if end > len(self.head):
            raise self._invalid(
                f"the backing file's name is at bytes {self.backing_offset} to {end}, outside of the first cluster"
            )
        return self.head[self.backing_offset : end]

    def _extensions(self, header: Header) -> dict[int, bytes]:
        """The header extensions that say something about a refusal, by type; the last of a type wins."""
        found: dict[int, bytes] = {}
        end = len(self.head)
        if 0 < self.backing_offset < end:
            end = self.backing_offset
        at = header.header_length
        while at + layout.EXTENSION.size <= end:
            kind, length = layout.EXTENSION.unpack_from(self.head, at)
            if kind == layout.EXTENSION_END:
                break
            at += layout.EXTENSION.size
            if length > end - at:
                raise self._invalid(
                    f"the extension 0x{kind:08x} at byte {at - layout.EXTENSION.size} has {length} bytes, "
                    f"and {end - at} are left in the first cluster"
                )
            if kind in _TELLING_EXTENSIONS:
                found[kind] = self.head[at : at + length]
            at += -(-length // 8) * 8
        return found

    def _feature_list(self, header: Header, unknown: int) -> str:
        names = self._extensions(header).get(layout.EXTENSION_FEATURE_NAMES, b"")
        whole = len(names) - len(names) % layout.FEATURE_NAME.size
        table = {bit: name for kind, bit, name in layout.FEATURE_NAME.iter_unpack(names[:whole]) if kind == 0}
        table = {bit: name.rstrip(b"\0") for bit, name in table.items()}
        numbers = [bit for bit in range(64) if unknown >> bit & 1]
        texts = [f"{bit} ({_quoted(table[bit])})" if bit in table else str(bit) for bit in numbers[:4]]
        more = f" and {len(numbers) - 4} more" if len(numbers) > 4 else ""
        return f"incompatible feature{'s' if len(numbers) > 1 else ''} {', '.join(texts)}{more}"

    def _check_tables(self, header: Header) -> None:
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
            raise self._invalid(
                f"the L1 table has {header.l1_size} entries, and a virtual size of {format_bytes(header.size)} "
                f"needs {header.l1_entries_used}"
            )
        if header.nb_snapshots > layout.MAX_SNAPSHOTS:
            raise self._invalid(
                f"there are {header.nb_snapshots} snapshots, at most {layout.MAX_SNAPSHOTS} are allowed"
            )
        refcount_size = header.refcount_table_clusters << header.cluster_bits
        if not 0 < refcount_size <= layout.MAX_REFCOUNT_TABLE_SIZE:
            raise self._invalid(
                f"the refcount table has {header.refcount_table_clusters} clusters, expected at least one and at most "
                f"{layout.MAX_REFCOUNT_TABLE_SIZE} bytes"
            )
        self._check_table("L1 table", header.l1_table_offset, header.l1_size * layout.ENTRY_SIZE, header)
        self._check_table("refcount table", header.refcount_table_offset, 1, header)
        self._check_table("snapshot table", header.snapshots_offset, min(header.nb_snapshots, 1), header)

    def _check_table(self, what: str, offset: int, length: int, header: Header) -> None:
        """length is what must be inside the file: what is read of the table, or one byte to see that it is there."""
        if not length:
            return
        if offset % header.cluster_size:
            raise self._invalid(
                f"the {what} is at offset 0x{offset:x}, which is no multiple of the cluster size {header.cluster_size}"
            )
        if offset < header.cluster_size:
            raise self._invalid(f"the {what} is at offset 0x{offset:x}, inside the header's cluster")
        if offset + length > self.file.size:
            raise self._invalid(
                f"the {what} at 0x{offset:x} ends at 0x{offset + length:x}, beyond the end of the file "
                f"(0x{self.file.size:x})"
            )


def _quoted(name: bytes) -> str:
    """A name out of an image, safe to print: one line, no control characters, not long."""
    text = name[:100].decode("utf-8", errors="backslashreplace")
    return repr(text) + ("..." if len(name) > 100 else "")
