# SPDX-License-Identifier: MIT
"""The configuration in the guest's own files, which decides if ours are added, replace them, or are not written."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

# Not a NIC of Ganeti's: virtual interfaces, wireless ones, tunnels.
VIRTUAL = re.compile(
    r"(?:br|bridge|bond|team|vlan|vmbr|virbr|docker|lxc|dummy|tun|tap|wg|ppp|ib|can)(?:[-_0-9].*)?|wl.*|ww.*|.*\..*",
    re.DOTALL,
)


@dataclass(slots=True)
class Foreign:
    """Interfaces that other files configure, except loopback.

    for_all: one of the files is for any interface. odd is a location in them that Ganeti's facts cannot replace: a
    bridge, a bond, a VLAN, or an unknown form; empty if there is none. own tells which bytes of which file are ours.
    """

    devices: set[str] = field(default_factory=set)
    for_all: bool = False
    odd: str = ""
    own: dict[str, range] = field(default_factory=dict)

    def note(self, device: str, *, is_pattern: bool = False) -> None:
        """Note an interface that is configured, or a pattern of names."""
        self.devices.add(device)
        self.for_all = self.for_all or is_pattern

    def note_own(self, path: str, data: bytes) -> None:
        """Note a file that is ours as a whole."""
        self.own[path] = range(len(data))

    def note_odd(self, location: str) -> None:
        """Note the first location that cannot be replaced."""
        self.odd = self.odd or location

    def covers(self, count: int) -> bool:
        """True if these files may configure that many NICs."""
        return self.for_all or len(self.devices) >= count
