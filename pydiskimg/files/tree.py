# SPDX-License-Identifier: MIT
"""The contract of a guest's files: what a Tree promises, and the errors of its paths."""

from __future__ import annotations

from pydiskimg.errors import StorageError
from pydiskimg.startup import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Mapping


class MissingPathError(StorageError, FileNotFoundError):
    """A path does not exist inside a guest's tree; also a FileNotFoundError."""


class ExistingPathError(StorageError, FileExistsError):
    """Something is at a path of a guest's tree already; also a FileExistsError."""


class OutsideTreeError(StorageError):
    """A path inside a guest's tree does not resolve to what was asked for without leaving the tree."""


class ReadableTree(Protocol):
    """A guest's files to be read, seen from the guest's own root.

    Paths are absolute inside the guest ("/etc/fstab"); "..", absolute and relative symlinks resolve inside the
    tree and never outside it. A path that does not exist raises FileNotFoundError; other failures StorageError.
    """

    def read(self, path: str, *, limit: int = 1 << 20) -> bytes:
        """Return the contents of a regular file, at most limit bytes (StorageError beyond it)."""

    def attribute(self, path: str, name: str) -> bytes | None:
        """Return an extended attribute of what path resolves to, None where it has none of this name."""

    def stat(self, path: str, *, follow_symlinks: bool = True) -> os.stat_result:
        """Return what os.stat() gives for the path inside the tree."""

    def readlink(self, path: str) -> str:
        """Return where a symlink leads; the path itself is not followed at its end. EINVAL for what is not one."""

    def exists(self, path: str) -> bool:
        """True when path resolves to something inside the tree."""

    def list(self, path: str) -> Iterable[str]:
        """Return the sorted names in a directory."""

    def walk(self, path: str = "/") -> Iterator[tuple[str, os.stat_result]]:
        """Yield (path, lstat) for everything below path, sorted, symlinks not followed, mounts not entered."""


class Tree(ReadableTree, Protocol):
    """A guest's files, which can be changed, seen from the guest's own root; paths are those of ReadableTree."""

    def write(
        self, path: str, data: bytes, *, mode: int = 0o644, attributes: Mapping[str, bytes] | None = None
    ) -> None:
        """Replace the contents of a regular file, or make one with this mode and these extended attributes.

        An old file keeps owner, mode and attributes.
        """

    def replace(self, path: str, data: bytes) -> None:
        """Replace an existing file in one step: a reader sees the old or the new contents, never a part."""

    def write_files(
        self,
        directory: str,
        files: Iterable[tuple[str, bytes]],
        *,
        mode: int = 0o644,
        attributes: Mapping[str, bytes] | None = None,
    ) -> None:
        """Put new files (name, contents) into a directory, in place of any others; not yet on stable storage."""

    def make_directory(self, path: str, *, mode: int = 0o755, attributes: Mapping[str, bytes] | None = None) -> None:
        """Make one directory with this mode and these extended attributes; FileExistsError where something is."""

    def symlink(self, path: str, target: str, *, attributes: Mapping[str, bytes] | None = None) -> None:
        """Make a symlink to target, which the guest resolves; FileExistsError where something is."""

    def remove(self, path: str) -> None:
        """Take a file's name away, or a symlink itself, durably; a directory raises StorageError."""
