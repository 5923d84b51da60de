# SPDX-License-Identifier: MIT
"""import: a backup on standard input becomes one of the instance's disks (docs/backup-format.md)."""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from ganeti_os.backup.kind import BackupKind, backup_kind
from ganeti_os.backup.restore import restore_disk
from ganeti_os.guest.firmware import holds_firmware_variables
from ganeti_os.guest.ssh.key_pairs import KeyMaker
from ganeti_os.install.grow import grow, release_grown
from ganeti_os.install.held_disk import HeldDisk
from ganeti_os.install.installation import Installation, prepare_identity, require_mounting
from ganeti_os.log import Messages
from ganeti_os.request import Request
from ganeti_os.settings.settings import Settings
from pydiskimg.errors import DiskImageError, InUseError, StorageError
from pydiskimg.host.same_bytes import overlap
from pydiskimg.images.open_disk import open_disk
from pydiskimg.protocols import ShownDisk
from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.transfer.pipe import PipeReader
from pydiskimg.transfer.receive import Incoming

if TYPE_CHECKING:
    from ganeti_os.backup.kept_pipe import KeptPipe

log = logging.getLogger(__name__)

_STANDARD_INPUT = 0
_RESTORED = "everything is restored"
_KEEP = "IMPORT_IDENTITY=keep restores"


class NotAnotherError(DiskImageError):
    """A restored system could not be given a new identity."""


def run(request: Request, settings: Settings, messages: Messages) -> None:
    """Write the backup on standard input to the request's device, as it arrives.

    A backup that ends early, or cannot be given its new identity, leaves a disk that begins with zeros or has no
    partition table.
    """
    assert request.device is not None
    started = time.monotonic()
    keys = KeyMaker()
    another = settings.import_identity == "new" and not settings.identity_is_off
    if another:
        prepare_identity(request, settings, keys)
    with open_disk(request.device, writable=True) as disk:
        if overlap(os.fstat(_STANDARD_INPUT), os.fstat(disk.fd)):
            name = disk.name
            raise InUseError(f"{name}: is standard input itself; nothing was written", errno=None, filename=name)
        installation = Installation(request, settings, messages, disk, swap=None, scripts=(), keys=keys)
        with messages.step("restoring"):
            target = _restore(installation)
        grew = target is None or _complete(target, installation)
    ending = "is restored" if grew else "is restored and did not grow"
    log.info("%s %s (%.1f s)", request.device, ending, time.monotonic() - started)


def _restore(installation: Installation) -> HeldDisk | None:
    """Restore the backup; None if file systems were made for it, so that they fill the disk and are complete."""
    pipe = PipeReader(_STANDARD_INPUT, "standard input")
    kind = backup_kind(pipe, installation.settings.import_format)
    if kind in (BackupKind.QCOW2, BackupKind.RAW):
        with _looked_into(pipe, kind, installation) as looked_into:
            return restore_disk(looked_into, kind, installation.disk, installation.wiping)
    # Imported here: libarchive and libparted take longer to import than restoring a small disk.
    from ganeti_os.backup.ganeti_instance_image import restore_archive, restore_dump_of_root

    if kind is BackupKind.TAR:
        return restore_archive(pipe, installation)
    restore_dump_of_root(pipe, installation)
    return None


@contextmanager
def _looked_into(pipe: PipeReader, kind: BackupKind, installation: Installation) -> Iterator[Incoming]:
    """Refuse a system that must be mounted and cannot be, before the first write; otherwise give the pipe to read.

    For some backups that is known only when they are on the disk (ADR 0141).
    """
    refused = None
    if installation.gives_identity and installation.settings.guest_mount:
        refused = _refused_to_mount()
    with ExitStack() as stack:
        kept = _kept(pipe, installation, stack) if refused else None
        if kept is None:
            yield pipe
            return
        from ganeti_os.backup.beginning import has_to_be_mounted  # imported here: an import is nearly always root's

        if has_to_be_mounted(kept, kind, installation.disk):
            assert refused is not None
            raise refused
        yield kept


def _kept(pipe: PipeReader, installation: Installation, stack: ExitStack) -> KeptPipe | None:
    """Keep the beginning of the pipe until stack is closed; None if no directory can hold it."""
    from ganeti_os.backup.kept_pipe import KeptPipe
    from ganeti_os.install.nameless_file import nameless_file

    directory = installation.settings.export_dir
    try:
        fd = stack.enter_context(nameless_file(directory, "the beginning of a backup", setting="EXPORT_DIR"))
    except StorageError as error:
        log.info("%s; whether the system must be mounted is known only when it is on the disk", error)
        return None
    return KeptPipe(pipe, fd, directory)


def _refused_to_mount() -> StorageError | None:
    """Return the error for a user who may not mount; None for one who may."""
    try:
        require_mounting(f"without it {_KEEP} a disk as it was")
    except StorageError as error:
        if error.errno != errno.EPERM:
            raise
        return error
    return None


def _complete(target: HeldDisk, installation: Installation) -> bool:
    """Give the restored system a new identity if wanted, and grow it to fill the disk; False if it cannot grow."""
    if holds_firmware_variables(target):
        log.info("%s contains firmware variables (UEFI) and is not changed", target.name)
        target.release()
        return True
    if installation.gives_identity:
        become = partial(_become_another, installation=installation)
        return release_grown(target, installation, become, done=_RESTORED)
    target.release()
    may_mount = installation.settings.guest_mount
    return not installation.grows or grow(target.shown, installation.messages, done=_RESTORED, may_mount=may_mount)


def _become_another(disk: ShownDisk, installation: Installation) -> None:
    """Give the system on the disk a new identity; a disk may have no system.

    Until then the disk has no partition table: it must not be started together with the machine that was backed up.
    """
    from ganeti_os.guest.new_identity import become_another  # imported here: most imports do not need it

    try:
        with installation.messages.step("identity"):
            become_another(disk, installation.request, installation.settings, installation.keys)
    except DiskImageError as error:
        text = "the system could not be given a new identity, and is left without"
        raise NotAnotherError(f"{text} its partition table: {error}; {_KEEP} it as it was") from error
