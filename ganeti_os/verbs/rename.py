# SPDX-License-Identifier: MIT
"""rename: the system on the instance's disk gets the instance's new name, and its new address if it has one."""

from __future__ import annotations

import logging
from contextlib import ExitStack

from ganeti_os.guest.facts.instance import Facts, instance_facts
from ganeti_os.guest.firmware import holds_firmware_variables
from ganeti_os.guest.instance import make_instance
from ganeti_os.guest.opened_guest import opened_guest
from ganeti_os.guest.root import Guest, LeftAloneError, NoRootError, find_guest
from ganeti_os.guest.seed_volume import renew_seed_volume
from ganeti_os.log import Messages
from ganeti_os.request import Request
from ganeti_os.settings.settings import Settings
from pydiskimg.disks.descriptor import DescriptorDisk
from pydiskimg.errors import DiskImageError, PartitionError
from pydiskimg.images.open_disk import open_disk

log = logging.getLogger(__name__)


def run(request: Request, settings: Settings, messages: Messages) -> None:
    """Rename the system on the first of the request's disks that has one; repeating it succeeds without a change.

    Any old name of the system becomes the new one. If its root cannot be found, the name is changed in the seed of its
    cloud-init. Raises NoRootError if there is neither; nothing was written then.
    """
    reason = _nothing_to_do(request, settings)
    if reason is not None:
        log.info("%s: nothing is changed inside", reason)
        return
    with ExitStack() as stack:
        facts = instance_facts(request, settings, is_new=False)
        try:
            with messages.step("finding the root file system"):
                found = _find(stack, request, facts, settings)
            if found is not None:
                with messages.step("renaming"):
                    _rename(*found, facts, settings)
        except LeftAloneError as error:
            log.warning("the system keeps its name and addresses: %s", error)


def _rename(disk: DescriptorDisk, guest: Guest, facts: Facts, settings: Settings) -> None:
    # Only files are edited: the guest's programs are not run, and its device nodes are not opened.
    try:
        with opened_guest(disk, guest, with_boot=False, may_mount=settings.guest_mount) as opened:
            make_instance(opened.tree, facts, settings)
    except LeftAloneError:
        renew_seed_volume(disk, facts)
        raise
    renew_seed_volume(disk, facts)
    disk.flush()


def _nothing_to_do(request: Request, settings: Settings) -> str | None:
    switched_off = settings.identity_is_off
    if switched_off:
        return switched_off
    return None if request.disks else "the instance has no disks"


def _find(stack: ExitStack, request: Request, facts: Facts, settings: Settings) -> tuple[DescriptorDisk, Guest] | None:
    """Return the first disk with a root file system, which stack closes, and the volumes on it.

    Return None if there is only a volume with a seed of cloud-init, in which the name is changed.
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
                log.info("%s contains firmware variables (UEFI) and is not changed", candidate.path)
                continue
            try:
                guest = find_guest(disk, may_mount=settings.guest_mount)
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
    is_left = any(isinstance(reason, LeftAloneError) for reason in reasons)
    kind = LeftAloneError if is_left else NoRootError
    raise kind("no disk contains a system: " + ("; ".join(map(str, reasons)) or "all are read-only"))
