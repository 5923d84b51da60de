# SPDX-License-Identifier: MIT
"""A udev rule that names a NIC by its hardware address, for programs whose files use only names.

It is a rule, not a *.link file: every udev since 2007 and eudev read it, and it takes precedence over *.link files.
"""

from __future__ import annotations

from collections.abc import Sequence

from ganeti_os.guest.network.writing.nic_plan import HEADER, NicPlan, is_ours
from pydiskimg.system.edits.draft import Draft

_PATH = "/etc/udev/rules.d/70-ganeti-nics.rules"
_UDEV = (
    "/usr/lib/systemd/systemd-udevd",
    "/lib/systemd/systemd-udevd",
    "/sbin/udevd",
    "/usr/sbin/udevd",
    "/lib/udev/udevd",
    "/usr/bin/udevadm",
    "/bin/udevadm",
    "/sbin/udevadm",
)


def has_udev(draft: Draft) -> bool:
    """True if udev runs in the guest: with OpenRC it must be enabled."""
    if draft.exists("/etc/runlevels/sysinit"):
        return draft.stat("/etc/runlevels/sysinit/udev", follow_symlinks=False) is not None
    return any(draft.is_file(path) for path in _UDEV)


def write_names(draft: Draft, plans: Sequence[NicPlan]) -> None:
    """Let udev name the NICs by their plans, overriding later rules. A VLAN has its NIC's address, but no driver."""
    rules = "".join(
        f'SUBSYSTEM=="net", ACTION=="add", DRIVERS=="?*", ATTR{{address}}=="{plan.mac}", ATTR{{type}}=="1", '
        f'NAME:="{plan.name}"\n'
        for plan in plans
    )
    if rules:
        draft.change(_PATH, HEADER + rules.encode("ascii"), "the names of the instance's NICs")
    elif draft.is_file(_PATH) and is_ours(draft, _PATH):
        draft.remove(_PATH, "taken away: no NIC needs a name")
