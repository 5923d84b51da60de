# SPDX-License-Identifier: MIT
"""measure(): how large the file of an image will be."""

from __future__ import annotations

from pydiskimg.images.qcow2.sizes import round_size
from pydiskimg.startup import TYPE_CHECKING, ValueObject

if TYPE_CHECKING:
    from typing import Unpack

    from pydiskimg.images.qcow2.options import Qcow2Options
    from pydiskimg.protocols import ImageSource


class Measured(ValueObject):
    """Bytes of the file: as a copy of the source makes it, at most, and once everything was written to."""

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

    format is "raw" or "qcow2", source what is to be copied into it, None for an image that begins empty. options are
    those of a qcow2 image; is_preallocated is for preallocation "falloc" and "full". The numbers are those of
    qemu-img measure, which counts all tables of a disk that is full. Raises DoesNotFitError and UnsupportedImageError
    for an image that cannot be made, and what reading the source's extents raises.
    """
    if format == "raw":
        whole = size if source is not None else round_size(size)
        return Measured(whole, whole)
    from pydiskimg.images.measure_qcow2 import qcow2_sizes  # only here: a raw image is as large as its disk

    required, whole = qcow2_sizes(round_size(size), None if is_preallocated else source, options)
    return Measured(whole if is_preallocated else required, whole)
