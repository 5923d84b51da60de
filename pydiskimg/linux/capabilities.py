# SPDX-License-Identifier: MIT
"""Which capabilities this process has (capabilities(7)): root in a container lacks some."""

from __future__ import annotations

CAP_SYS_RESOURCE = 24


def has_capability(number: int) -> bool:
    """True when the calling process has the capability now."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        effective = next((line for line in file if line.startswith("CapEff:")), "CapEff: 0")
    return bool(int(effective.split()[1], 16) >> number & 1)
