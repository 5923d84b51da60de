# SPDX-License-Identifier: MIT
"""What the guest's own files configure: it decides whether ours are written beside them, in their place, or not."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

# Not a NIC of Ganeti's: what is made of others, wireless, tunnels.
VIRTUAL = re.compile(
    r"(?:br|bridge|bond|team|vlan|vmbr|virbr|docker|lxc|dummy|tun|tap|wg|ppp|ib|can)(?:[-_0-9].*)?|wl.*|ww.*|.*\..*",
    re.DOTALL,
)


@dataclass(slots=True)
class Foreign:
    """Interfaces that files which are not ours configure, loopback left out.

    for_all: one of the files is for any interface. odd is a location in them that is not replaced by what Ganeti knows:
    a bridge, a bond, a VLAN, or what is not understood; empty where there is none. own tells which bytes of which
    file are ours.
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
        """Note the first location that is not replaced."""
        self.odd = self.odd or location

    def covers(self, count: int) -> bool:
        """True when as many NICs may be configured by these files."""
        return self.for_all or len(self.devices) >= count
