# SPDX-License-Identifier: MIT
"""measure(): compute how large the file of an image will be."""

from __future__ import annotations

from pydiskimg.errors import UnsupportedImageError
from pydiskimg.images import FORMATS
from pydiskimg.images.qcow2.sizes import round_size
from pydiskimg.startup import TYPE_CHECKING, ValueObject

if TYPE_CHECKING:
    from typing import Unpack

    from pydiskimg.images.qcow2.options import Qcow2Options
    from pydiskimg.protocols import ImageSource


class Measured(ValueObject):
    """The size of an image's file in bytes. measure() returns it.

    required is what the file needs for the present contents, and fully_allocated what it needs once everything has been
    written.

    >>> from pydiskimg import measure
    >>> measured = measure(1 << 30, format="raw")
    >>> measured.required, measured.fully_allocated
    (1073741824, 1073741824)
    """

    def __init__(self, required: int, fully_allocated: int) -> None:
        self.required = required
        self.fully_allocated = fully_allocated


def measure(
    size: int,
    *,
    format: str,  # noqa: A002 - the field's word, as in open_image()
    source: ImageSource | None = None,
    is_preallocated: bool = False,
    **options: Unpack[Qcow2Options],
) -> Measured:
    """Return how large the file of an image with a virtual disk of size bytes becomes.

    format is "raw" or "qcow2". source is what is to be copied into the image; None means an image that is empty at
    first. options are those of a qcow2 image, as for new_image(); is_preallocated is for preallocation "falloc" and
    "full". The numbers are those of `qemu-img measure`.

    Raises DoesNotFitError and UnsupportedImageError for an image that cannot be made, and what reading the extents of
    the source raises.

    >>> from pydiskimg import measure, open_image
    >>> with open_image("disk.qcow2") as source:
    ...     measured = measure(source.size, format="qcow2", source=source)
    >>> 0 < measured.required < measured.fully_allocated
    True
    """
    if format not in FORMATS:
        raise UnsupportedImageError(f"the format {format!r} is not written; expected {' or '.join(FORMATS)}")
    if size < 0:
        raise UnsupportedImageError(f"a size of {size} bytes is not possible; expected 0 or more")
    if format == "raw":
        whole = size if source is not None else round_size(size)
        return Measured(whole, whole)
    from pydiskimg.images.measure_qcow2 import qcow2_sizes  # imported here: a raw image is as large as its disk

    required, whole = qcow2_sizes(round_size(size), None if is_preallocated else source, options)
    return Measured(whole if is_preallocated else required, whole)
