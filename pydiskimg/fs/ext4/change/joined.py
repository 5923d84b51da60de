# SPDX-License-Identifier: MIT
"""Several ext file systems as one tree: each at a directory of another, as a guest mounts them, without a mount."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack

from pydiskimg.files.attributes import AttributesLeftOut
from pydiskimg.files.entry import Entry
from pydiskimg.files.tree import Tree
from pydiskimg.files.writer import Wording
from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.change.joined_put import JoinedWriter
from pydiskimg.fs.ext4.change.tree import ChangedTree, Put, made_of
from pydiskimg.fs.ext4.tree.files import RefusedError, with_device
from pydiskimg.fs.ext4.tree.steps import Step, path_in_tree, walked
from pydiskimg.text import quoted

_PATH_MAX = 4095  # bytes of a path, as the kernel has it


_Steps = list[Step[ChangedTree]]


class JoinedTree(Tree):
    """A Tree over a root and other trees at directories in it; all of them stay the caller's.

    ".." and symlinks lead from one to another as if all were mounted. The contents of a directory with a tree over it
    are hidden. Paths are at most 4095 bytes long. st_dev differs between the trees. A change takes effect as in the
    tree that it belongs to.
    """

    def __init__(self, root: ChangedTree) -> None:
        self.name = root.name
        self._root = root
        self._over: dict[tuple[int, int], ChangedTree] = {}  # by the tree and the inode of a directory
        self._points: list[tuple[ChangedTree, str]] = []

    def join(self, path: str, tree: ChangedTree) -> None:
        """Put a tree over the directory at path; StorageError if it is not a directory, or is the root itself."""
        with self._root.errors(path):
            steps, missing = self._walked(path, follow_symlinks=True)
            if missing is not None:
                raise RefusedError("cannot be a mount point: it does not exist", errno.ENOENT)
            if len(steps) == 1:
                raise RefusedError("cannot be a mount point: it leads to the root itself", errno.ELOOP)
            top = steps[-1]
            if top.inode.kind != layout.DIRECTORY:
                raise RefusedError("cannot be a mount point: it is not a directory", errno.ENOTDIR)
            if top.inode.number == layout.ROOT_INODE:
                raise RefusedError("cannot be a mount point: another file system is already there", errno.EBUSY)
        self._over[id(top.tree), top.inode.number] = tree
        self._points.append((top.tree, _inside(steps)))

    def located(self, path: str, *, follow_symlinks: bool = True) -> tuple[ChangedTree, str]:
        """Return the tree that path leads into, and the path in it, without symlinks; its last name may be missing."""
        with self._root.errors(path):
            steps, missing = self._walked(path, follow_symlinks=follow_symlinks)
        inside = _inside(steps)
        return steps[-1].tree, inside if missing is None else f"{inside.rstrip('/')}/{_decoded(missing)}"

    def read(self, path: str, *, limit: int = 1 << 20) -> bytes:
        """Return the contents of a regular file. Raises as ExtTree does."""
        tree, inside = self.located(path)
        return tree.read(inside, limit=limit)

    def attribute(self, path: str, name: str) -> bytes | None:
        """Return an extended attribute of the file at path, symlinks followed; None if it has none of this name."""
        tree, inside = self.located(path)
        return tree.attribute(inside, name)

    def stat(self, path: str, *, follow_symlinks: bool = True) -> os.stat_result:
        """Return what os.stat() gives for the path inside the tree."""
        tree, inside = self.located(path, follow_symlinks=follow_symlinks)
        return self._with_device(tree, tree.stat(inside, follow_symlinks=follow_symlinks))

    def readlink(self, path: str) -> str:
        """Return where a symlink leads, as ExtTree does."""
        tree, inside = self.located(path, follow_symlinks=False)
        return tree.readlink(inside)

    def exists(self, path: str) -> bool:
        """True when path resolves to an existing file inside the tree."""
        try:
            with self._root.errors(path):
                return self._walked(path, follow_symlinks=True)[1] is None
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ELOOP):
                return False
            raise

    def list(self, path: str) -> Iterable[str]:
        """Return the sorted names in a directory."""
        tree, inside = self.located(path)
        return tree.list(inside)

    def walk(self, path: str = "/") -> Iterator[tuple[str, os.stat_result]]:
        """Yield (path, lstat) as ExtTree does, except for files below another tree."""
        tree, inside = self.located(path)
        hidden = tuple(f"{point}/" for over, point in self._points if over is tree)
        for found, status in tree.walk(inside):
            if not found.startswith(hidden):
                yield path.rstrip("/") + found[len(inside.rstrip("/")) :], self._with_device(tree, status)

    def write(
        self, path: str, data: bytes, *, mode: int = 0o644, attributes: Mapping[str, bytes] | None = None
    ) -> None:
        """Replace the contents of a regular file, or make one, as ChangedTree does."""
        tree, inside = self.located(path)
        tree.write(inside, data, mode=mode, attributes=attributes)

    def replace(self, path: str, data: bytes) -> None:
        """Replace the contents of an existing regular file, as ChangedTree does."""
        tree, inside = self.located(path)
        tree.replace(inside, data)

    def write_files(
        self,
        directory: str,
        files: Iterable[tuple[str, bytes]],
        *,
        mode: int = 0o644,
        attributes: Mapping[str, bytes] | None = None,
    ) -> None:
        """Put new files into a directory, as ChangedTree does; all are in its tree."""
        tree, inside = self.located(directory)
        tree.write_files(inside, files, mode=mode, attributes=attributes)

    def put(self, entries: Iterable[Entry], *, wording: Wording | None = None) -> Put:
        """Make the files of entries from the root on, as ChangedTree does, each in the tree to which its path belongs.

        A hard link from one tree to another becomes a copy. A directory with a tree over it is not replaced.
        """
        left_out = AttributesLeftOut()
        with ExitStack() as stack:
            writers = {
                id(tree): stack.enter_context(tree.putting("/", wording or Wording(self.name)))
                for tree in (
                    *self._over.values(),
                    self._root,
                )  # the root ends first: its lists have the numbers for names in ACLs
            }
            root = writers[id(self._root)]
            for writer in writers.values():
                writer.acl_names, writer.left_out = root.acl_names, left_out
            over = {(writers[tree], number): writers[id(top)] for (tree, number), top in self._over.items()}
            count, total = made_of(entries, JoinedWriter(root, over).make)
        return Put(count, total, left_out, sum(writer.flags_left_out for writer in writers.values()))

    def make_directory(self, path: str, *, mode: int = 0o755, attributes: Mapping[str, bytes] | None = None) -> None:
        """Make a directory of exactly this mode; its parent must exist."""
        tree, inside = self._free(path)
        tree.make_directory(inside, mode=mode, attributes=attributes)

    def symlink(self, path: str, target: str, *, attributes: Mapping[str, bytes] | None = None) -> None:
        """Make a symlink to target, which may lead into any of the trees."""
        tree, inside = self._free(path)
        tree.symlink(inside, target, attributes=attributes)

    def remove(self, path: str) -> None:
        """Remove the name of a file, or a symlink itself; a directory raises StorageError (EISDIR)."""
        tree, inside = self.located(path, follow_symlinks=False)
        tree.remove(inside)

    def _free(self, path: str) -> tuple[ChangedTree, str]:
        """Return the result of located() for a new file; no tree is there."""
        tree, inside = self.located(path, follow_symlinks=False)
        if inside == "/":
            raise self._root.error(path, "cannot be made: a file of this name already exists", errno.EEXIST)
        return tree, inside

    def _with_device(self, tree: ChangedTree, status: os.stat_result) -> os.stat_result:
        joined = list(self._over.values())
        device = 0 if tree is self._root else joined.index(tree) + 1
        return with_device(status, device)

    def _walked(self, path: str, *, follow_symlinks: bool) -> tuple[_Steps, bytes | None]:
        """Return the steps from the root to the file at path, and the last name of path if that is missing."""
        root = Step(self._root, self._root.files.inode(layout.ROOT_INODE))
        return walked(root, _encoded(path), follow_symlinks=follow_symlinks, entered=self._entered)

    def _entered(self, step: Step[ChangedTree]) -> Step[ChangedTree]:
        """Return the step into the file of a name: the root of the tree over it, if there is one."""
        over = self._over.get((id(step.tree), step.inode.number))
        return step if over is None else Step(over, over.files.inode(layout.ROOT_INODE), step.name)


def _encoded(path: str) -> bytes:
    if not path.startswith("/"):
        raise ValueError(f"{quoted(path)} is not absolute; paths in a guest's tree start at its root")
    try:
        encoded = path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise RefusedError("is not a valid file name", errno.EINVAL) from error
    if len(encoded) > _PATH_MAX:
        raise RefusedError(f"is a path of {len(encoded)} bytes; at most {_PATH_MAX}", errno.ENAMETOOLONG)
    return encoded


def _inside(steps: _Steps) -> str:
    """Return the path of the last step in its own tree."""
    return "/" + _decoded(path_in_tree(steps))


def _decoded(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
