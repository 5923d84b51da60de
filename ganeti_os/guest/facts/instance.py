# SPDX-License-Identifier: MIT
"""The wanted properties of the system on an instance's disk, from Ganeti and the node's administrator."""

from __future__ import annotations

from dataclasses import dataclass

from ganeti_os.guest.facts.nics import NicNetwork, file_address, nic_networks
from ganeti_os.request import Request
from ganeti_os.settings.settings import Settings
from pydiskimg.system.edits.ip_address import IPAddress


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """name is the instance's, with its domain where it has one; old_name is what a rename or import had it before.

    is_new: the system gets an identity of its own (machine id, keys), because it is not the machine that its files come
    from. nics are in Ganeti's order, and old_address is the one that NIC 0 is known to have had. uuid is the
    instance's, if Ganeti passes it. serial_console: `gnt-instance console` shows the first serial port. boots_itself:
    the kernel is the system's own, not one of the node's.
    """

    name: str
    old_name: str | None
    uuid: str | None
    is_new: bool
    nics: tuple[NicNetwork, ...]
    old_address: IPAddress | None = None
    serial_console: bool = False
    boots_itself: bool = True


def instance_facts(request: Request, settings: Settings, *, is_new: bool) -> Facts:
    """Return the facts of the request's instance. Raises SettingsError for a file in NETWORKS_DIR that is not valid."""
    old_name = request.old_instance
    old = file_address(old_name, settings) if old_name is not None and old_name != request.instance else None
    return Facts(
        name=request.instance,
        old_name=old_name,
        uuid=request.uuid,
        is_new=is_new,
        nics=nic_networks(request, settings),
        old_address=old.address if old else None,
        serial_console=request.serial_console,
        boots_itself=request.kernel_inside,
    )
