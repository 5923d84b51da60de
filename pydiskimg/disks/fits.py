# SPDX-License-Identifier: MIT
"""Check that data fits on a disk, before the first byte is written."""

from __future__ import annotations

from pydiskimg.errors import DoesNotFitError
from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.units import format_bytes

if TYPE_CHECKING:
    from pydiskimg.protocols import Disk, Source


def check_fits(source: Source, disk: Disk) -> None:
    """Raise DoesNotFitError, with both sizes, when source is larger than disk; call it before the first write."""
    check_size_fits(source.name, source.size, disk)


def check_size_fits(name: str, size: int, disk: Disk, *, padding: int = 0) -> None:
    """Raise as check_fits() does unless an image of size bytes, called name, fits except for padding at its end."""
    if size - padding > disk.size:
        raise DoesNotFitError(
            f"{disk.name}: the image {name} needs {format_bytes(size)}, the disk has {format_bytes(disk.size)}; "
            "nothing was written",
            needed=size,
            available=disk.size,
        )
