# SPDX-License-Identifier: MIT
"""import: a backup on standard input becomes one of the instance's disks (docs/backup-format.md)."""

from __future__ import annotations

import errno
import logging
import time

from ganeti_os.backup.disk import restore_disk
from ganeti_os.backup.kind import BackupKind, backup_kind
from ganeti_os.former import Wiping
from ganeti_os.installation import Installation
from ganeti_os.log import Messages
from ganeti_os.protocol import Request
from ganeti_os.settings import Settings
from pydiskimg.disk import open_disk
from pydiskimg.errors import DiskImageError, StorageError
from pydiskimg.targets.descriptor import DescriptorDisk
from pydiskimg.targets.pipe import PipeReader

log = logging.getLogger(__name__)

_STANDARD_INPUT = 0
# The node's disk is at fault, and not what the guest has on it.
_DISK_FAILS = frozenset({errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.ENXIO, errno.EREMOTEIO})


def run(request: Request, settings: Settings, messages: Messages) -> None:
    """Write what comes on standard input to the request's device, as it arrives.

    Whatever ends early leaves a disk that begins with zeros, or has no partition table.
    """
    assert request.device is not None
    started = time.monotonic()
    with open_disk(request.device, writable=True) as disk:
        with messages.step("restoring"):
            pipe = PipeReader(_STANDARD_INPUT, "standard input")
            kind = backup_kind(pipe, settings.import_format)
            if kind in (BackupKind.QCOW2, BackupKind.RAW):
                restore_disk(pipe, kind, disk, Wiping(settings.wipe, messages))
            else:
                restore_files(pipe, kind, Installation(request, settings, messages, disk, swap=None, scripts=()))
        ending = "is restored"
        if settings.grow:
            with messages.step("growing"):
                ending = _grow(disk)
    log.info("%s %s (%.1f s)", request.device, ending, time.monotonic() - started)


def _grow(disk: DescriptorDisk) -> str:
    """Grow what is restored; return how the import ended. What does not grow is whole all the same.

    Raises StorageError when the disk itself fails.
    """
    from pydiskimg.growth import grow_last_volume  # only here: most imports do without

    try:
        log.info("%s", grow_last_volume(disk))
    except DiskImageError as error:
        if isinstance(error, StorageError) and error.errno in _DISK_FAILS:
            text = f"everything is restored, but growing failed: {error}"
            raise StorageError(text, errno=error.errno, filename=disk.name) from error
        log.warning("%s", error)
        return "is restored and did not grow"
    return "is restored"


def restore_files(pipe: PipeReader, kind: BackupKind, installation: Installation) -> None:
    """Restore a backup of ganeti-instance-image."""
    # Only here, as libarchive and libparted take longer to import than a small disk to restore.
    from ganeti_os.backup.predecessor import restore_archive, restore_dump_of_root

    if kind is BackupKind.TAR:
        restore_archive(pipe, installation)
    else:
        restore_dump_of_root(pipe, installation)
