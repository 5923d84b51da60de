# SPDX-License-Identifier: MIT
"""Hardware addresses by which the guest matches its interfaces: an import under another name changes them."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence

from ganeti_os.guest.facts.addresses import Field, Interface, natural_order
from ganeti_os.guest.facts.nics import NicNetwork
from ganeti_os.guest.facts.tokens import PLAIN_MAC, plain_mac
from ganeti_os.guest.network.files import NetworkFiles

log = logging.getLogger(__name__)

KERNEL_NAME = re.compile(r"eth([0-9]{1,3})")
_TOLD = 8


def moved_macs(files: NetworkFiles, found: Iterable[Interface], nics: Sequence[NicNetwork]) -> dict[str, str]:
    """Return the hardware addresses that become a NIC's, in lower case; doubtful ones are logged and stay.

    If the guest knows as many as the instance has NICs, a single remaining one belongs to the single remaining NIC; of
    several the order of the interfaces' names decides.
    """
    known = _matched(found)
    own = {nic.index: plain_mac(nic.mac) for nic in nics if nic.mac and PLAIN_MAC.fullmatch(plain_mac(nic.mac))}
    old = {mac: fields for mac, fields in known.items() if mac not in own.values()}
    new = [index for index, mac in sorted(own.items()) if mac not in known]
    if not old or not new:
        return {}
    pairs = _pairs(old, new) if len(known) == len(nics) == len(own) else None
    if pairs is not None:
        return {mac: own[index] for index, mac in pairs.items()}
    listed = [f"{files.location(one.path, one.span.start)}: {mac}" for mac, fields in old.items() for _, one in fields]
    log.warning(
        "the guest matches interfaces by hardware addresses of no NIC, and it is not clear which NIC is which; "
        "they stay: %s",
        ", ".join(listed[:_TOLD]),
    )
    return {}


def devices_by_mac(found: Iterable[Interface], macs: dict[str, str]) -> dict[str, set[str]]:
    """Return the interfaces of each hardware address, after the moves."""
    devices: dict[str, set[str]] = {}
    for mac, fields in _matched(found).items():
        devices.setdefault(macs.get(mac, mac), set()).update(interface.device for interface, _ in fields)
    return devices


def _matched(found: Iterable[Interface]) -> dict[str, list[tuple[Interface, Field]]]:
    known: dict[str, list[tuple[Interface, Field]]] = {}
    for interface in found:
        for one in interface.macs:
            known.setdefault(plain_mac(one.span.text), []).append((interface, one))
    return known


def _pairs(old: dict[str, list[tuple[Interface, Field]]], new: list[int]) -> dict[int, str] | None:
    """Return the previous hardware address of each NIC, None in doubt."""
    if len(old) == len(new) == 1:
        return {new[0]: next(iter(old))}
    names = {mac: min((interface.device for interface, _ in fields), key=natural_order) for mac, fields in old.items()}
    if len(set(names.values())) < len(names):
        return None
    numbers = {mac: KERNEL_NAME.fullmatch(name) for mac, name in names.items()}
    if all(numbers.values()):
        pairs = {int(match.group(1)): mac for mac, match in numbers.items() if match}
    else:
        pairs = dict(enumerate(sorted(old, key=lambda mac: natural_order(names[mac]))))
    return pairs if sorted(pairs) == new else None
