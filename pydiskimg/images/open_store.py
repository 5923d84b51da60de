# SPDX-License-Identifier: MIT
"""open_qcow2_store(): the bytes of an image file to be changed in place, while no other program uses it."""

from __future__ import annotations

import os

from pydiskimg.disks.open import open_raw_disk
from pydiskimg.disks.store import GrowingFile, store_of
from pydiskimg.errors import UnsupportedImageError
from pydiskimg.images import FORMATS, detect
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from pydiskimg.disks.open import OpenRawDisk
    from pydiskimg.protocols import Store


class OpenStore:
    """Owns the file or device of a Store: a context manager that gives the Store, and then closes the file."""

    def __init__(self, opened: OpenRawDisk, store: Store) -> None:
        self._opened = opened
        self._store = store

    def __enter__(self) -> Store:
        return self._store

    def __exit__(self, *_: object) -> None:
        if isinstance(self._store, GrowingFile):
            self._store.release()
        self._opened.close()


def open_qcow2_store(path: str | os.PathLike[str], *, format: str | None = None) -> OpenStore:  # noqa: A002
    """Open the file or block device of a qcow2 image for the functions that change the image as a whole.

    The result is a context manager that gives the Store for take_snapshot(), change_bitmaps(), repair_qcow2() and
    others. The file is opened as by open_disk(): one that is mounted, attached to a loop device or used by a virtual
    machine is refused, and it is locked as QEMU locks it. format None detects the format by the first bytes.

    Raises InUseError, StorageError, and UnsupportedImageError for an image that is not qcow2.

    >>> from pydiskimg import open_qcow2_store, repair_qcow2
    >>> with open_qcow2_store("disk.qcow2") as store:
    ...     repair_qcow2(store).refusal
    ''
    """
    name = os.fspath(path)
    opened = open_raw_disk(name, writable=True)
    try:
        found = format or detect(opened.disk)
        if found != "qcow2":
            raise UnsupportedImageError(f"{name}: is {FORMATS[found].title}; expected a qcow2 image")
        return OpenStore(opened, store_of(opened.disk))
    except BaseException:
        opened.close()
        raise
