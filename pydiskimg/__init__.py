# SPDX-License-Identifier: MIT
"""pydiskimg: disk images, partitions, file systems and archives, without external programs.

The names that most callers need are here; each is imported when it is first used.
"""

from __future__ import annotations

from pydiskimg.startup import TYPE_CHECKING, found_when_used

if TYPE_CHECKING:
    from pydiskimg.disks.region import Region
    from pydiskimg.errors import DiskImageError
    from pydiskimg.extents import Extent, Kind
    from pydiskimg.files.dump import open_dump, restore_dump
    from pydiskimg.files.tar import extract, open_tar
    from pydiskimg.fs.ext4.make import make_ext
    from pydiskimg.fs.ext4.new_file_system import NewExt
    from pydiskimg.fs.ext4.populate.populate import populate, populate_joined
    from pydiskimg.fs.probe import probe
    from pydiskimg.fs.swap import make_swap
    from pydiskimg.images.create import new_image
    from pydiskimg.images.open import open_image
    from pydiskimg.images.open_disk import open_disk
    from pydiskimg.images.references import allow_references
    from pydiskimg.system.build import SystemOptions, build_system
    from pydiskimg.transfer.compare import compare
    from pydiskimg.transfer.copy import copy
    from pydiskimg.transfer.receive import read_stream
    from pydiskimg.transfer.send import write_stream
    from pydiskimg.volumes.tree import open_tree

__version__ = "0.1.0"

__all__ = [
    "DiskImageError",
    "Extent",
    "Kind",
    "NewExt",
    "Region",
    "SystemOptions",
    "allow_references",
    "build_system",
    "compare",
    "copy",
    "extract",
    "make_ext",
    "make_swap",
    "new_image",
    "open_disk",
    "open_dump",
    "open_image",
    "open_tar",
    "open_tree",
    "populate",
    "populate_joined",
    "probe",
    "read_stream",
    "restore_dump",
    "write_stream",
]

__getattr__ = found_when_used(
    globals(),
    {
        "DiskImageError": "errors",
        "Extent": "extents",
        "Kind": "extents",
        "NewExt": "fs.ext4.new_file_system",
        "Region": "disks.region",
        "SystemOptions": "system.build",
        "allow_references": "images.references",
        "build_system": "system.build",
        "compare": "transfer.compare",
        "copy": "transfer.copy",
        "extract": "files.tar.unpack",
        "make_ext": "fs.ext4.make",
        "make_swap": "fs.swap",
        "new_image": "images.create",
        "open_disk": "images.open_disk",
        "open_dump": "files.dump",
        "open_image": "images.open",
        "open_tar": "files.tar",
        "populate": "fs.ext4.populate.populate",
        "populate_joined": "fs.ext4.populate.populate",
        "open_tree": "volumes.tree",
        "probe": "fs.probe",
        "read_stream": "transfer.receive",
        "restore_dump": "files.dump",
        "write_stream": "transfer.send",
    },
)
