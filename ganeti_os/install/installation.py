# SPDX-License-Identifier: MIT
"""One run of create: all that its steps need, and the checks before the first write."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field

from ganeti_os.guest.facts.nics import check_network_files
from ganeti_os.guest.ssh.key_pairs import KeyMaker
from ganeti_os.install.wiping import Wiping
from ganeti_os.log import Messages
from ganeti_os.request import Request
from ganeti_os.settings.authorized_keys import keys_of_settings
from ganeti_os.settings.settings import Settings
from pydiskimg.disks.descriptor import DescriptorDisk
from pydiskimg.errors import StorageError


@dataclass(frozen=True, slots=True)
class Installation:
    """disk is the instance's first disk, swap the disk that becomes swap as a whole (OS API 5); both are open.

    scripts are the paths of the enabled customisation scripts, in the order in which they run. overlay is the directory
    whose files are copied over the installed system before that. keys makes the instance's host keys.
    """

    request: Request
    settings: Settings
    messages: Messages
    disk: DescriptorDisk
    swap: DescriptorDisk | None
    scripts: tuple[str, ...]
    overlay: str | None = None
    keys: KeyMaker = field(default_factory=KeyMaker)

    @property
    def wiping(self) -> Wiping:
        """Whether the data of a former instance are wiped."""
        return Wiping(self.settings.wipe, self.messages)

    @property
    def is_customised(self) -> bool:
        """True if the administrator's own files or scripts go into the installed system."""
        return bool(self.scripts or self.overlay)

    @property
    def gives_identity(self) -> bool:
        """True if the installed system becomes the instance; an imported one stays the machine that it was."""
        is_new = self.request.verb == "create" or self.settings.import_identity == "new"
        return is_new and not self.settings.identity_is_off

    @property
    def grows(self) -> bool:
        """True if a system that is copied as a disk should be grown to fill the instance's disk."""
        return self.settings.grow and not self.settings.nomount


def require_mounting(hint: str) -> None:
    """Enter the namespace for mounts, before the first write; without root, refuse with the hint."""
    # imported here: it takes longer to import than a small copy
    from pydiskimg.host.mount import enter_private_namespace

    try:
        enter_private_namespace()
    except StorageError as error:
        if error.errno != errno.EPERM:
            raise
        raise StorageError(f"{error}; {hint}", errno=error.errno, filename=error.filename) from error


def prepare_identity(request: Request, settings: Settings, keys: KeyMaker) -> None:
    """Check the identity of a new system, and start making the RSA key while the disk is written.

    Raises SettingsError and StorageError for authorised keys, user-data and files in NETWORKS_DIR that cannot be used,
    ImportError if the library for keys is missing.
    """
    keys_of_settings(settings)
    check_network_files(request.instance, settings)
    if settings.cloud_user_data:
        from ganeti_os.guest.cloud_init import check_user_data  # imported here: few settings have any

        check_user_data(settings)
    keys.start()
