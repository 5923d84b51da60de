# SPDX-License-Identifier: MIT
"""A restored system that becomes another machine beside the one that was backed up (IMPORT_IDENTITY=new)."""

from __future__ import annotations

import logging

from ganeti_os.guest.facts.instance import instance_facts
from ganeti_os.guest.instance import make_instance
from ganeti_os.guest.mounted_guest import mounted_guest
from ganeti_os.guest.root import NoRootError, find_guest
from ganeti_os.guest.seed_volume import renew_seed_volume
from ganeti_os.guest.ssh.key_pairs import KeyMaker
from ganeti_os.request import Request
from ganeti_os.settings.settings import Settings
from pydiskimg.files.mounted_tree import open_mounted_tree
from pydiskimg.host.mount import enter_private_namespace
from pydiskimg.protocols import ShownDisk

log = logging.getLogger(__name__)


def become_another(disk: ShownDisk, request: Request, settings: Settings, keys: KeyMaker) -> None:
    """Give the system on the disk the instance's name and an identity of its own. Needs root.

    A disk of data only stays as it is; the log says so.
    """
    enter_private_namespace()
    facts = instance_facts(request, settings, is_new=True)
    has_volume = renew_seed_volume(disk, facts)
    try:
        guest = find_guest(disk)
    except NoRootError as error:
        if not has_volume:
            log.info("no identity is changed: %s", error)
        return
    name = f"{disk.name}, {guest.root.location}"
    with mounted_guest(disk, guest) as mounted, open_mounted_tree(mounted.target, name=name) as tree:
        make_instance(tree, facts, settings, keys)
    disk.flush()
