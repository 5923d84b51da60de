# SPDX-License-Identifier: MIT
"""The options of a new qcow2 image, and which of them can be combined."""

from __future__ import annotations

import os

from pydiskimg.errors import UnsupportedImageError
from pydiskimg.images.qcow2 import layout
from pydiskimg.startup import TYPE_CHECKING, ValueObject

if TYPE_CHECKING:
    from typing import TypedDict

    class Qcow2Options(TypedDict, total=False):
        """The keywords of new_image(), create_qcow2() and chosen_options()."""

        cluster_size: int
        version: int
        compression_type: str
        refcount_bits: int
        lazy_refcounts: bool
        extended_l2: bool
        data_file: str
        data_file_raw: bool


DEFAULT_CLUSTER_SIZE = 64 << 10
REFCOUNT_BITS = 16  # the fixed value of version 2


class ChosenOptions(ValueObject):
    """The options of a new image: cluster_size (bytes), version (2 or 3), compression_type ("zlib" or "zstd"),
    refcount_bits (1 to 64), lazy_refcounts, which lets other writers leave counts to a repair, and extended_l2, with
    which each 32nd of a cluster is stored separately. data_file is the name of the new external data file ("": none),
    data_file_raw makes it also a raw image of the disk.
    """

    def __init__(
        self,
        cluster_size: int = DEFAULT_CLUSTER_SIZE,
        version: int = 3,
        compression_type: str = "zlib",
        refcount_bits: int = REFCOUNT_BITS,
        *,
        lazy_refcounts: bool = False,
        extended_l2: bool = False,
        data_file: str = "",
        data_file_raw: bool = False,
    ) -> None:
        self.cluster_size = cluster_size
        self.version = version
        self.compression_type = compression_type
        self.refcount_bits = refcount_bits
        self.lazy_refcounts = lazy_refcounts
        self.extended_l2 = extended_l2
        self.data_file = data_file
        self.data_file_raw = data_file_raw

    @property
    def refcount_order(self) -> int:
        """refcount_bits as a power of two."""
        return self.refcount_bits.bit_length() - 1

    @property
    def l2_entry_size(self) -> int:
        """Bytes of an L2 entry."""
        return layout.EXTENDED_ENTRY_SIZE if self.extended_l2 else layout.ENTRY_SIZE


def chosen_options(name: str, options: Qcow2Options) -> ChosenOptions:
    """Return all options, including defaults, if they are valid for an image.

    Raises UnsupportedImageError for invalid values, and for options that cannot be combined; name is for its text.
    """
    chosen = ChosenOptions(**options)
    if problem := _problem(chosen):
        raise UnsupportedImageError(f"{name}: {problem}")
    return chosen


def _problem(chosen: ChosenOptions) -> str | None:
    if chosen.version not in (2, 3):
        return f"version {chosen.version} is not written; expected 2 (0.10) or 3 (1.1)"
    smallest, largest = 1 << layout.MIN_CLUSTER_BITS, 1 << layout.MAX_CLUSTER_BITS
    size = chosen.cluster_size
    if not smallest <= size <= largest or size & (size - 1):
        return f"a cluster size of {size} bytes is not possible; expected a power of two from {smallest} to {largest}"
    if chosen.extended_l2 and size < 1 << layout.MIN_EXTENDED_CLUSTER_BITS:
        return (
            f"extended L2 entries (subclusters) are not possible with clusters of {size} bytes; expected "
            f"{1 << layout.MIN_EXTENDED_CLUSTER_BITS} or more"
        )
    if chosen.compression_type not in layout.COMPRESSION_TYPES:
        expected = " or ".join(layout.COMPRESSION_TYPES)
        return f"the compression type {chosen.compression_type!r} is not known; expected {expected}"
    in_version = _problem_of_version_2(chosen) if chosen.version == 2 else None
    return refcount_problem(chosen.refcount_bits) or in_version or _problem_of_data_file(chosen)


def refcount_problem(bits: int) -> str | None:
    """Return the problem of reference counts of that many bits; None if they are possible."""
    if bits in (1 << order for order in range(layout.MAX_REFCOUNT_ORDER + 1)):
        return None
    return f"reference counts of {bits} bits are not possible; expected a power of two from 1 to 64"


def _problem_of_data_file(chosen: ChosenOptions) -> str | None:
    if chosen.data_file_raw and not chosen.data_file:
        return "a raw external data file was requested without its name; add data_file"
    if len(os.fsencode(chosen.data_file)) > layout.MAX_BACKING_FILE_SIZE or "\0" in chosen.data_file:
        return f"the name of a data file has at most {layout.MAX_BACKING_FILE_SIZE} bytes, none of them zero"
    return None


def _problem_of_version_2(chosen: ChosenOptions) -> str | None:
    for is_chosen, what in (
        (chosen.compression_type != "zlib", f"compression type {chosen.compression_type}"),
        (chosen.refcount_bits != REFCOUNT_BITS, f"reference counts of {chosen.refcount_bits} bits"),
        (chosen.lazy_refcounts, "lazy reference counts"),
        (chosen.extended_l2, "extended L2 entries"),
        (chosen.data_file, "external data files"),
    ):
        if is_chosen:
            return f"version 2 (0.10) has no {what}; use version 3 (1.1)"
    return None
