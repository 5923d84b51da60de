# SPDX-License-Identifier: MIT
"""import: a backup on standard input becomes one of the instance's disks (docs/backup-format.md)."""

from __future__ import annotations

import errno
import logging
import time

from ganeti_os.backup.disk import restore_disk
from ganeti_os.backup.kind import BackupKind, backup_kind
from ganeti_os.former import Wiping
from ganeti_os.guest.firmware import holds_firmware_variables
from ganeti_os.guest.ssh.key_pairs import KeyMaker
from ganeti_os.installation import Installation, prepare_identity
from ganeti_os.log import Messages
from ganeti_os.protocol import Request
from ganeti_os.settings import Settings
from pydiskimg.disk import open_disk
from pydiskimg.errors import DiskImageError, StorageError
from pydiskimg.targets.descriptor import DescriptorDisk
from pydiskimg.targets.pipe import PipeReader

log = logging.getLogger(__name__)

_STANDARD_INPUT = 0


class NotAnotherError(DiskImageError):
    """A restored system could not be made another machine."""


def run(request: Request, settings: Settings, messages: Messages) -> None:
    """Write the backup on standard input to the request's device, as it arrives.

    A backup that ends early leaves a disk that begins with zeros, or has no partition table.
    """
    assert request.device is not None
    started = time.monotonic()
    keys = KeyMaker()
    another = settings.import_identity == "new" and not settings.identity_is_off
    if another:
        _require_root()
        prepare_identity(settings, keys)
    with open_disk(request.device, writable=True) as disk:
        with messages.step("restoring"):
            pipe = PipeReader(_STANDARD_INPUT, "standard input")
            kind = backup_kind(pipe, settings.import_format)
            if kind in (BackupKind.QCOW2, BackupKind.RAW):
                restore_disk(pipe, kind, disk, Wiping(settings.wipe, messages))
            else:
                restore_files(pipe, kind, Installation(request, settings, messages, disk, swap=None, scripts=()))
        ending = "is restored"
        if holds_firmware_variables(disk):
            log.info("%s holds firmware variables (UEFI) and stays as it was backed up", disk.name)
            another = False
        elif settings.grow and not settings.nomount:
            from ganeti_os.growing import grow  # only here: it takes longer to import than a small disk to restore

            with messages.step("growing"):
                if not grow(disk, done="everything is restored"):
                    ending = "is restored and did not grow"
        if another:
            with messages.step("identity"):
                _become_another(disk, request, settings, keys)
    log.info("%s %s (%.1f s)", request.device, ending, time.monotonic() - started)


def _require_root() -> None:
    """Refuse without root, which what follows the restoring needs, before anything is written."""
    from pydiskimg.mount import enter_private_namespace  # only here, as another.py

    try:
        enter_private_namespace()
    except StorageError as error:
        if error.errno != errno.EPERM:
            raise
        text = f"{error}; without it IMPORT_IDENTITY=keep restores a disk as it was"
        raise StorageError(text, errno=error.errno, filename=error.filename) from error


def _become_another(disk: DescriptorDisk, request: Request, settings: Settings, keys: KeyMaker) -> None:
    """Let the system on the disk become another machine than the one that was backed up; a disk may hold none."""
    from ganeti_os.guest.another import become_another  # only here: most imports do without

    try:
        become_another(disk, request, settings, keys)
    except DiskImageError as error:
        text = "everything is restored, but the system may still be the machine that was backed up"
        raise NotAnotherError(f"{text}, with its keys and machine id: {error}") from error


def restore_files(pipe: PipeReader, kind: BackupKind, installation: Installation) -> None:
    """Restore a backup of ganeti-instance-image."""
    # Only here, as libarchive and libparted take longer to import than a small disk to restore.
    from ganeti_os.backup.predecessor import restore_archive, restore_dump_of_root

    if kind is BackupKind.TAR:
        restore_archive(pipe, installation)
    else:
        restore_dump_of_root(pipe, installation)
