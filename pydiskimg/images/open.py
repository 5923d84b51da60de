# SPDX-License-Identifier: MIT
"""open_image(): open an image by its path as a Source."""

from __future__ import annotations

import os

from pydiskimg.errors import UnsupportedImageError
from pydiskimg.images import FORMATS, detect_image
from pydiskimg.images.raw import open_image_file
from pydiskimg.protocols import ImageSource
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from pydiskimg.images.references import AllowedDirectory


def open_image(
    path: str | os.PathLike[str],
    *,
    format: str | None = None,  # noqa: A002  qemu-img's word
    references: AllowedDirectory | None = None,
    snapshot: str | None = None,
    name: str | None = None,
) -> ImageSource:
    """Open an image for reading; the result is a context manager, whose close() closes every file of the image.

    path is a file, a block device, or an http:// or https:// address, of which only the ranges that are read are
    fetched. name replaces path in messages.

    format is "raw" or "qcow2". Without it the first bytes decide. That is right for an image that an administrator
    chose and wrong for a disk that a guest has written to, which may begin with any bytes: name "raw" for such a disk.
    A block device that looks like anything but raw is refused until its format is named.

    references is the result of allow_references(): the directory below which an image may name other files (backing
    files, an external data file). With None no such file is opened. It is needed only until this function returns.
    snapshot is the id or name of an internal snapshot of a qcow2 image, to be opened in place of the current disk.

    Reading takes no locks and honours none: an image that is being written is read in its present state, which
    can give old data or an error. The qcow2 format is that of QEMU's docs/interop/qcow2.

    Raises StorageError when a path cannot be opened, FetchError for an address, UnsupportedImageError
    for a format or feature that cannot be read, ReferenceDeniedError for a file that the image may not name, and
    InvalidImageError for an image that is truncated or damaged. No file stays open then.

    >>> from pydiskimg import open_image, read_bytes
    >>> with open_image("disk.qcow2") as image:
    ...     print(image.format, image.size, "bytes")
    ...     first_sector = read_bytes(image, 0, 512)
    qcow2 67108864 bytes
    """
    if format is not None and format not in FORMATS:
        from pydiskimg.text import shown_name

        raise UnsupportedImageError(
            f"{name or shown_name(os.fsdecode(path))}: the format {format!r} is not known; the ones that are read: "
            f"{', '.join(FORMATS)}"
        )
    file = open_image_file(path, name=name)
    try:
        return FORMATS[format or detect_image(file)].open(file, references=references, snapshot=snapshot)
    except BaseException:
        file.close()
        raise
