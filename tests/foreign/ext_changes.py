# SPDX-License-Identifier: MIT
"""An image of e2fsprogs is changed in every way: what was in order stays so, and no file is lost."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

from pydiskimg.errors import DiskImageError, StorageError
from pydiskimg.fs.ext4.change.tree import ChangedTree, open_changed_tree
from pydiskimg.fs.ext4.grow import plan_ext_growth
from pydiskimg.fs.ext4.shrink import shrink_ext
from pydiskimg.images.open_disk import open_disk
from pydiskimg.protocols import Disk
from pydiskimg.units import KIB, MIB
from tests.fixtures.limits import assert_sentence, peak_memory, reset_peak_memory
from tests.foreign.ext_files import MEMORY, SECONDS, found_by_e2fsck
from tests.foreign.ext_judges import is_in_order, same_files
from tests.foreign.outcomes import PASSED

_MORE_SECONDS = 0.5  # for each MiB of the image
_MOVED = 5  # files that get another name and their own again


def changed(image: Path, scratch: Path, name: str) -> tuple[str, str, str]:
    """Change a copy; a refusal may leave it changed only where this says so, and in order where it was."""
    change, more = CHANGES[name]
    copy, in_order = scratch / name, is_in_order(image)
    shutil.copyfile(image, copy)
    os.truncate(copy, image.stat().st_size + more(image.stat().st_size))
    refusal, excess = _done(change, copy)
    if excess:
        return (name, "limits", excess)
    if refusal and (name == "grow" or _begins_with(copy, image)):
        return (name, _refused(image, copy, in_order=in_order), refusal)
    if in_order and not is_in_order(copy):
        return (name, "damaged", found_by_e2fsck(copy).stdout[-500:])
    kind, detail = same_files(image, copy, scratch)
    if kind == "lost" and not in_order:
        kind = "repaired otherwise"
    return (name, "refused" if refusal and kind == PASSED and in_order else kind, refusal or detail)


def _done(change: Callable[[Disk], None], path: Path) -> tuple[str, str]:
    """Change a file, and return the sentence for what is refused, and how limits were exceeded."""
    refusal, before, start = "", reset_peak_memory(), time.process_time()
    try:
        with open_disk(path, writable=True) as disk:
            change(disk)
    except DiskImageError as error:
        refusal = str(error)
        assert_sentence(refusal)
    seconds, memory = time.process_time() - start, peak_memory() - before
    if seconds > SECONDS + path.stat().st_size / MIB * _MORE_SECONDS or memory > MEMORY:
        return refusal, f"{seconds:.1f} s and {memory >> 20} MiB"
    return refusal, ""


def _refused(image: Path, copy: Path, *, in_order: bool) -> str:
    if not _begins_with(copy, image):
        return "changed"
    return "refused" if in_order else PASSED


def _begins_with(copy: Path, image: Path) -> bool:
    with copy.open("rb") as file, image.open("rb") as before:
        return all(file.read(MIB)[: len(piece)] == piece for piece in iter(lambda: before.read(MIB), b""))


def _grow(disk: Disk) -> None:
    plan_ext_growth(disk).write()


def _shrink(disk: Disk) -> None:
    shrink_ext(disk)


def _come_and_go(disk: Disk) -> None:
    """Make files of several kinds, move some files of the root directory there and back, and remove what was made.

    Many of the images have hardly a free block or inode, so that one that is full is not told of.
    """
    with open_changed_tree(disk) as tree:
        try:
            _come(tree)
        except StorageError as error:
            if error.errno != errno.ENOSPC:
                raise
        finally:
            for path in ("/pydiskimg", "/of-pydiskimg"):
                if tree.exists(path):
                    tree.remove_tree(path)


def _come(tree: ChangedTree) -> None:
    data = bytes(range(256)) * 80
    tree.make_directory("/pydiskimg")
    tree.write("/pydiskimg/file", data)
    tree.symlink("/pydiskimg/symlink", "t" * 100)
    tree.link("/pydiskimg/file", "/pydiskimg/link")
    tree.append("/pydiskimg/file", b"more")
    tree.write_files("/pydiskimg", [(f"{number:050}", b"x") for number in range(30)])
    tree.rename("/pydiskimg", "/of-pydiskimg")
    regular = (path for path, status in tree.walk() if stat.S_ISREG(status.st_mode) and path.count("/") == 1)
    for path in list(islice(regular, _MOVED)):
        tree.rename(path, "/of-pydiskimg/moved")
        tree.rename("/of-pydiskimg/moved", path)
    assert tree.read("/of-pydiskimg/link") == data + b"more"
    tree.truncate("/of-pydiskimg/link", 3 * KIB)


CHANGES: dict[str, tuple[Callable[[Disk], None], Callable[[int], int]]] = {
    "grow": (_grow, lambda size: size + 64 * MIB),
    "shrink": (_shrink, lambda _: 0),
    "change": (_come_and_go, lambda _: 0),
}
"""What is done, and by how much longer than an image of some bytes its copy is made before."""
