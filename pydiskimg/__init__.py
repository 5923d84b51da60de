# SPDX-License-Identifier: MIT
"""pydiskimg: disk images, partitions, file systems and archives, without external programs.

The names that most callers need are here; each is imported when it is first used.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pydiskimg.archive import extract
    from pydiskimg.comparison import compare
    from pydiskimg.disk import open_disk
    from pydiskimg.dumpfile import open_dump, restore_dump
    from pydiskimg.errors import DiskImageError
    from pydiskimg.extents import Extent, Kind
    from pydiskimg.fs.ext4 import make_ext
    from pydiskimg.fs.probe import probe
    from pydiskimg.fs.swap import make_swap
    from pydiskimg.image import open_image
    from pydiskimg.image_creation import new_image
    from pydiskimg.references import allow_references
    from pydiskimg.region import Region
    from pydiskimg.stream import read_stream, write_stream
    from pydiskimg.transfer import copy

__all__ = [
    "DiskImageError",
    "Extent",
    "Kind",
    "Region",
    "allow_references",
    "compare",
    "copy",
    "extract",
    "make_ext",
    "make_swap",
    "new_image",
    "open_disk",
    "open_dump",
    "open_image",
    "probe",
    "read_stream",
    "restore_dump",
    "write_stream",
]

_HOMES = {
    "DiskImageError": "errors",
    "Extent": "extents",
    "Kind": "extents",
    "Region": "region",
    "allow_references": "references",
    "compare": "comparison",
    "copy": "transfer",
    "extract": "archive",
    "make_ext": "fs.ext4",
    "make_swap": "fs.swap",
    "new_image": "image_creation",
    "open_disk": "disk",
    "open_dump": "dumpfile",
    "open_image": "image",
    "probe": "fs.probe",
    "read_stream": "stream",
    "restore_dump": "dumpfile",
    "write_stream": "stream",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f"pydiskimg.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
