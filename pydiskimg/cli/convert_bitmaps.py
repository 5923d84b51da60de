# SPDX-License-Identifier: MIT
"""convert --bitmaps: the dirty bitmaps of the source are copied, too."""

from __future__ import annotations

from contextlib import contextmanager

from pydiskimg.cli.output import tell
from pydiskimg.errors import UnsupportedImageError
from pydiskimg.images.open_bitmaps import open_bitmaps
from pydiskimg.images.qcow2.write.disk import Qcow2Disk
from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.text import quoted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydiskimg.cli import Arguments
    from pydiskimg.images.qcow2.bitmap_set import BitmapSet
    from pydiskimg.protocols import Disk


@contextmanager
def copied_bitmaps(arguments: Arguments, disk: Disk) -> Iterator[None]:
    """Copy the bitmaps of the source to disk; writes to disk within the context are not recorded in them.

    Bitmaps in use are an error, or left out with a message, depending on the arguments. Raises before the first write
    if the source or disk cannot have bitmaps, or disk already has one of the same name.
    """
    if not isinstance(disk, Qcow2Disk) or disk.version < 3:
        raise UnsupportedImageError(f"{arguments.destination}: cannot have bitmaps; only qcow2 images of version 3 can")
    with open_bitmaps(arguments.source, format=arguments.format) as bitmaps:
        names = _names(arguments, bitmaps)
        for name in names:
            contents = bitmaps.contents(name)
            disk.bitmaps.add(name, contents.granularity, is_enabled=False)
            disk.bitmaps.merge(name, contents)
        yield
        for name in names:
            disk.bitmaps.enable(name, is_enabled=bitmaps.is_enabled(name))
        disk.flush()


def _names(arguments: Arguments, bitmaps: BitmapSet) -> list[bytes]:
    """The bitmaps to copy."""
    in_use = bitmaps.in_use
    if in_use and not arguments.skip_broken_bitmaps:
        raise UnsupportedImageError(
            f"{arguments.source}: bitmap {quoted(in_use[0])} was not closed by its last writer, so it may miss "
            "changes; remove it, or leave it out with --skip-broken-bitmaps"
        )
    for name in in_use:
        tell(f"{arguments.source}: bitmap {quoted(name)} was not closed by its last writer, and is left out")
    return [name for name in bitmaps.names if name not in in_use]
