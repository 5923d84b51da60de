# SPDX-License-Identifier: MIT
"""The files of an image of e2fsprogs read without a mount: all of them or a sentence, and as debugfs gives them.

debugfs does not read the journal, so that it gets a copy into which e2fsck has replayed it.
"""

from __future__ import annotations

import hashlib
import shutil
import stat
import time
from functools import cache
from itertools import islice
from pathlib import Path
from subprocess import CompletedProcess

from pydiskimg.errors import DiskImageError
from pydiskimg.fs.ext4.tree import ExtTree, open_ext_tree
from pydiskimg.images.raw import open_raw
from pydiskimg.protocols import read_bytes
from pydiskimg.units import MIB
from tests.fixtures.limits import assert_sentence, peak_memory, reset_peak_memory
from tests.foreign.apart import program
from tests.foreign.libarchive import first_difference
from tests.foreign.libarchive import tree as written_tree
from tests.foreign.outcomes import PASSED

SECONDS, MEMORY = 2.0, 256 * MIB
_MORE_SECONDS = 0.0003  # for each file; most images have a few, some have 65,000
_LARGEST = 64 * MIB  # of a file whose contents are compared, and that debugfs may write
MOST_WRITTEN = 10_000  # files; debugfs and the host's file system would take minutes for more
_EXTENTS = 1000  # of a file, of each of which a MiB is read

Facts = dict[str, dict[str, object]]


def read_files(image: Path, scratch: Path) -> tuple[str, str]:
    """Read all files of an image within limits, and compare those of one that is in order with debugfs."""
    before, start = reset_peak_memory(), time.process_time()
    count, refusals = _refusals(image)
    seconds, memory = time.process_time() - start, peak_memory() - before
    if seconds > SECONDS + count * _MORE_SECONDS or memory > MEMORY:
        return "limits", f"{seconds:.1f} s and {memory >> 20} MiB for {count} files"
    in_order = _in_order(image, scratch / "replayed")
    if in_order is None:
        return PASSED, "; ".join(refusals)
    if refusals:
        return "refused", "; ".join(refusals)
    if count > MOST_WRITTEN:
        return PASSED, ""
    expected, found = _by_debugfs(in_order, scratch / "rdump"), facts_by_us(image)
    return (PASSED, "") if expected == found else ("other files", first_difference(expected, found))


@cache
def found_by_e2fsck(image: Path) -> CompletedProcess[str]:
    """Return what e2fsck -fn says of an image that does not change any more; with some it does not end."""
    return program("e2fsck", "-fn", image)


def _in_order(image: Path, replayed: Path) -> Path | None:
    """Return the image, or a copy into which e2fsck has put what the journal holds; None for one that is damaged."""
    checked = found_by_e2fsck(image)
    if "skipping journal recovery" not in checked.stdout + checked.stderr:
        return None if checked.returncode else image
    shutil.copyfile(image, replayed)
    program("e2fsck", "-E", "journal_only", "-p", replayed)
    return None if program("e2fsck", "-fn", replayed).returncode else replayed


def _refusals(image: Path) -> tuple[int, list[str]]:
    """Read everything readable, and return the number of files and the messages about the rest."""
    count, refusals = 0, list[str]()
    with open_raw(image) as source:
        try:
            tree = open_ext_tree(source)
            for path, status in tree.walk():
                count += 1
                try:
                    _look_at(tree, path, status.st_mode)
                except DiskImageError as error:
                    refusals.append(str(error))
        except DiskImageError as error:
            refusals.append(str(error))
    for text in refusals:
        assert_sentence(text)
    return count, refusals


def _look_at(tree: ExtTree, path: str, mode: int) -> None:
    tree.attributes(path, follow_symlinks=False)
    if stat.S_ISLNK(mode):
        tree.readlink(path)
    elif stat.S_ISREG(mode):
        source = tree.open(path)
        with tree.errors(path):
            for extent in islice(source.extents(), _EXTENTS):
                read_bytes(source, extent.start, min(extent.length, MIB))


def facts_by_us(image: Path) -> Facts:
    """Return what there is to compare of each file, as we read it."""
    found: Facts = {}
    with open_raw(image) as source:
        tree = open_ext_tree(source)
        for path, status in tree.walk():
            contents = ""
            if stat.S_ISLNK(status.st_mode):
                contents = tree.readlink(path)
            elif stat.S_ISREG(status.st_mode) and status.st_size < _LARGEST:
                data = read_bytes(tree.open(path), 0, status.st_size)
                contents = f"{status.st_size} {hashlib.sha1(data).hexdigest()}"
            mode, owner = oct(status.st_mode), f"{status.st_uid}:{status.st_gid}"
            found[path[1:]] = {"mode": mode, "owner": owner, "time": status.st_mtime_ns, "contents": contents}
    return _comparable(found)


def _by_debugfs(image: Path, directory: Path) -> Facts:
    directory.mkdir()
    program("prlimit", f"--fsize={_LARGEST}", "debugfs", "-R", f'rdump / "{directory}"', image)
    return _comparable(written_tree(directory))


def _comparable(files: Facts) -> Facts:
    """Return what debugfs writes: no devices, and times in whole seconds, but none for symlinks and files of today."""
    found: Facts = {}
    for path, facts in files.items():
        kind = stat.S_IFMT(int(str(facts["mode"]), 8))
        if kind not in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
            continue
        at = facts["time"]
        seconds = at // 1_000_000_000 if isinstance(at, int) and kind != stat.S_IFLNK else None
        found[path] = {**{name: facts[name] for name in ("mode", "owner", "contents")}, "time": seconds}
    return found
