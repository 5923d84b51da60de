# SPDX-License-Identifier: MIT
"""How the checks read a device."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

# (offset, length) in bytes to the bytes there, fewer at the end of the device.
Reader: TypeAlias = Callable[[int, int], bytes]
