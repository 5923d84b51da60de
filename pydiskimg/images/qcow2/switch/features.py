# SPDX-License-Identifier: MIT
"""Change the version, lazy counts and data file in the header of a qcow2 image, by one write of it."""

from __future__ import annotations

from pydiskimg.errors import UnsupportedImageError
from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.cache import Cache
from pydiskimg.images.qcow2.header import read_header, require_changeable
from pydiskimg.images.qcow2.snapshots import snapshot_entries
from pydiskimg.images.qcow2.switch.layer import DiskLayer
from pydiskimg.images.qcow2.switch.snapshots import complete_snapshot_table
from pydiskimg.images.qcow2.switch.zero_clusters import store_zero_clusters
from pydiskimg.images.qcow2.write.head import feature_names, replace_head
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from pydiskimg.images.qcow2.header import Header
    from pydiskimg.protocols import Store


def upgrade(store: Store) -> None:
    """Convert an image of version 2 (0.10) to version 3 (1.1); durable on return, like all here."""
    header = read_header(store)
    require_changeable(header, store.name)
    if header.version >= 3:
        return
    if header.nb_snapshots:
        complete_snapshot_table(store)
        header = read_header(store)
    fields = {"version": 3, "refcount_order": header.refcount_order, "incompatible_features": 0}
    replace_head(store, header, header.extensions | {layout.EXTENSION_FEATURE_NAMES: feature_names()}, None, **fields)
    store.flush()


def downgrade(store: Store) -> None:
    """Convert an image of version 3 (1.1) to version 2 (0.10), whose clusters cannot be marked zero.

    Raises UnsupportedImageError as require_downgradable().
    """
    header = read_header(store)
    require_changeable(header, store.name)
    if header.version < 3:
        return
    require_downgradable(store, header)
    store_zero_clusters(store)
    header = read_header(store)
    kept = {kind: data for kind, data in header.extensions.items() if kind != layout.EXTENSION_FEATURE_NAMES}
    replace_head(store, header, kept, None, version=2)
    store.flush()


def require_downgradable(
    store: Store, header: Header, *, refcount_bits: int | None = None, size: int | None = None
) -> None:
    """Raise UnsupportedImageError for features that version 2 lacks; refcount_bits and size are the new ones."""
    size = header.size if size is None else size
    problem = next((what for present, what in _only_in_version_3(header, refcount_bits) if present), None)
    if problem is None and header.compression_type != "zlib" and _has_compressed_clusters(store, header):
        problem = f"clusters that are compressed with {header.compression_type}; convert it"
    if problem is None and any(snapshot.disk_size != size for snapshot, _ in snapshot_entries(store, header)):
        problem = "snapshots whose disk has another size; delete them first"
    if problem is not None:
        raise UnsupportedImageError(f"{store.name}: version 2 (0.10) does not support {problem}; nothing was changed")


def _only_in_version_3(header: Header, refcount_bits: int | None) -> list[tuple[bool, str]]:
    bits = refcount_bits or header.refcount_bits
    return [
        (bits != 16, f"reference counts of {bits} bits, rather than 16 (refcount_bits=16)"),
        (header.extended_l2, "extended L2 entries"),
        (header.has_data_file, "an external data file"),
        (layout.EXTENSION_BITMAPS in header.extensions, "dirty bitmaps; remove them with: pydiskimg bitmap --remove"),
    ]


def _has_compressed_clusters(store: Store, header: Header) -> bool:
    active = header.l1_table_offset, header.l1_size
    tables = [active, *((each.l1_table_offset, each.l1_size) for each, _ in snapshot_entries(store, header))]
    for offset, entries in tables:
        layer = DiskLayer(store, header, offset, entries, what="an L1 table", kept=Cache(0))
        for index, _ in layer.tables():
            if any(word & layout.L2_COMPRESSED for word in layer.table(index)):
                return True
    return False


def set_lazy_refcounts(store: Store, *, lazy: bool) -> None:
    """Allow other writers to leave reference counts to a repair, or not. Raises UnsupportedImageError for version 2."""
    header = read_header(store)
    require_changeable(header, store.name)
    if lazy == header.lazy_refcounts:
        return
    if header.version < 3:
        raise UnsupportedImageError(f"{store.name}: version 2 (0.10) has no lazy reference counts; use compat=1.1")
    features = layout.COMPATIBLE_LAZY_REFCOUNTS if lazy else 0
    replace_head(store, header, header.extensions, None, compatible_features=features)
    store.flush()


def set_data_file(store: Store, *, name: bytes | None, is_raw: bool | None) -> None:
    """Set the name of the data file (None: unchanged, b"": none), and whether it stays a raw image.

    No file is opened. Raises UnsupportedImageError for an image without a data file, and for a data file that was not
    raw.
    """
    header = read_header(store)
    require_changeable(header, store.name)
    if name is not None and not header.has_data_file:
        raise UnsupportedImageError(
            f"{store.name}: has no external data file, whose name could be changed; convert it to an image that has one"
        )
    if is_raw and not header.data_file_raw:
        raise UnsupportedImageError(
            f"{store.name}: its data file is not kept as a raw image, and data_file_raw=on is possible for new images "
            "only; convert it"
        )
    extensions = dict(header.extensions)
    if name is not None:
        extensions.pop(layout.EXTENSION_DATA_FILE, None)
        extensions |= {layout.EXTENSION_DATA_FILE: name} if name else {}
    features = header.autoclear_features
    if is_raw is False:
        features &= ~layout.AUTOCLEAR_DATA_FILE_RAW
    if (extensions, features) != (header.extensions, header.autoclear_features):
        replace_head(store, header, extensions, None, autoclear_features=features)
        store.flush()
