# SPDX-License-Identifier: MIT
"""systemd in a guest: whether it is installed, where its units are, and which of them are masked."""

from __future__ import annotations

from pydiskimg.system.edits.draft import Draft

PROGRAMS = ("/usr/lib/systemd/systemd", "/lib/systemd/systemd")
# A unit in an earlier directory hides one of its name in a later one.
UNIT_DIRECTORIES = ("/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")


def has_systemd(draft: Draft) -> bool:
    """True when systemd is installed."""
    return any(map(draft.exists, PROGRAMS))


def is_masked(draft: Draft, unit: str) -> bool:
    """True for a unit that never starts: a symlink to /dev/null, which may be missing on a disk, or an empty file."""
    path = f"{UNIT_DIRECTORIES[0]}/{unit}"
    if draft.stat(path, follow_symlinks=False) is None:
        return False
    return not (draft.is_file(path) and draft.read(path))
