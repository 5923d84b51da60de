# SPDX-License-Identifier: MIT
"""open_image(): the one way from a path to a Source."""

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
    """Open an image for reading; close() of the result, or leaving its with block, closes every file of it.

    path may be an http:// or https:// address: what is read of the image is fetched then, by ranges.

    format is one of FORMATS. Without it the first bytes decide, which is right for an image that an
    administrator put there and wrong for a disk that a guest has written to: name the format "raw" for that one.
    A block device is taken for raw; one that looks like another format is refused until the format is named.

    Reading neither takes locks nor looks at any: an image that is being written is read as it happens to be, which
    may be an error or old data.

    references says which files an image may name (backing files, an external data file): what allow_references()
    gave, or None, which opens none of them. It is needed only while this function runs. snapshot is the id or the
    name of an internal snapshot of a qcow2 image, which is opened instead of the disk as it is now. name
    is what messages call the image, where path says nothing to anybody.

    Raises StorageError when a path cannot be opened, FetchError for an address, UnsupportedImageError for a format or a
    feature that is not read here and for a file that the image may not name, InvalidImageError for an image that is
    truncated or corrupt. Nothing stays open then.
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
