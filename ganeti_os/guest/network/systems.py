# SPDX-License-Identifier: MIT
"""SYSTEMS: the programs that may configure a guest's network, and which does: installed, and started at boot."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from ganeti_os.guest.facts.addresses import Interface
from ganeti_os.guest.network.files import NetworkFiles
from ganeti_os.guest.network.gentoo import gentoo_interfaces
from ganeti_os.guest.network.ifcfg import ifcfg_interfaces
from ganeti_os.guest.network.ifupdown import ifupdown_interfaces
from ganeti_os.guest.network.keyfile import keyfile_interfaces
from ganeti_os.guest.network.netplan import netplan_interfaces
from ganeti_os.guest.network.networkd import networkd_interfaces
from ganeti_os.guest.network.writing import ifcfg, ifupdown, keyfile, netifrc, netplan, networkd, wicked
from ganeti_os.guest.network.writing.existing_files import Foreign
from ganeti_os.guest.network.writing.nic_plan import NicPlan
from pydiskimg.system.edits.draft import Draft
from pydiskimg.system.edits.systemd import UNIT_DIRECTORIES, has_systemd, is_masked

_NETWORK_FILES = "/etc/systemd/network"
_WANTS = ("multi-user.target.wants", "network-online.target.wants", "network.target.wants", "sysinit.target.wants")
_GENERATORS = ("/usr/lib/systemd/system-generators/netplan", "/lib/systemd/system-generators/netplan")
_NETWORKD = ("/usr/lib/systemd/systemd-networkd", "/lib/systemd/systemd-networkd")

_NETWORKD_UNITS = (
    ("multi-user.target", "systemd-networkd.service"),
    ("sockets.target", "systemd-networkd.socket"),
    ("network-online.target", "systemd-networkd-wait-online.service"),
)


class Write(Protocol):
    """Write the files of all plans; with replaces, other files' configuration of NICs is removed."""

    def __call__(self, draft: Draft, plans: Sequence[NicPlan], *, replaces: bool) -> None: ...


@dataclass(frozen=True, slots=True)
class System:
    """A program that configures networks. paths are prefixes of its files; read yields their configuration.

    keeps_resolver: it writes /etc/resolv.conf itself. comes_first: our files have precedence over others, which stay
    then.
    """

    name: str
    paths: tuple[str, ...]
    read: Callable[[NetworkFiles], Iterator[Interface]]
    foreign: Callable[[Draft], Foreign]
    write: Write
    keeps_resolver: bool = False
    comes_first: bool = False


IFUPDOWN = System("ifupdown", ifupdown.PATHS, ifupdown_interfaces, ifupdown.ifupdown_foreign, ifupdown.write_interfaces)
NETPLAN = System("netplan", netplan.PATHS, netplan_interfaces, netplan.netplan_foreign, netplan.write_netplan)
NETWORKD = System(
    "systemd-networkd",
    networkd.PATHS,
    networkd_interfaces,
    networkd.networkd_foreign,
    networkd.write_networkd,
    comes_first=True,
)
KEYFILE = System(
    "NetworkManager",
    keyfile.PATHS,
    keyfile_interfaces,
    keyfile.keyfile_foreign,
    keyfile.write_keyfiles,
    keeps_resolver=True,
    comes_first=True,
)
IFCFG = System(
    "ifcfg files", ifcfg.PATHS, ifcfg_interfaces, ifcfg.ifcfg_foreign, ifcfg.write_ifcfg, keeps_resolver=True
)
WICKED = System(
    "wicked", wicked.PATHS, ifcfg_interfaces, wicked.wicked_foreign, wicked.write_wicked, keeps_resolver=True
)
NETIFRC = System(
    "netifrc", netifrc.PATHS, gentoo_interfaces, netifrc.netifrc_foreign, netifrc.write_netifrc, keeps_resolver=True
)


def network_system(draft: Draft) -> System | None:
    """Return the program that configures the guest's network at boot; None if no known one is installed.

    If several start, the first with a configuration for a NIC does it. NetworkManager ignores interfaces of ifupdown,
    and networkd ignores interfaces without a *.network file of the guest's own.
    """
    return next((system for system, is_used in _RULES if is_used(draft)), None)


def starts_networkd(draft: Draft) -> bool:
    """True if systemd-networkd starts at boot."""
    return _starts(draft, "systemd-networkd.service") and not is_masked(draft, "systemd-networkd.service")


def enable(draft: Draft, system: System) -> None:
    """Enable an installed program at boot, if only that is missing."""
    if system is NETWORKD and not starts_networkd(draft):
        directory = next((one for one in UNIT_DIRECTORIES[1:] if draft.exists(one)), UNIT_DIRECTORIES[1])
        for target, unit in _NETWORKD_UNITS:
            wanted = f"{UNIT_DIRECTORIES[0]}/{target}.wants/{unit}"
            draft.symlink(wanted, f"{directory}/{unit}", "enabled: nothing else configures the network")
    service = "/etc/init.d/networking"
    if system is IFUPDOWN and draft.is_file(service) and draft.exists("/etc/runlevels/boot"):
        levels = ("/etc/runlevels/boot", "/etc/runlevels/default")
        if not any(draft.files(level, "networking") for level in levels):
            draft.symlink(f"{levels[0]}/networking", service, "enabled: it configures the network")


def _uses_netplan(draft: Draft) -> bool:
    has_files = any(
        draft.files(directory, "*.yaml") for directory in ("/etc/netplan", "/usr/lib/netplan", "/lib/netplan")
    )
    return has_files and any(draft.is_file(path) for path in _GENERATORS)


def _has_ifupdown(draft: Draft) -> bool:
    """True for ifupdown or its likes, started by systemd, OpenRC or init."""
    if not any(draft.exists(path) for path in ("/sbin/ifup", "/usr/sbin/ifup")):
        return False
    if draft.exists("/etc/sysconfig/network-scripts") or draft.exists("/etc/sysconfig/network"):
        return False  # Red Hat's and SUSE's ifup
    if draft.exists("/etc/runlevels/boot") or draft.exists("/etc/runlevels/default"):
        return draft.is_file("/etc/init.d/networking")
    if draft.exists(UNIT_DIRECTORIES[0]) and has_systemd(draft):
        return _starts(draft, "networking.service") and not is_masked(draft, "networking.service")
    return draft.exists("/etc/network")


def _ifupdown_has_nics(draft: Draft) -> bool:
    foreign = ifupdown.ifupdown_foreign(draft)
    return bool(foreign.devices) or any(foreign.own.values())


def _prefers_ifcfg(draft: Draft) -> bool:
    """True if NetworkManager reads ifcfg files, and the guest has some, or scripts that do."""
    directory = "/etc/sysconfig/network-scripts"
    names = {path.rpartition("/")[2] for path in draft.files(directory, "ifcfg-*")} - {"ifcfg-lo"}
    return bool(names) or draft.is_file(f"{directory}/ifup-eth")


def _is_old_suse(draft: Draft) -> bool:
    scripts = ("/etc/sysconfig/network/scripts/ifup-route", "/etc/sysconfig/network/scripts/ifup")
    return any(draft.is_file(path) for path in scripts) and not draft.is_file("/usr/sbin/NetworkManager")


def _starts(draft: Draft, unit: str) -> bool:
    """True when a target wants the unit, or an alias of it does."""
    return any(
        draft.stat(f"{directory}/{target}/{unit}", follow_symlinks=False) is not None
        for directory in UNIT_DIRECTORIES
        for target in _WANTS
    )


def _networkd_is_chosen(draft: Draft) -> bool:
    """True if networkd starts, and ifupdown either does not start or has nothing for a NIC while networkd has."""
    return starts_networkd(draft) and (not _has_ifupdown(draft) or _has_own(draft))


def _has_own(draft: Draft) -> bool:
    """True when the guest has *.network files of its own."""
    return bool(draft.files(_NETWORK_FILES, "*.network"))


def _is_installed(draft: Draft, *paths: str) -> bool:
    return any(draft.is_file(path) for path in paths)


_RULES: tuple[tuple[System, Callable[[Draft], bool]], ...] = (
    (NETPLAN, _uses_netplan),
    (IFUPDOWN, lambda draft: _has_ifupdown(draft) and _ifupdown_has_nics(draft)),
    (IFCFG, lambda draft: _starts(draft, "NetworkManager.service") and _prefers_ifcfg(draft)),
    (KEYFILE, lambda draft: _starts(draft, "NetworkManager.service")),
    (WICKED, lambda draft: _starts(draft, "wicked.service") or _is_old_suse(draft)),
    (NETPLAN, lambda draft: _is_installed(draft, *_GENERATORS) and not _has_ifupdown(draft) and not _has_own(draft)),
    (NETWORKD, _networkd_is_chosen),
    (IFUPDOWN, _has_ifupdown),
    (IFCFG, lambda draft: _is_installed(draft, "/etc/sysconfig/network-scripts/ifup-eth")),
    (NETIFRC, lambda draft: _is_installed(draft, "/etc/init.d/net.lo") and draft.exists("/etc/runlevels/default")),
    # Nothing starts these: a first boot enables their unit by a preset, or enable() does.
    (KEYFILE, lambda draft: _is_installed(draft, "/usr/sbin/NetworkManager")),
    (
        NETWORKD,
        lambda draft: _is_installed(draft, *_NETWORKD) and not is_masked(draft, "systemd-networkd.service"),
    ),
)
