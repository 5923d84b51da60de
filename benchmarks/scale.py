# SPDX-License-Identifier: MIT
"""How large the inputs are: those of the table, and small ones that take seconds, for trying the harness."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydiskimg.units import GIB, MIB, TIB


@dataclass(frozen=True, slots=True)
class Scale:
    """Sizes in bytes, and counts; the commands of rows may name each."""

    name: str
    disk: int = 4 * GIB
    data_size: int = 360 * MIB
    sparse_size: int = 20 * GIB
    sparse_data: int = 2 * GIB
    large: int = 10 * GIB
    large_data: int = 800 * MIB
    fragmented: int = 16 * GIB
    few_extents: int = 8_192
    many_extents: int = 131_072
    most_extents: int = 1_048_576
    scattered_size: int = TIB
    files: int = 1_000_000
    changes: int = GIB
    system: int = 4 * GIB
    files_system: int = 8 * GIB

    @property
    def numbers(self) -> Mapping[str, int]:
        return {name: getattr(self, name) for name in self.__slots__ if name != "name"}


FULL = Scale("full")
SMALL = Scale(
    "small",
    disk=320 * MIB,
    data_size=8 * MIB,
    sparse_size=GIB,
    sparse_data=16 * MIB,
    large=512 * MIB,
    large_data=16 * MIB,
    fragmented=64 * MIB,
    few_extents=32,
    many_extents=256,
    most_extents=1024,
    scattered_size=16 * GIB,
    files=500,
    changes=8 * MIB,
    system=512 * MIB,
    files_system=512 * MIB,
)
