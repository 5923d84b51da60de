# SPDX-License-Identifier: MIT
"""Resolve a path inside a tree, one name at a time; symlinks, absolute or not, and ".." never lead out of it."""

from __future__ import annotations

import errno

from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.inodes import StoredInode
from pydiskimg.fs.ext4.tree.files import RefusedError
from pydiskimg.startup import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Files(Protocol):
    """The queries about the files of a tree that resolving a path needs."""

    def inode(self, number: int, /) -> StoredInode: ...

    def find(self, directory: StoredInode, name: bytes, /) -> int | None: ...

    def target(self, inode: StoredInode, /) -> bytes: ...


class HasFiles(Protocol):
    """A tree in which paths are resolved."""

    @property
    def files(self) -> Files: ...


AnyTree = TypeVar("AnyTree", bound=HasFiles)

_SYMLINKS = 40  # as many as the kernel follows
_NAMES = 4096  # that symlinks add to a path: each is a search in a directory, and 40 targets may have a million names


class Step(Generic[AnyTree]):
    """A directory or file of a tree on the way, by its name in its parent directory."""

    __slots__ = ("inode", "name", "tree")

    def __init__(self, tree: AnyTree, inode: StoredInode, name: bytes = b"") -> None:
        self.tree = tree
        self.inode = inode
        self.name = name


class FollowedSymlinks:
    """Counts the symlinks on the way of a path, to limit their number."""

    def __init__(self) -> None:
        self._count = self._names = 0

    def names(self, target: bytes) -> list[bytes]:
        """Return the names in another target, in reverse order. Raises RefusedError (ELOOP) for too many."""
        names = target.split(b"/")[::-1]
        self._count += 1
        self._names += len(names)
        if self._count > _SYMLINKS:
            raise RefusedError(f"leads through more than {_SYMLINKS} symlinks", errno.ELOOP)
        if self._names > _NAMES:
            raise RefusedError(f"leads through symlinks of more than {_NAMES} names", errno.ELOOP)
        return names


def walked(
    root: Step[AnyTree],
    path: bytes,
    *,
    follow_symlinks: bool,
    below_file: int = errno.ENOENT,
    entered: Callable[[Step[AnyTree]], Step[AnyTree]] = lambda step: step,
) -> tuple[list[Step[AnyTree]], bytes | None]:
    """Return the steps from root to the file at path, and the last name of path if that is missing.

    below_file is the errno for names below a file that is not a directory. entered returns the step that replaces a
    step: into another tree. Raises RefusedError (ENOENT, ELOOP), and as ExtFiles does.
    """
    steps, left, followed = [root], path.split(b"/")[::-1], FollowedSymlinks()
    while left:
        name, here = left.pop(), steps[-1]
        if here.inode.kind != layout.DIRECTORY:
            raise RefusedError("does not exist: a part of its path is not a directory", below_file)
        if name in (b"", b"."):
            continue
        if name == b"..":
            del steps[max(len(steps) - 1, 1) :]
            continue
        number = here.tree.files.find(here.inode, name)
        if number is None:
            if left:
                raise RefusedError("does not exist", errno.ENOENT)
            return steps, name
        inode = here.tree.files.inode(number)
        if inode.kind == layout.SYMLINK and (follow_symlinks or left):
            target = here.tree.files.target(inode)
            if target.startswith(b"/"):
                del steps[1:]
            left += followed.names(target)
            continue
        steps.append(entered(Step(here.tree, inode, name)))
    return steps, None


def path_in_tree(steps: Sequence[Step[AnyTree]]) -> bytes:
    """Return the path of the last step from the root of its own tree; b"" for that root."""
    names: list[bytes] = []
    for step in reversed(steps):
        if step.inode.number == layout.ROOT_INODE:
            break
        names.append(step.name)
    return b"/".join(reversed(names))
