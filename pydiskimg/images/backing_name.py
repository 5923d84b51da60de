# SPDX-License-Identifier: MIT
"""What an image may record as its backing file, which is not opened for that."""

from __future__ import annotations

import os
from contextlib import suppress

from pydiskimg.errors import InUseError, UnsupportedImageError
from pydiskimg.images import FORMATS, PROTOCOLS
from pydiskimg.text import quoted


def check_backing_name(image: str, backing_file: bytes, backing_format: bytes) -> None:
    """Raise UnsupportedImageError for a name or format that image, a path, cannot record."""
    name, form = os.fsdecode(backing_file), os.fsdecode(backing_format)
    if not name or "\0" in name:
        raise UnsupportedImageError(f"{image}: {quoted(name)} is not the name of a backing file")
    if form not in (*FORMATS, *PROTOCOLS):
        raise UnsupportedImageError(
            f"{image}: a backing file of the format {quoted(form)} is not read; expected {' or '.join(FORMATS)}"
        )


def refuse_itself(image: str, backing_file: bytes) -> None:
    """Raise InUseError if a name, which starts at the directory of image if it is relative, is that of image."""
    name = os.fsdecode(backing_file)
    is_itself = False
    with suppress(OSError):  # one of them does not exist
        is_itself = os.path.samefile(os.path.join(os.path.dirname(image), name), image)
    if is_itself:
        raise itself(image, name)


def itself(image: str, backing: str) -> InUseError:
    """Return the error for an image that would be its own backing file."""
    text = f"{image}: cannot be its own backing file, and {backing} is the same file"
    return InUseError(text, errno=None, filename=image)
