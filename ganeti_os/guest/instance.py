# SPDX-License-Identifier: MIT
"""Turn the system on the disk into the instance: create, rename and import use the same facts and this code."""

from __future__ import annotations

import logging

from ganeti_os.guest.access import give_access
from ganeti_os.guest.cloud_init import cloud_init_configures_network, configure_cloud_init
from ganeti_os.guest.facts.instance import Facts
from ganeti_os.guest.machine_ids import make_machine_ids
from ganeti_os.guest.network.change_addresses import Moved, change_addresses
from ganeti_os.guest.network.configure import configure_network
from ganeti_os.guest.network.dhcp import change_client_names
from ganeti_os.guest.network.old_addresses import tell_of_old_addresses
from ganeti_os.guest.ssh.host_keys import make_host_keys
from ganeti_os.guest.ssh.key_pairs import KeyMaker
from ganeti_os.settings.settings import Settings
from pydiskimg.files.tree import Tree
from pydiskimg.system import hosts
from pydiskimg.system.boot.config import add_kernel_arguments
from pydiskimg.system.boot.serial_console import configure_serial_console
from pydiskimg.system.edits.draft import Draft
from pydiskimg.system.edits.renaming import Renaming, short
from pydiskimg.system.hostname import PATHS, change_host_name, host_names

log = logging.getLogger(__name__)


def make_instance(tree: Tree, facts: Facts, settings: Settings, keys: KeyMaker | None = None) -> None:
    """Give the system in the tree the instance's name and network, and a new one an identity of its own.

    keys may have been started earlier, so that they are ready by now. All refusals come before the first write.
    """
    draft = Draft(tree)
    moved = give_name_and_network(draft, facts)
    if facts.is_new:
        make_new_identity(draft, facts, keys or KeyMaker())
        give_access(draft, settings)
        configure_console(draft, facts, settings)
    configure_cloud_init(draft, facts, settings)
    tell_of_old_addresses(draft, moved)
    if not write_in_order(draft, moved):
        log.info("the system already has the name %s; nothing was changed", facts.name)


def give_name_and_network(draft: Draft, facts: Facts) -> Moved:
    """Give the system the instance's host name and, unless its cloud-init does it, its network."""
    found = host_names(draft)
    _tell_of_other_names(found, facts)
    renaming = Renaming.of(facts.name, [facts.old_name, *found])
    change_client_names(draft, renaming)
    named = hosts.named_addresses(draft, renaming)
    moved = change_addresses(draft, facts.nics, old=facts.old_address, named=named)
    if not cloud_init_configures_network(draft, facts):
        configure_network(draft, facts)
    own = _own_address(facts) if facts.is_new else None
    hosts.change_hosts(draft, renaming, moved.addresses, own_address=own)
    change_host_name(draft, renaming)
    return moved


def write_in_order(draft: Draft, moved: Moved) -> int:
    """Write the changes, last the files that a run after an interruption relies on; return how many files.

    That is the host name, and then the old addresses.
    """

    def order(path: str) -> int:
        if path == hosts.PATH:
            return 0
        if path in PATHS:
            return 2
        return 3 if path in moved.paths else 1

    return draft.write(order)


def configure_console(draft: Draft, facts: Facts, settings: Settings) -> None:
    """Give a new system's kernel its arguments, and the serial console a login. BOOTLOADER=none: no arguments."""
    if facts.serial_console:
        configure_serial_console(draft)
    if facts.boots_itself and settings.bootloader != "none":
        add_kernel_arguments(draft, kernel_args=settings.kernel_args, serial_console=facts.serial_console)


def _tell_of_other_names(found: list[str], facts: Facts) -> None:
    """Log the previous name of a renamed system, if it was neither its instance's old name nor the new one."""
    if facts.old_name is None or not found:
        return
    expected = Renaming.of(facts.name, [facts.old_name])
    if not expected.is_new(found[0]) and expected.replaced(found[0]) is None:
        log.warning("the system called itself %s, not %s like its instance", found[0], short(facts.old_name))


def _own_address(facts: Facts) -> bytes:
    """Return the address for the system's own name in /etc/hosts: the first one of its first NIC, if known."""
    known = [str(address.address) for nic in facts.nics[:1] for address in nic.addresses]
    return known[0].encode("ascii") if known else hosts.OWN_ADDRESS


def make_new_identity(draft: Draft, facts: Facts, keys: KeyMaker) -> None:
    """Give a new instance's system an identity of its own; keys and ids do not appear in the log.

    Raises StorageError for files that cannot be read.
    """
    make_machine_ids(draft)
    make_host_keys(draft, f"root@{short(facts.name)}", keys)
