# SPDX-License-Identifier: MIT
"""e2fsprogs' own test images, most of them damaged, are read, checked, exported and changed; nothing may be lost.

What e2fsck says of an image, it has to say of what comes out of an export, and when it has repaired both, the same
files have to be there.
"""

from __future__ import annotations

import gzip
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from pydiskimg.errors import DiskImageError
from pydiskimg.fs.ext4.check import check_ext
from pydiskimg.fs.probe import probe
from pydiskimg.images.open_disk import open_disk
from pydiskimg.images.raw import open_raw
from pydiskimg.transfer.copy import copy
from pydiskimg.volumes.used import used_source
from tests.foreign.apart import all_apart, complaint, program, pydiskimg
from tests.foreign.ext_changes import CHANGES, changed
from tests.foreign.ext_files import read_files
from tests.foreign.ext_judges import is_in_order, same_to_e2fsck
from tests.foreign.outcomes import PASSED, Outcome
from tests.foreign.util_linux import KNOWN, decoded

Part = tuple[str, str, str]
_AMBIVALENT = 8  # blkid's exit status


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
    parts = [described(image), probed(image), files, checked(image, scratch), exported(image, scratch)]
    return [*parts, *(changed(image, scratch, name) for name in CHANGES)]


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
    replayed = image
    if "needs_recovery" in program("dumpe2fs", "-h", image).stdout:
        replayed = scratch / "checked"
        shutil.copyfile(image, replayed)
        program("e2fsck", "-p", "-E", "journal_only", replayed)
    damaged = not is_in_order(replayed)
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
