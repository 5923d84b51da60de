# SPDX-License-Identifier: MIT
"""The overlay: the administrator's files, copied over the installed system before the customisation scripts run."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from typing import NoReturn

from ganeti_os.install.directory_listing import listing
from ganeti_os.log import Messages
from ganeti_os.settings.root_owned import distrust
from ganeti_os.settings.settings import Settings
from pydiskimg.errors import DiskImageError, storage_error
from pydiskimg.files.copy import CopiedTree, copy_directory
from pydiskimg.files.directory import DirectoryReader
from pydiskimg.files.mounted_tree import open_mounted_tree
from pydiskimg.files.tree import OutsideTreeError, ReadableTree
from pydiskimg.files.writer import Wording
from pydiskimg.fs.ext4.change.joined import JoinedTree
from pydiskimg.fs.ext4.change.tree import ChangedTree, Put
from pydiskimg.fs.ext4.populate.filling import Added, Filling
from pydiskimg.system.edits.selinux import DIRECTORY, FILE, SYMLINK, Labels
from pydiskimg.units import format_size

log = logging.getLogger(__name__)

_MOST_STEPS = 100  # of a symlink's way, names and symlinks
_LONGEST = 4000  # bytes of a path upwards; only a hostile guest nests directories so deeply


class OverlayError(DiskImageError):
    """The overlay in the settings does not exist, or users other than root could have changed it."""


def find_overlay(settings: Settings) -> str | None:
    """Return the directory OVERLAYS_DIR/OVERLAY; None if OVERLAY is not set.

    Raises OverlayError if it does not exist, or it or OVERLAYS_DIR is world-writable or belongs to another user,
    StorageError when it cannot be examined.
    """
    if not settings.overlay:
        return None
    path = os.path.join(settings.overlays_dir, settings.overlay)
    try:
        above, status = os.stat(settings.overlays_dir), os.stat(path)
    except FileNotFoundError:
        raise OverlayError(f"{path}: the overlay does not exist (OVERLAY); {listing(settings.overlays_dir)}") from None
    except OSError as error:
        raise storage_error(error, path, "cannot examine the overlay") from error
    if not stat.S_ISDIR(status.st_mode):
        raise OverlayError(f"{path}: is not a directory; an overlay is a directory with the files of a guest's /")
    for directory, found in ((settings.overlays_dir, above), (path, status)):
        problem = distrust(directory, found, "goes into guests")
        if problem:
            raise OverlayError(problem)
    return path


def copy_overlay(path: str, target: str, messages: Messages) -> None:
    """Copy the overlay's files over the guest whose root is mounted at target."""
    with messages.step("copying the overlay"):
        with open_mounted_tree(target, name="of the instance") as tree:
            labels = _Labels(tree)
            copied = copy_directory(path, target, progress=messages.progress("copied"), attributes=labels.attributes)
        _tell(path, copied)


def put_overlay(path: str, tree: ChangedTree | JoinedTree, messages: Messages) -> None:
    """Put the overlay's files into the guest's file systems without a mount."""
    with messages.step("copying the overlay"):
        top, labels = os.fsencode(os.path.realpath(path)), _Labels(tree)
        # All labels before the first change: afterwards the tree does not read pending changes.
        labelled = ((entry.path, labels.attributes(entry.path, entry.kind)) for entry in DirectoryReader(top).entries())
        found = {name: attributes for name, attributes in labelled if attributes}
        reader = DirectoryReader(top, messages.progress("copied"), lambda name, _kind: found.get(name, {}))
        _tell(path, tree.put(reader.entries(), wording=Wording(path, "copy", "copied")))


def add_overlay(path: str, filling: Filling, messages: Messages, *, hints: Mapping[str, str]) -> None:
    """Add the overlay's files to new file systems; hints are for a full one, by its disk's name."""
    with messages.step("copying the overlay"):
        labels = _Labels(filling.tree)
        reader = DirectoryReader(os.fsencode(os.path.realpath(path)), messages.progress("copied"), labels.attributes)
        wording = Wording(path, "copy", "copied", hints)
        _tell(path, filling.add(reader.entries(), wording=wording, keep_links=True))


def overlay_brings(overlay: str | None, path: str) -> bool:
    """True if the overlay has a file at the guest's path."""
    return overlay is not None and os.path.lexists(os.path.join(overlay, path.lstrip("/")))


def reached_by(overlay: str, tree: ReadableTree, points: Iterable[str]) -> list[str]:
    """Return those directories of the guest into which files of an overlay go, or below which, also through symlinks.

    A broken symlink counts as far as it leads: its target is on another file system. A directory that does not exist
    counts as reached if the overlay has its path. Raises StorageError as the tree does.
    """
    wanted, reached = {}, set()
    for point in points:
        if tree.exists(point):
            wanted[_identity(tree, point)] = point
        elif overlay_brings(overlay, point):
            reached.add(point)
    for directory in _directories_reached(overlay, tree) if wanted else ():
        reached |= {wanted[found] for found in _upwards(tree, directory) if found in wanted}
    return sorted(reached)


def _directories_reached(overlay: str, tree: ReadableTree) -> Iterator[str]:
    """Yield directories of the guest into which files of an overlay go, by their paths there."""

    def fail(error: OSError) -> NoReturn:
        raise storage_error(error, str(error.filename), "cannot be listed")

    for path, directories, _ in os.walk(overlay, onerror=fail):
        below = "/" + os.path.relpath(path, overlay)
        here = [name for name in directories if not os.path.islink(os.path.join(path, name))]
        directories.clear()
        for name in here:
            directory = os.path.normpath(os.path.join(below, name))
            if not tree.exists(directory):
                yield from _last_on_the_way(tree, directory)
            elif stat.S_ISDIR(tree.stat(directory).st_mode):
                directories.append(name)
                yield directory


def _last_on_the_way(tree: ReadableTree, path: str) -> Iterator[str]:
    """Yield the last existing path on the way of a broken symlink; nothing for other files."""
    if not _is_link(tree, path):
        return
    for _ in range(_MOST_STEPS):
        if len(path) > _LONGEST:
            return
        if tree.exists(path):
            yield path
            return
        above = os.path.dirname(path.rstrip("/"))
        path = os.path.join(above, tree.readlink(path)) if _is_link(tree, path) else above


def _is_link(tree: ReadableTree, path: str) -> bool:
    try:
        return stat.S_ISLNK(tree.stat(path, follow_symlinks=False).st_mode)
    except (FileNotFoundError, OutsideTreeError):
        return False


def _upwards(tree: ReadableTree, path: str) -> Iterator[tuple[int, int]]:
    """Yield a directory of the guest, and each of its parents, with the symlinks of its path resolved."""
    here, above = _identity(tree, path), None
    while here != above and len(path) <= _LONGEST:
        yield here
        path += "/.."
        above, here = here, _identity(tree, path)


def _identity(tree: ReadableTree, path: str) -> tuple[int, int]:
    status = tree.stat(path)
    return status.st_dev, status.st_ino


def _tell(path: str, copied: CopiedTree | Added | Put) -> None:
    log.info("%d entries, %s, from %s", copied.entries, format_size(copied.bytes), path)
    if copied.left_out:
        log.warning("%s: %s", path, copied.left_out)


class _Labels:
    """The SELinux labels of the overlay's files; an existing directory of the guest keeps its own.

    Only the root's file system has them: /boot/efi cannot store them.
    """

    def __init__(self, tree: ReadableTree) -> None:
        self._tree = tree
        self._labels = Labels(tree)
        self._device = tree.stat("/").st_dev

    def attributes(self, path: bytes, kind: int) -> dict[bytes, bytes]:
        """Return the attributes of an entry of the overlay."""
        name = "/" + path.decode("utf-8", "surrogateescape")
        known = {stat.S_IFREG: FILE, stat.S_IFDIR: DIRECTORY, stat.S_IFLNK: SYMLINK}.get(kind)
        if known is None or (known == DIRECTORY and self._tree.exists(name)) or not self._is_on_root(name):
            return {}
        return {attribute.encode(): value for attribute, value in self._labels.attributes(name, known).items()}

    def _is_on_root(self, name: str) -> bool:
        above = name.rpartition("/")[0]
        while above and not self._tree.exists(above):
            above = above.rpartition("/")[0]
        return self._tree.stat(above or "/").st_dev == self._device
