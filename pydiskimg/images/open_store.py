# SPDX-License-Identifier: MIT
"""open_store(): the bytes of an image file that is changed in place, while no other program uses it."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager

from pydiskimg.disks.open import enter_raw_disk
from pydiskimg.disks.store import store_of
from pydiskimg.errors import UnsupportedImageError
from pydiskimg.images import FORMATS, detect
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydiskimg.protocols import Store


@contextmanager
def open_qcow2_store(path: str | os.PathLike[str], *, format: str | None = None) -> Iterator[Store]:  # noqa: A002
    """Give the bytes of the qcow2 image that a file or block device holds, for the functions that change an image.

    The file is opened as open_disk() opens it for writing: one that is mounted, attached to a loop device or used by a
    virtual machine is refused, and locked as QEMU does. format is what the caller knows of it; None looks at the
    contents. Raises InUseError, StorageError, and UnsupportedImageError for an image that is not qcow2.
    """
    name = os.fspath(path)
    with ExitStack() as stack:
        disk = enter_raw_disk(stack, name, writable=True)
        found = format or detect(disk)
        if found != "qcow2":
            raise UnsupportedImageError(f"{name}: is {FORMATS[found].title}; expected a qcow2 image")
        yield store_of(disk)
