# SPDX-License-Identifier: MIT
"""The contract of a guest's files: the methods of a Tree, and the errors of its paths."""

from __future__ import annotations

from pydiskimg.errors import StorageError
from pydiskimg.startup import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Mapping


class MissingPathError(StorageError, FileNotFoundError):
    """A path does not exist inside a guest's tree; also a FileNotFoundError."""


class ExistingPathError(StorageError, FileExistsError):
    """A file of this path already exists in a guest's tree; also a FileExistsError."""


class OutsideTreeError(StorageError):
    """A path inside a guest's tree cannot be resolved as required without leaving the tree."""


class ReadableTree(Protocol):
    """The contract of a guest's files that can be read, seen from the guest's own root; ExtTree is one.

    Paths are absolute inside the guest ("/etc/fstab"); "..", absolute and relative symlinks resolve inside the tree and
    never outside it. A path that does not exist raises FileNotFoundError; other failures raise StorageError.

    >>> from pydiskimg import ReadableTree, open_tree
    >>> def host_name(tree: ReadableTree) -> str:
    ...     return tree.read("/etc/hostname").decode().strip()
    >>> with open_tree("disk.qcow2") as tree:
    ...     host_name(tree)
    'web1'
    """

    def read(self, path: str, *, limit: int = 1 << 20) -> bytes:
        """Return the contents of a regular file, at most limit bytes (StorageError beyond it)."""

    def attribute(self, path: str, name: str) -> bytes | None:
        """Return an extended attribute of the file at path, symlinks followed; None if it has none of this name."""

    def stat(self, path: str, *, follow_symlinks: bool = True) -> os.stat_result:
        """Return the result of os.stat() for the path inside the tree."""

    def readlink(self, path: str) -> str:
        """Return the target of a symlink; path itself is not followed at its end. EINVAL if it is not a symlink."""

    def exists(self, path: str) -> bool:
        """True when path resolves to an existing file inside the tree."""

    def list(self, path: str) -> Iterable[str]:
        """Return the sorted names in a directory."""

    def walk(self, path: str = "/") -> Iterator[tuple[str, os.stat_result]]:
        """Yield (path, lstat) for everything below path, sorted, symlinks not followed, mounts not entered."""


class Tree(ReadableTree, Protocol):
    """The contract of a guest's files that can also be changed; ChangedTree is one. Paths are as for ReadableTree.

    >>> from pydiskimg import Tree, open_tree
    >>> def greet(tree: Tree) -> None:
    ...     tree.write("/etc/motd", b"welcome\\n")
    >>> with open_tree("disk.qcow2", writable=True) as tree:
    ...     greet(tree)
    """

    def write(
        self, path: str, data: bytes, *, mode: int = 0o644, attributes: Mapping[str, bytes] | None = None
    ) -> None:
        """Replace the contents of a regular file, or make one with this mode and these extended attributes.

        An existing file keeps owner, mode and attributes.
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
        """Put new files (name, contents) into a directory, replacing existing ones; not yet on stable storage."""

    def make_directory(self, path: str, *, mode: int = 0o755, attributes: Mapping[str, bytes] | None = None) -> None:
        """Make a directory with this mode and these extended attributes; FileExistsError if the path exists."""

    def symlink(self, path: str, target: str, *, attributes: Mapping[str, bytes] | None = None) -> None:
        """Make a symlink to target, which the guest resolves; FileExistsError if the path exists."""

    def remove(self, path: str) -> None:
        """Remove a file's name, or a symlink itself, durably; a directory raises StorageError."""
