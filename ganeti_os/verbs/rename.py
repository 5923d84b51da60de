# SPDX-License-Identifier: MIT
"""rename: the system on the instance's disk gets the instance's new name, and its new address where it has one."""

from __future__ import annotations

import logging
from contextlib import ExitStack

from ganeti_os.guest.facts.instance import Facts, instance_facts
from ganeti_os.guest.firmware import holds_firmware_variables
from ganeti_os.guest.instance import make_instance
from ganeti_os.guest.mounted_guest import mounted_root
from ganeti_os.guest.root import Guest, NoRootError, find_guest
from ganeti_os.guest.seed_volume import renew_seed_volume
from ganeti_os.log import Messages
from ganeti_os.request import Request
from ganeti_os.settings.settings import Settings
from pydiskimg.disks.descriptor import DescriptorDisk
from pydiskimg.errors import DiskImageError, PartitionError
from pydiskimg.files.mounted_tree import open_mounted_tree
from pydiskimg.host.mount import enter_private_namespace
from pydiskimg.images.open_disk import open_disk

log = logging.getLogger(__name__)


def run(request: Request, settings: Settings, messages: Messages) -> None:
    """Rename the system on the first of the request's disks that holds one; again is a success without a change.

    Any name that the system had becomes the new one. Where its root cannot be found, the seed of its cloud-init is
    renamed. Raises NoRootError when there is neither; nothing was written then.
    """
    reason = _nothing_to_do(request, settings)
    if reason is not None:
        log.info("%s: nothing is changed inside", reason)
        return
    with ExitStack() as stack:
        with messages.step("finding the root file system"):
            enter_private_namespace()  # first: that it needs root is not a matter of one file system
            facts = instance_facts(request, settings, is_new=False)
            found = _find(stack, request, facts)
        if found is not None:
            with messages.step("renaming"):
                _rename(*found, facts, settings)


def _rename(disk: DescriptorDisk, guest: Guest, facts: Facts, settings: Settings) -> None:
    # For the edit only: nothing of the guest's is run, and its device nodes are not opened.
    name = f"{disk.name}, {guest.root.location}"
    with mounted_root(disk, guest) as mounted, open_mounted_tree(mounted.target, name=name) as tree:
        make_instance(tree, facts, settings)
    renew_seed_volume(disk, facts)
    disk.flush()


def _nothing_to_do(request: Request, settings: Settings) -> str | None:
    switched_off = settings.identity_is_off
    if switched_off:
        return switched_off
    return None if request.disks else "the instance has no disks"


def _find(stack: ExitStack, request: Request, facts: Facts) -> tuple[DescriptorDisk, Guest] | None:
    """Return the first disk with a root file system, which stack closes, and what is where on it.

    None where there is none, but a volume with a seed of cloud-init, which is renamed.
    """
    has_seed = False
    reasons: list[DiskImageError] = []
    for candidate in request.disks:
        if candidate.access == "ro":
            log.info("%s is read-only; it is not searched for a root file system", candidate.path)
            continue
        with ExitStack() as opened:
            disk = opened.enter_context(open_disk(candidate.path, writable=True))
            if holds_firmware_variables(disk):
                log.info("%s holds firmware variables (UEFI) and stays as it is", candidate.path)
                continue
            try:
                guest = find_guest(disk)
            except (NoRootError, PartitionError) as error:
                reasons.append(error)
                has_seed |= renew_seed_volume(disk, facts)
                continue
            stack.enter_context(opened.pop_all())
            return disk, guest
    if has_seed:
        log.info("the root was not found, so that only cloud-init knows the new name: %s", reasons[0])
        return None
    if len(reasons) == 1:
        raise reasons[0]
    raise NoRootError("no disk holds a system: " + ("; ".join(map(str, reasons)) or "none can be written to"))
