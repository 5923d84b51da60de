# SPDX-License-Identifier: MIT
"""Reading of a device by the checks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

# Maps (offset, length) in bytes to the bytes there, fewer at the end of the device.
Reader: TypeAlias = Callable[[int, int], bytes]
