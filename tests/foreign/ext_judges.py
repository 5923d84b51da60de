# SPDX-License-Identifier: MIT
"""e2fsck and debugfs as judges of a file system: whether it is in order, and which files it has once it is repaired."""

from __future__ import annotations

import re
import shutil
import stat
from functools import cache
from itertools import islice
from pathlib import Path
from subprocess import CompletedProcess

from pydiskimg.errors import DiskImageError
from pydiskimg.fs.ext4.tree import open_ext_tree
from pydiskimg.images.raw import open_raw
from pydiskimg.units import MIB
from tests.foreign.apart import TOOK_TOO_LONG, program
from tests.foreign.ext_files import MOST_WRITTEN, Facts, facts_by_us, found_by_e2fsck
from tests.foreign.libarchive import first_difference, tree
from tests.foreign.outcomes import NOT_RUN, PASSED

TOO_LONG = f"status {TOOK_TOO_LONG}"
_STRAY_NUMBER = re.compile(r"\d{13,}")
_NO_FILE_SYSTEM = 8  # a bit of e2fsck's: an operational error


def is_in_order(image: Path) -> bool:
    """Tell whether e2fsck -fn finds nothing. It finds something where it does not end, as in an endless circle."""
    return found_by_e2fsck(image).returncode == 0


def same_to_e2fsck(image: Path, out: Path, scratch: Path) -> tuple[str, str]:
    """Compare what e2fsck says of two images, and the files when it has repaired both."""
    first = _said(found_by_e2fsck(image), image)
    # With -n it reads what the journal is to change, or what it would repair first: blocks that are free.
    if first[0] == "status 0" and not any("skipping journal recovery" in line for line in first):
        second = _said(found_by_e2fsck(out), out)
        if first != second:
            return "lost", f"e2fsck -fn: {_different(first, second)}"
    return same_files(image, out, scratch, alike=True)


def same_files(image: Path, other: Path, scratch: Path, *, alike: bool = False) -> tuple[str, str]:
    """Repair copies of both, and compare their files; alike tells that the same has to be repaired, too."""
    (told, expected), (also_told, found) = _repaired(image, scratch), _repaired(other, scratch)
    if TOO_LONG in told:
        return NOT_RUN, "e2fsck -fy takes too long with the image itself"
    if alike and told != also_told:
        return "lost", f"e2fsck -fy: {_different(told, also_told)}"
    return (PASSED, "") if expected == found else ("lost", first_difference(expected, found))


@cache  # of the image, which is compared with each of its changed copies
def _repaired(path: Path, scratch: Path) -> tuple[list[str], Facts]:
    """Return what e2fsck says while it repairs a copy, and the files that are there afterwards."""
    repaired, directory = scratch / "repaired", scratch / "repaired-files"
    shutil.copyfile(path, repaired)
    done = program("e2fsck", "-fy", repaired)
    files = {} if done.returncode & _NO_FILE_SYSTEM else _files(repaired, directory)
    repaired.unlink()
    return _said(done, repaired), files


def _files(image: Path, directory: Path) -> Facts:
    """Return the files that debugfs writes, or as we read them where they are many; without the times of symlinks."""
    if _has_many(image):
        return facts_by_us(image)
    directory.mkdir()
    # A limit: it writes the holes of a sparse file of terabytes as zeros.
    program("prlimit", f"--fsize={256 * MIB}", "debugfs", "-R", f'rdump / "{directory}"', image)
    found: Facts = tree(directory)
    shutil.rmtree(directory)
    for file in found.values():
        if stat.S_ISLNK(int(str(file["mode"]), 8)):
            del file["time"]
    return found


def _has_many(image: Path) -> bool:
    with open_raw(image) as source:
        try:
            return next(islice(open_ext_tree(source).walk(), MOST_WRITTEN, None), None) is not None
        except DiskImageError:
            return False


def _said(done: CompletedProcess[str], path: Path) -> list[str]:
    """Return what e2fsck said, without numbers of blocks that come from its own memory: they differ from run to run."""
    said = _STRAY_NUMBER.sub("LARGE", done.stdout.replace(str(path), "IMAGE"))
    return [f"status {done.returncode}", *said.splitlines()]


def _different(first: list[str], second: list[str]) -> str:
    for one, other in zip(first, second, strict=False):
        if one != other:
            return f"expected {one!r}, got {other!r}"
    return f"{len(first)} lines expected, got {len(second)}"
