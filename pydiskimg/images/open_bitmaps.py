# SPDX-License-Identifier: MIT
"""open_bitmaps(): open the dirty bitmaps of an image file for reading."""

from __future__ import annotations

import os
from contextlib import contextmanager

from pydiskimg.errors import UnsupportedImageError
from pydiskimg.images import FORMATS, detect_image
from pydiskimg.images.qcow2.bitmap_set import BitmapSet
from pydiskimg.images.raw import open_raw
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def open_bitmaps(path: str | os.PathLike[str], *, format: str | None = None) -> Iterator[BitmapSet]:  # noqa: A002
    """Give the dirty bitmaps of the qcow2 image at path, possibly none; the files that it names are not opened.

    format is the image's format; None detects it. Raises StorageError, InvalidImageError, and
    UnsupportedImageError for an image of another format, and for one that is marked corrupt.
    """
    with open_raw(path) as file:
        found = format or detect_image(file)
        header = FORMATS[found].header(file)
        if header is None:
            raise UnsupportedImageError(f"{file.name}: is {FORMATS[found].title}, which has no bitmaps")
        yield BitmapSet(file, header)
