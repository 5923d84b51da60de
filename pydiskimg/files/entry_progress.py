# SPDX-License-Identifier: MIT
"""Progress by the contents of entries, as they are read: holes in files do not count."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator

from pydiskimg.files.entry import Entry
from pydiskimg.protocols import Progress
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    import os

    from pydiskimg.files.entry import Contents

_BLOCK = 512  # of st_blocks


def with_progress(entries: Iterable[Entry], progress: Progress, total: int) -> Iterator[Entry]:
    """Yield the entries, so that progress hears how many bytes of their contents, of about total, were read."""
    done = 0

    def reported(contents: Contents) -> Contents:
        nonlocal done
        for offset, data in contents:
            yield offset, data
            done += len(data)
            progress(done, max(done, total))

    for entry in entries:
        entry.contents = reported(entry.contents)
        entry.ranges = ()  # moved, they would not be seen
        yield entry


def stored_bytes(status: os.stat_result) -> int:
    """Return about how many bytes of data a file has, by what its file system has set aside for it."""
    return min(status.st_size, status.st_blocks * _BLOCK) if stat.S_ISREG(status.st_mode) else 0
