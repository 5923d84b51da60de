# SPDX-License-Identifier: MIT
"""Open a path below a directory, following absolute symlinks that lead back into the directory."""

from __future__ import annotations

import errno
import os

from pydiskimg.linux.openat2 import RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, openat2
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_RESOLVE = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS
_MOST_LINKS = 40  # as many as the kernel follows


def open_beneath(dir_fd: int, path: bytes, names: Sequence[bytes]) -> int:
    """Return a descriptor (O_PATH, owned by the caller) of path below the directory dir_fd.

    names are absolute paths of that directory: an absolute symlink that begins with one of them is followed below
    dir_fd. The kernel opens the result beneath dir_fd in any case, so neither a link nor a race can leave it.

    Raises OSError as openat2() does: EXDEV for a path that leaves the directory, ELOOP for too many links.
    """
    try:
        return openat2(dir_fd, path, os.O_PATH, resolve=_RESOLVE)
    except OSError as error:
        # The kernel reports EXDEV for every absolute symlink, wherever it leads.
        if error.errno != errno.EXDEV:
            raise
    return openat2(dir_fd, _without_links(dir_fd, path, names), os.O_PATH, resolve=_RESOLVE)


def below(path: bytes, names: Sequence[bytes]) -> list[bytes] | None:
    """The parts of an absolute path after one of names; None if it does not begin with one."""
    parts = _parts(path)
    for name in names:
        above = _parts(name)
        if parts[: len(above)] == above and len(parts) > len(above):
            return parts[len(above) :]
    return None


def _without_links(dir_fd: int, path: bytes, names: Sequence[bytes]) -> bytes:
    """The path with every symlink replaced by its target."""
    parts, done = _parts(path), 0
    for _ in range(_MOST_LINKS):
        target = None
        while done < len(parts) and (target := _link(dir_fd, b"/".join(parts[: done + 1]))) is None:
            done += 1
        if target is None:
            return b"/".join(parts)
        rest = parts[done + 1 :]
        if not target.startswith(b"/"):
            parts = parts[:done] + _parts(target) + rest
            continue
        inside = below(target, names)
        if inside is None:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), path)
        parts, done = inside + rest, 0
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)


def _link(dir_fd: int, path: bytes) -> bytes | None:
    """The target of the symlink at path; None if path is not a symlink. No part of path before is a symlink."""
    fd = openat2(dir_fd, path, os.O_PATH | os.O_NOFOLLOW, resolve=_RESOLVE)
    try:
        return os.readlink(b"", dir_fd=fd)
    except OSError as error:
        # not a symlink; for a descriptor's own name Linux reports ENOENT
        if error.errno in (errno.EINVAL, errno.ENOENT):
            return None
        raise
    finally:
        os.close(fd)


def _parts(path: bytes) -> list[bytes]:
    return [part for part in path.split(b"/") if part not in (b"", b".")]
