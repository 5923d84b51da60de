# SPDX-License-Identifier: MIT
"""e2fsprogs' own test images, most of them damaged: recognized, read, exported and grown; nothing may be lost.

What e2fsck says of an image, it has to say of what comes out of an export, and when it has repaired both, the same
files have to be there. A file system that was in order is so when it has grown, and holds the same files.
"""

from __future__ import annotations

import gzip
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

from pydiskimg.errors import DiskImageError
from pydiskimg.fs.ext4.check import check_ext
from pydiskimg.fs.ext4.grow import plan_ext_growth
from pydiskimg.fs.probe import probe
from pydiskimg.images.open_disk import open_disk
from pydiskimg.images.raw import open_raw
from pydiskimg.transfer.copy import copy
from pydiskimg.volumes.used import used_source
from tests.foreign.apart import all_apart, complaint, program, pydiskimg
from tests.foreign.ext_files import read_files
from tests.foreign.libarchive import first_difference, tree
from tests.foreign.outcomes import PASSED, Outcome
from tests.foreign.util_linux import KNOWN, decoded

Part = tuple[str, str, str]
_MIB = 1 << 20
_AMBIVALENT = 8  # blkid's exit status
_STRAY_NUMBER = re.compile(r"\d{13,}")
_NO_FILE_SYSTEM = 8  # a bit of e2fsck's: an operational error


class Suite:
    def __init__(self, source: Path, cache: Path) -> None:
        self.source = source
        self.scratch = cache / "scratch"

    def outcomes(self, chosen: Callable[[str], bool], jobs: int) -> Iterator[Outcome]:
        inputs = [(path.parent.name, (path,)) for path in sorted((self.source / "tests").glob("*/image.gz"))]
        yield from all_apart("tests.foreign.e2fsprogs", inputs, chosen, self.scratch, jobs)


def judge(packed: Path, scratch: Path) -> list[Part]:
    """Put an image through everything that takes one."""
    image = scratch / "image"
    image.write_bytes(b"")
    unpack(packed, image)
    files: Part = ("files", *read_files(image, scratch))
    parts = [described(image), probed(image), files, checked(image, scratch)]
    return [*parts, exported(image, scratch), grown(image, scratch)]


def unpack(packed: Path, image: Path) -> None:
    """Write what packed holds with holes for zeros."""
    with gzip.open(packed) as source, image.open("r+b") as target:
        while piece := source.read(64 << 10):
            if piece.count(0) == len(piece):
                target.seek(len(piece), os.SEEK_CUR)
            else:
                target.write(piece)
        target.truncate(target.tell())


def described(image: Path) -> Part:
    done = pydiskimg("info", image)
    good = done.returncode == 0 or complaint(done) is None
    return ("info", PASSED if good else "info", done.stderr.strip())


def probed(image: Path) -> Part:
    """Compare with blkid, which must find the same kind, UUID and label."""
    said = program("blkid", "-p", "-o", "udev", image)
    values = dict(line.split("=", 1) for line in said.stdout.splitlines() if "=" in line)
    wanted = values.get("ID_FS_TYPE")
    known = wanted in KNOWN
    label = values.get("ID_FS_LABEL_ENC")
    expected = (wanted, values.get("ID_FS_UUID"), decoded(label) if label else None) if known else (None, None, None)
    try:
        with open_disk(image) as disk:
            kind = probe(disk)
    except DiskImageError as error:
        return ("probe", PASSED if said.returncode == _AMBIVALENT else "probe", str(error))
    found = (kind.type, kind.uuid, kind.label) if kind else (None, None, None)
    return ("probe", PASSED if found == expected else "probe", f"expected {expected}, got {found}")


def checked(image: Path, scratch: Path) -> Part:
    """Compare with e2fsck -fn of a copy on which the journal was replayed: both find something, or neither does."""
    copy_of = scratch / "checked"
    shutil.copyfile(image, copy_of)
    if "needs_recovery" in program("dumpe2fs", "-h", image).stdout:
        program("e2fsck", "-p", "-E", "journal_only", copy_of)
    damaged = program("e2fsck", "-fn", copy_of).returncode != 0
    copy_of.unlink()
    try:
        with open_raw(image) as source:
            report = check_ext(source)
    except DiskImageError as error:
        return ("check", "refused", str(error))
    found = [text for _, text in report.details] + report.unchecked
    if damaged == bool(found):
        return ("check", PASSED, "")
    return ("check", "missed" if damaged else "found more", "; ".join(found[:3]))


def exported(image: Path, scratch: Path) -> Part:
    """Copy what is in use, and compare what e2fsck and debugfs find in the copy."""
    out = scratch / "exported"
    with out.open("wb") as file:
        file.truncate(image.stat().st_size)
    try:
        with open_raw(image) as source, open_disk(out, writable=True) as disk:
            copy(used_source(source), disk)
    except DiskImageError as error:
        return ("export", "refused", str(error))
    return ("export", *same_to_e2fsck(image, out, scratch))


def grown(image: Path, scratch: Path) -> Part:
    """Grow a copy into more space; where that is refused, nothing may have changed."""
    larger, size = scratch / "grown", image.stat().st_size
    shutil.copyfile(image, larger)
    os.truncate(larger, 2 * size + 64 * _MIB)
    in_order = program("e2fsck", "-fn", image).returncode == 0
    try:
        with open_disk(larger, writable=True) as disk:
            plan_ext_growth(disk).write()
    except DiskImageError as error:
        with larger.open("rb") as file, image.open("rb") as before:
            changed = any(file.read(_MIB)[: len(piece)] != piece for piece in iter(lambda: before.read(_MIB), b""))
        if changed:
            return ("grow", "changed", str(error))
        return ("grow", "refused" if in_order else PASSED, str(error))
    checked = program("e2fsck", "-fn", larger)
    if in_order and checked.returncode:
        return ("grow", "damaged", checked.stdout[-500:])
    kind, detail = same_files(image, larger, scratch)
    return ("grow", "repaired otherwise" if kind == "lost" and not in_order else kind, detail)


def same_to_e2fsck(image: Path, out: Path, scratch: Path) -> tuple[str, str]:
    """Compare what e2fsck says of two images, and the files when it has repaired both."""
    first, second = (_said(program("e2fsck", "-fn", path), path) for path in (image, out))
    # With -n it reads what the journal is to change, or what it would repair first: blocks that are free.
    in_order = first[0] == "status 0" and not any("skipping journal recovery" in line for line in first)
    if in_order and first != second:
        return "lost", f"e2fsck -fn: {_different(first, second)}"
    return same_files(image, out, scratch, alike=True)


def same_files(image: Path, other: Path, scratch: Path, *, alike: bool = False) -> tuple[str, str]:
    """Repair copies of both, and compare their files; alike tells that the same has to be repaired, too."""
    told, trees = [], []
    for number, path in enumerate((image, other)):
        repaired, directory = scratch / f"repaired{number}", scratch / f"tree{number}"
        shutil.copyfile(path, repaired)
        done = program("e2fsck", "-fy", repaired)
        told.append(_said(done, repaired))
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        if not done.returncode & _NO_FILE_SYSTEM:
            # A limit: it writes the holes of a sparse file of terabytes as zeros.
            program("prlimit", f"--fsize={256 * _MIB}", "debugfs", "-R", f'rdump / "{directory}"', repaired)
        trees.append(_files(directory))
        repaired.unlink()
    if alike and told[0] != told[1]:
        return "lost", f"e2fsck -fy: {_different(told[0], told[1])}"
    if trees[0] != trees[1]:
        return "lost", first_difference(*trees)
    return PASSED, ""


def _files(directory: Path) -> dict[str, Any]:
    """What debugfs has written, without the times of symlinks, which it does not set."""
    found = tree(directory)
    for file in found.values():
        if stat.S_ISLNK(int(file["mode"], 8)):
            del file["time"]
    return found


def _said(done: CompletedProcess[str], path: Path) -> list[str]:
    """Return what e2fsck said, without numbers of blocks that come from its own memory: they differ from run to run."""
    said = _STRAY_NUMBER.sub("LARGE", done.stdout.replace(str(path), "IMAGE"))
    return [f"status {done.returncode}", *said.splitlines()]


def _different(first: list[str], second: list[str]) -> str:
    for one, other in zip(first, second, strict=False):
        if one != other:
            return f"expected {one!r}, got {other!r}"
    return f"{len(first)} lines expected, got {len(second)}"
