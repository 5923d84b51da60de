# SPDX-License-Identifier: MIT
"""Make a restored system a machine of its own, in addition to the one that was backed up (IMPORT_IDENTITY=new)."""

from __future__ import annotations

import logging

from ganeti_os.guest.facts.instance import instance_facts
from ganeti_os.guest.instance import make_instance
from ganeti_os.guest.opened_guest import opened_guest
from ganeti_os.guest.root import LeftAloneError, NoRootError, find_guest
from ganeti_os.guest.seed_volume import renew_seed_volume
from ganeti_os.guest.ssh.key_pairs import KeyMaker
from ganeti_os.request import Request
from ganeti_os.settings.settings import Settings
from pydiskimg.protocols import ShownDisk

log = logging.getLogger(__name__)


def become_another(disk: ShownDisk, request: Request, settings: Settings, keys: KeyMaker) -> None:
    """Give the system on the disk the instance's name and an identity of its own; root is needed unless it is on an
    ext.

    A data disk is not changed, nor is a file system that GUEST_MOUNT=no excludes; the log says so.
    """
    facts = instance_facts(request, settings, is_new=True)
    has_volume = renew_seed_volume(disk, facts)
    try:
        guest = find_guest(disk, may_mount=settings.guest_mount)
        with opened_guest(disk, guest, may_mount=settings.guest_mount) as opened:
            make_instance(opened.tree, facts, settings, keys)
    except LeftAloneError as error:
        log.warning("the system keeps the identity of the machine that was backed up: %s", error)
        return
    except NoRootError as error:
        if not has_volume:
            log.info("no identity is changed: %s", error)
        return
    disk.flush()
