# SPDX-License-Identifier: MIT
"""Make an empty qcow2 image: the header, the refcounts of its clusters, and an L1 table that maps nothing yet.

cluster 0   1                    1 + T              1 + T + B        end
| header  | refcount table (T) | refcount blocks (B) | L1 table (L) |
"""

from __future__ import annotations

import os
from collections import namedtuple

from pydiskimg.errors import UnsupportedImageError
from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.options import chosen_options
from pydiskimg.images.qcow2.sizes import REFCOUNT_ORDER, l1_entries, refcount_clusters, round_size
from pydiskimg.images.qcow2.write.head import feature_names, pack_extension
from pydiskimg.images.qcow2.write.refcount_entries import RefcountEntries
from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.units import MIB

if TYPE_CHECKING:
    from typing import Unpack

    from pydiskimg.images.qcow2.options import Qcow2Options
    from pydiskimg.protocols import Store

REFCOUNT_SIZE = 2

_Fields = namedtuple(
    "_Fields",
    (
        "version",
        "cluster_size",
        "size",
        "l1_size",
        "l1_table_offset",
        "refcount_table_offset",
        "refcount_table_clusters",
        "compression_type",
        "backing_file",
        "backing_format",
        "extensions",
        "refcount_order",
        "lazy_refcounts",
        "extended_l2",
        "data_file",
        "data_file_raw",
    ),
    defaults=("zlib", b"", b"", b"", REFCOUNT_ORDER, False, False, b"", False),
)


# importing dataclasses takes longer than making an empty image.
class Plan(_Fields):
    """The contents of a new image's header. size is bytes, a multiple of 512; l1_size is entries; the rest is bytes.

    extensions are packed header extensions, the first ones after the header.
    """

    __slots__ = ()


def create_qcow2(
    store: Store,
    size: int,
    *,
    backing_file: bytes = b"",
    backing_format: bytes = b"",
    **options: Unpack[Qcow2Options],
) -> None:
    """Lay out an empty image of a virtual disk of size bytes, rounded up to 512 as QEMU does, at the store's start.

    The store's contents there are overwritten; the header is written last, after everything else is durable, and is
    durable itself on return. backing_file and backing_format are only recorded: no file is opened here. options are
    those of ChosenOptions. Raises DoesNotFitError if such clusters cannot map that size, UnsupportedImageError for
    options that do not exist or cannot be combined, StorageError when the store cannot be written.
    """
    chosen = chosen_options(store.name, options)
    if backing_file and chosen.data_file_raw:
        raise UnsupportedImageError(
            f"{store.name}: an image whose external data file is a raw image, too, has no backing file"
        )
    cluster_size, order = chosen.cluster_size, chosen.refcount_order
    size = round_size(size)
    l1_size = l1_entries(size, cluster_size, name=store.name, entry_size=chosen.l2_entry_size)
    l1_clusters = -(-l1_size * layout.ENTRY_SIZE // cluster_size)
    table_clusters, blocks = refcount_clusters(1 + l1_clusters, cluster_size, order)
    first_block = 1 + table_clusters
    used = first_block + blocks + l1_clusters
    plan = Plan(
        version=chosen.version,
        cluster_size=cluster_size,
        size=size,
        l1_size=l1_size,
        l1_table_offset=(first_block + blocks) * cluster_size if l1_size else 0,
        refcount_table_offset=cluster_size,
        refcount_table_clusters=table_clusters,
        compression_type=chosen.compression_type,
        backing_file=backing_file,
        backing_format=backing_format,
        refcount_order=order,
        lazy_refcounts=chosen.lazy_refcounts,
        extended_l2=chosen.extended_l2,
        data_file=os.fsencode(chosen.data_file),
        data_file_raw=chosen.data_file_raw,
    )
    header = pack_header(plan, name=store.name)
    offsets = b"".join(((first_block + index) * cluster_size).to_bytes(8, "big") for index in range(blocks))
    store.write(0, bytes(cluster_size))
    store.write(cluster_size, offsets.ljust(table_clusters * cluster_size, b"\0"))
    counts = bytearray(blocks * cluster_size)
    RefcountEntries(order).fill(counts, 0, used, 1)
    store.write(first_block * cluster_size, counts)
    _write_zeros(store, (first_block + blocks) * cluster_size, l1_clusters * cluster_size)
    store.flush()
    store.write(0, header)
    store.flush()


def pack_header(plan: Plan, *, name: str) -> bytes:
    """Return the beginning of the first cluster: header, extensions, the backing file's name.

    Raises UnsupportedImageError when they do not fit into one cluster; name is for its text.
    """
    if len(plan.backing_file) > layout.MAX_BACKING_FILE_SIZE:
        raise UnsupportedImageError(
            f"{name}: the backing file's name has {len(plan.backing_file)} bytes, "
            f"at most {layout.MAX_BACKING_FILE_SIZE} are possible"
        )
    extensions = plan.extensions
    if plan.backing_format:
        extensions += pack_extension(layout.EXTENSION_BACKING_FORMAT, plan.backing_format)
    if plan.data_file:
        extensions += pack_extension(layout.EXTENSION_DATA_FILE, plan.data_file)
    names = pack_extension(layout.EXTENSION_FEATURE_NAMES, feature_names()) if plan.version == 3 else b""
    start = header_length(plan)
    end = layout.EXTENSION.pack(type=layout.EXTENSION_END)
    if start + len(extensions + names + end + plan.backing_file) > plan.cluster_size:
        names = b""  # only a convenience
    extensions += names + end
    backing_offset = start + len(extensions) if plan.backing_file else 0
    header: bytes = _fields(plan, backing_offset) + extensions + plan.backing_file
    if len(header) > plan.cluster_size:
        what = "the names of data file and backing file do" if plan.data_file else "the backing file's name does"
        raise UnsupportedImageError(
            f"{name}: {what} not fit into a cluster of {plan.cluster_size} bytes; use a larger cluster size"
        )
    return header


def header_length(plan: Plan) -> int:
    """Return the bytes of the header, without its extensions."""
    return layout.HEADER.size if plan.version == 3 else layout.HEADER_LENGTH_V2


def _fields(plan: Plan, backing_offset: int) -> bytes:
    number = layout.COMPRESSION_TYPES.index(plan.compression_type)
    incompatible = layout.INCOMPATIBLE_COMPRESSION_TYPE if number else 0
    incompatible |= layout.INCOMPATIBLE_EXTENDED_L2 if plan.extended_l2 else 0
    incompatible |= layout.INCOMPATIBLE_DATA_FILE if plan.data_file else 0
    whole: bytes = layout.HEADER.pack(
        magic=layout.MAGIC,
        version=plan.version,
        backing_file_offset=backing_offset,
        backing_file_size=len(plan.backing_file),
        cluster_bits=plan.cluster_size.bit_length() - 1,
        size=plan.size,
        crypt_method=layout.CRYPT_NONE,
        l1_size=plan.l1_size,
        l1_table_offset=plan.l1_table_offset,
        refcount_table_offset=plan.refcount_table_offset,
        refcount_table_clusters=plan.refcount_table_clusters,
        incompatible_features=incompatible,
        compatible_features=layout.COMPATIBLE_LAZY_REFCOUNTS if plan.lazy_refcounts else 0,
        autoclear_features=layout.AUTOCLEAR_DATA_FILE_RAW if plan.data_file_raw else 0,
        refcount_order=plan.refcount_order,
        header_length=layout.HEADER.size,
        compression_type=number,
    )
    return whole[: header_length(plan)]


def _write_zeros(store: Store, offset: int, length: int) -> None:
    zeros = memoryview(bytes(min(length, MIB)))
    for start in range(offset, offset + length, MIB):
        store.write(start, zeros[: min(MIB, offset + length - start)])
