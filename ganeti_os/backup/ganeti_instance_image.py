# SPDX-License-Identifier: MIT
"""Backups of ganeti-instance-image: a tar of disk.img (a qcow2), or of root.dump and boot.dump (dump(8))."""

from __future__ import annotations

import logging
import os
import posixpath
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace

from ganeti_os.install import scripts
from ganeti_os.install.held_disk import HeldDisk
from ganeti_os.install.image_file import open_complete_image
from ganeti_os.install.installation import Installation
from ganeti_os.install.nameless_file import end_at, nameless_file
from pydiskimg.disks.fits import check_fits
from pydiskimg.errors import InvalidImageError
from pydiskimg.files.tar import FileInArchive, files_in_archive
from pydiskimg.linux.fileio import pwrite_all
from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.transfer.copy import copy
from pydiskimg.transfer.pipe import PipeReader
from pydiskimg.units import format_size

if TYPE_CHECKING:
    from ganeti_os.install.from_dumps import DumpFile

log = logging.getLogger(__name__)

_DISK = "disk.img"
_DUMPS = {"root.dump": "root", "boot.dump": "boot"}


def restore_archive(pipe: PipeReader, installation: Installation) -> HeldDisk | None:
    """Restore the contents of the tar on the pipe. Dumps need no space except on the disk.

    Returns a disk that the caller releases; None if it was made from dumps and is complete.
    """
    with closing(_members(pipe)) as members:
        first = next(members, None)
        if first is None:
            raise InvalidImageError(f"{pipe.name}: the archive is empty; expected {_DISK}, or root.dump and boot.dump")
        kind, file = first
        if kind == _DISK:
            return _restore_disk(file, members, installation)
        from ganeti_os.install.from_dumps import (
            restore_dumps,  # this imports libparted, which a disk.img does not need
        )

        restore_dumps(_dumps(first, members), for_import(installation))
        return None


def restore_dump_of_root(pipe: PipeReader, installation: Installation) -> None:
    """Restore a dump(8) while it arrives."""
    from ganeti_os.install.from_dumps import ROOT, restore_dumps

    restore_dumps([(ROOT, pipe)], for_import(installation))


def for_import(installation: Installation) -> Installation:
    """Run only the one script that a restored system needs, and tell it why, as ganeti-instance-image does.

    A dump has no boot loader before its partitions. A script called grub installs one, instead of the built-in one.
    """
    enabled = scripts.enabled(installation.settings.customize_dir)
    grub = tuple(script for script in enabled if os.path.basename(script) == "grub")
    if not grub and installation.request.kernel_inside and installation.settings.bootloader == "none":
        log.warning(
            "no boot loader is installed (BOOTLOADER=none): dumps contain none, and %s has no script grub",
            installation.settings.customize_dir,
        )
    environment = {**installation.request.environment, "IMPORT_SCRIPT": "1"}
    return replace(installation, scripts=grub, request=replace(installation.request, environment=environment))


def _members(pipe: PipeReader) -> Generator[tuple[str, FileInArchive], None, None]:
    with closing(files_in_archive(pipe)) as files:
        for file in files:
            name = posixpath.normpath(file.path)
            if name != _DISK and name not in _DUMPS:
                raise InvalidImageError(
                    f"{file.name}: is not a part of a backup; expected {_DISK}, or root.dump and boot.dump"
                )
            yield name, file


def _dumps(
    first: tuple[str, FileInArchive], others: Iterator[tuple[str, FileInArchive]]
) -> Iterator[tuple[str, DumpFile]]:
    yield _DUMPS[first[0]], first[1]
    for name, file in others:
        if name not in _DUMPS:
            raise InvalidImageError(f"{file.name}: is in the backup besides dumps; expected either a disk or dumps")
        yield _DUMPS[name], file


def _restore_disk(
    file: FileInArchive, others: Iterator[tuple[str, FileInArchive]], installation: Installation
) -> HeldDisk:
    """Keep the image in an unnamed file, because its tables may be anywhere in it, and copy it from there."""
    messages, disk = installation.messages, installation.disk
    with (
        _kept(file, installation.settings.export_dir) as path,
        open_complete_image(path, format="qcow2", name=file.name) as image,
    ):
        log.info("%s: qcow2, %s", file.name, format_size(image.size))
        if next(others, None) is not None:  # also the end of the archive, which proves that it is complete
            raise InvalidImageError(f"{file.name}: is not the only file of the backup; expected one disk")
        check_fits(image, disk)
        if installation.gives_identity:
            # imported here, because it takes long to import
            from ganeti_os.install.customise import require_right_to_mount

            hint = "without it IMPORT_IDENTITY=keep restores a disk as it was"
            require_right_to_mount(installation, image, hint)
        target = HeldDisk(disk, installation.wiping)
        copy(image, target, progress=messages.progress("restored"))
        target.commit()
        return target


@contextmanager
def _kept(file: FileInArchive, directory: str) -> Iterator[str]:
    """Write the file to an unnamed one in directory, and yield a path to it."""
    with nameless_file(directory, f"{file.path}, {format_size(file.size)}", setting="EXPORT_DIR") as fd:
        for position, data in file.blocks():
            pwrite_all(fd, position, data, name=directory)
        end_at(fd, file.size, directory)  # including a hole at the end
        yield f"/proc/self/fd/{fd}"
