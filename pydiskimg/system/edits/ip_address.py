# SPDX-License-Identifier: MIT
"""IP addresses as a system's files spell them."""

from __future__ import annotations

import ipaddress
from ipaddress import IPv4Address, IPv6Address

IPAddress = IPv4Address | IPv6Address


def parse_address(text: bytes | str) -> IPAddress | None:
    """Return the address in a text, None if it is not one."""
    if len(text) > 45:
        return None
    try:
        return ipaddress.ip_address(text.decode("ascii") if isinstance(text, bytes) else text)
    except (ValueError, UnicodeDecodeError):
        return None
