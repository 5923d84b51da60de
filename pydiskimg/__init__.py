# SPDX-License-Identifier: MIT
"""Disk images, partitions, file systems and archives in Python, without external programs.

An image is a Source of extents, a disk is a Disk that takes bytes at any offset, and copy() moves one to the other.
Partitions and file systems work on any Source or Disk: a block device, a file, a qcow2 image, a partition, memory.

>>> from pydiskimg import copy, new_image, open_image, open_tree
>>> with open_image("disk.qcow2") as source, new_image("disk-copy.raw", source.size) as disk:
...     copied = copy(source, disk, verify=True)
>>> with open_tree("disk-copy.raw") as tree:
...     print(tree.read("/etc/hostname"))
b'web1\\n'

Sizes, offsets and lengths are bytes everywhere. Every error that bad input, a full disk or a refused system call can
cause is a DiskImageError, whose text is one sentence. Each name is imported when it is first used.
"""

from __future__ import annotations

from pydiskimg.startup import TYPE_CHECKING, found_when_used

# The names once for type checkers, and once by the module that each is imported from when it is used.
if TYPE_CHECKING:
    from pydiskimg import errors as errors
    from pydiskimg.disks.memory import MemoryDisk as MemoryDisk
    from pydiskimg.errors import ArchiveError as ArchiveError
    from pydiskimg.errors import BootLoaderError as BootLoaderError
    from pydiskimg.errors import DiskImageError as DiskImageError
    from pydiskimg.errors import DoesNotFitError as DoesNotFitError
    from pydiskimg.errors import FileSystemError as FileSystemError
    from pydiskimg.errors import InUseError as InUseError
    from pydiskimg.errors import InvalidImageError as InvalidImageError
    from pydiskimg.errors import MountPointError as MountPointError
    from pydiskimg.errors import NoSpaceError as NoSpaceError
    from pydiskimg.errors import PartitionError as PartitionError
    from pydiskimg.errors import ReferenceDeniedError as ReferenceDeniedError
    from pydiskimg.errors import StorageError as StorageError
    from pydiskimg.errors import UnsupportedImageError as UnsupportedImageError
    from pydiskimg.errors import VerificationError as VerificationError
    from pydiskimg.extents import Extent as Extent
    from pydiskimg.extents import Kind as Kind
    from pydiskimg.files.directory import DirectoryReader as DirectoryReader
    from pydiskimg.files.dump import DumpReader as DumpReader
    from pydiskimg.files.dump import Restored as Restored
    from pydiskimg.files.dump import open_dump as open_dump
    from pydiskimg.files.dump import restore_dump as restore_dump
    from pydiskimg.files.entry import Entry as Entry
    from pydiskimg.files.tar import Extracted as Extracted
    from pydiskimg.files.tar import extract as extract
    from pydiskimg.files.tar import open_tar as open_tar
    from pydiskimg.files.tree import ReadableTree as ReadableTree
    from pydiskimg.files.tree import Tree as Tree
    from pydiskimg.fs.ext4.change.tree import ChangedTree as ChangedTree
    from pydiskimg.fs.ext4.make import make_ext as make_ext
    from pydiskimg.fs.ext4.new_file_system import ExtInfo as ExtInfo
    from pydiskimg.fs.ext4.new_file_system import NewExt as NewExt
    from pydiskimg.fs.ext4.populate.filling import Filling as Filling
    from pydiskimg.fs.ext4.populate.populate import Populated as Populated
    from pydiskimg.fs.ext4.populate.populate import populate as populate
    from pydiskimg.fs.ext4.populate.populate import populate_joined as populate_joined
    from pydiskimg.fs.ext4.shrink import minimum_size as minimum_size
    from pydiskimg.fs.ext4.shrink import shrink_ext as shrink_ext
    from pydiskimg.fs.ext4.tree import ExtTree as ExtTree
    from pydiskimg.fs.probe import FileSystemKind as FileSystemKind
    from pydiskimg.fs.probe import probe as probe
    from pydiskimg.fs.swap import SwapInfo as SwapInfo
    from pydiskimg.fs.swap import make_swap as make_swap
    from pydiskimg.images.amend import Amendment as Amendment
    from pydiskimg.images.amend import amend_image as amend_image
    from pydiskimg.images.create import new_image as new_image
    from pydiskimg.images.create import new_overlay as new_overlay
    from pydiskimg.images.measure import Measured as Measured
    from pydiskimg.images.measure import measure as measure
    from pydiskimg.images.open import open_image as open_image
    from pydiskimg.images.open_disk import open_disk as open_disk
    from pydiskimg.images.open_disk import open_image_disk as open_image_disk
    from pydiskimg.images.open_store import open_qcow2_store as open_qcow2_store
    from pydiskimg.images.qcow2.check import CheckResult as CheckResult
    from pydiskimg.images.qcow2.check import check_qcow2 as check_qcow2
    from pydiskimg.images.qcow2.repair.image import Repair as Repair
    from pydiskimg.images.qcow2.repair.image import repair_qcow2 as repair_qcow2
    from pydiskimg.images.qcow2.switch.bitmaps import change_bitmaps as change_bitmaps
    from pydiskimg.images.qcow2.switch.snapshots import apply_snapshot as apply_snapshot
    from pydiskimg.images.qcow2.switch.snapshots import delete_snapshot as delete_snapshot
    from pydiskimg.images.qcow2.switch.snapshots import take_snapshot as take_snapshot
    from pydiskimg.images.references import AllowedDirectory as AllowedDirectory
    from pydiskimg.images.references import allow_references as allow_references
    from pydiskimg.images.resize import resize_image as resize_image
    from pydiskimg.partitions.make import Content as Content
    from pydiskimg.partitions.make import NewPartition as NewPartition
    from pydiskimg.partitions.make import PartitionTable as PartitionTable
    from pydiskimg.partitions.make import plan_partition_table as plan_partition_table
    from pydiskimg.partitions.partition import Partition as Partition
    from pydiskimg.partitions.read import read_partition_table as read_partition_table
    from pydiskimg.protocols import Disk as Disk
    from pydiskimg.protocols import ImageSource as ImageSource
    from pydiskimg.protocols import Progress as Progress
    from pydiskimg.protocols import Source as Source
    from pydiskimg.protocols import Store as Store
    from pydiskimg.protocols import read_bytes as read_bytes
    from pydiskimg.regions.region import Region as Region
    from pydiskimg.regions.region import SourceRegion as SourceRegion
    from pydiskimg.system.build import BuiltSystem as BuiltSystem
    from pydiskimg.system.build import SystemOptions as SystemOptions
    from pydiskimg.system.build import build_system as build_system
    from pydiskimg.transfer.commit import commit as commit
    from pydiskimg.transfer.compare import Comparison as Comparison
    from pydiskimg.transfer.compare import compare as compare
    from pydiskimg.transfer.copy import Copied as Copied
    from pydiskimg.transfer.copy import copy as copy
    from pydiskimg.transfer.differences import write_differences as write_differences
    from pydiskimg.transfer.joined import JoinedSource as JoinedSource
    from pydiskimg.transfer.paced import PacedDisk as PacedDisk
    from pydiskimg.transfer.rebase import rebase as rebase
    from pydiskimg.transfer.rebase import rename_backing as rename_backing
    from pydiskimg.transfer.receive import Stream as Stream
    from pydiskimg.transfer.receive import read_stream as read_stream
    from pydiskimg.transfer.salvage import SalvagedSource as SalvagedSource
    from pydiskimg.transfer.send import write_stream as write_stream
    from pydiskimg.volumes.find import Volume as Volume
    from pydiskimg.volumes.find import find_volumes as find_volumes
    from pydiskimg.volumes.grow import VolumeGrowth as VolumeGrowth
    from pydiskimg.volumes.grow import grow_last_volume as grow_last_volume
    from pydiskimg.volumes.space import FileSystemSpace as FileSystemSpace
    from pydiskimg.volumes.space import file_system_space as file_system_space
    from pydiskimg.volumes.tree import open_tree as open_tree
    from pydiskimg.volumes.used import UsedSource as UsedSource
    from pydiskimg.volumes.used import used_source as used_source
    from pydiskimg.web.errors import FetchError as FetchError

__version__ = "0.1.0"

_HOMES = {
    "disks.memory": "MemoryDisk",
    "regions.region": "Region SourceRegion",
    "errors": (
        "ArchiveError BootLoaderError DiskImageError DoesNotFitError FileSystemError InUseError InvalidImageError "
        "MountPointError NoSpaceError PartitionError ReferenceDeniedError StorageError UnsupportedImageError "
        "VerificationError"
    ),
    "extents": "Extent Kind",
    "files.directory": "DirectoryReader",
    "files.dump": "DumpReader Restored open_dump restore_dump",
    "files.entry": "Entry",
    "files.tar": "Extracted extract open_tar",
    "files.tree": "ReadableTree Tree",
    "fs.ext4.change.tree": "ChangedTree",
    "fs.ext4.make": "make_ext",
    "fs.ext4.new_file_system": "ExtInfo NewExt",
    "fs.ext4.populate.filling": "Filling",
    "fs.ext4.populate.populate": "Populated populate populate_joined",
    "fs.ext4.shrink": "minimum_size shrink_ext",
    "fs.ext4.tree": "ExtTree",
    "fs.probe": "FileSystemKind probe",
    "fs.swap": "SwapInfo make_swap",
    "images.amend": "Amendment amend_image",
    "images.create": "new_image new_overlay",
    "images.measure": "Measured measure",
    "images.open": "open_image",
    "images.open_disk": "open_disk open_image_disk",
    "images.open_store": "open_qcow2_store",
    "images.qcow2.check": "CheckResult check_qcow2",
    "images.qcow2.repair.image": "Repair repair_qcow2",
    "images.qcow2.switch.bitmaps": "change_bitmaps",
    "images.qcow2.switch.snapshots": "apply_snapshot delete_snapshot take_snapshot",
    "images.references": "AllowedDirectory allow_references",
    "images.resize": "resize_image",
    "partitions.make": "Content NewPartition PartitionTable plan_partition_table",
    "partitions.partition": "Partition",
    "partitions.read": "read_partition_table",
    "protocols": "Disk ImageSource Progress Source Store read_bytes",
    "system.build": "BuiltSystem SystemOptions build_system",
    "transfer.commit": "commit",
    "transfer.compare": "Comparison compare",
    "transfer.copy": "Copied copy",
    "transfer.differences": "write_differences",
    "transfer.joined": "JoinedSource",
    "transfer.paced": "PacedDisk",
    "transfer.rebase": "rebase rename_backing",
    "transfer.receive": "Stream read_stream",
    "transfer.salvage": "SalvagedSource",
    "transfer.send": "write_stream",
    "volumes.find": "Volume find_volumes",
    "volumes.grow": "VolumeGrowth grow_last_volume",
    "volumes.space": "FileSystemSpace file_system_space",
    "volumes.tree": "open_tree",
    "volumes.used": "UsedSource used_source",
    "web.errors": "FetchError",
}

if not TYPE_CHECKING:  # with a __getattr__, a type checker would take any name for one of these
    _MODULES = {name: module for module, names in _HOMES.items() for name in names.split()}

    __all__ = sorted(_MODULES)  # noqa: PLE0605
    _found = found_when_used(globals(), _MODULES)

    def __getattr__(name):
        """Import the object of a public name; errors is also a module of its own."""
        if name == "errors":
            from importlib import import_module

            return import_module("pydiskimg.errors")
        return _found(name)

    def __dir__():
        """Return the names for dir() and help(), also those that are not imported yet."""
        return sorted({*globals(), *_MODULES, "errors"})
