# SPDX-License-Identifier: MIT
"""open_image(): the one way from a path to a Source."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack

from pydiskimg.errors import UnsupportedImageError
from pydiskimg.formats.detect import detect
from pydiskimg.formats.qcow2.reader import open_qcow2
from pydiskimg.formats.raw import RawSource, open_raw
from pydiskimg.protocols import ImageSource


def open_image(path: str | os.PathLike[str], *, format: str | None = None) -> ImageSource:  # noqa: A002  qemu-img's word
    """Open an image for reading; close() of the result, or leaving its with block, closes the file.

    format is "raw" or "qcow2". Without it the first bytes decide, which is right for an image that an
    administrator put there and wrong for a disk that a guest has written to: name the format "raw" for that one.
    A block device is taken for raw; one that looks like another format is refused until the format is named.

    Raises StorageError when the path cannot be opened, UnsupportedImageError for a format or a feature that is not
    read here, InvalidImageError for an image that is truncated or corrupt. Nothing stays open then.
    """
    if format is not None and format not in _OPENERS:
        raise UnsupportedImageError(
            f"{os.fsdecode(path)}: the format {format!r} is not known; the ones that are read: {', '.join(_OPENERS)}"
        )
    with ExitStack() as stack:
        file = stack.enter_context(open_raw(path))
        source = _OPENERS[format or _detected(file)](file)
        stack.pop_all()
        return source


def _detected(file: RawSource) -> str:
    found = detect(file)
    if file.is_block_device and found != "raw":
        raise UnsupportedImageError(
            f"{file.name}: looks like a {found} image, which a guest can write to its disk too; "
            "name the format: raw for a disk, qcow2 for an image kept on a device"
        )
    return found


def _raw(file: RawSource) -> ImageSource:
    return file


def _qcow2(file: RawSource) -> ImageSource:
    return open_qcow2(file, on_close=file.close)


_OPENERS: dict[str, Callable[[RawSource], ImageSource]] = {"raw": _raw, "qcow2": _qcow2}
