# SPDX-License-Identifier: MIT
"""The archives that libarchive is tested with: unpacked by us as by bsdtar or tar, or refused with a sentence."""

from __future__ import annotations

import binascii
import hashlib
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydiskimg.errors import DiskImageError
from pydiskimg.files.tar import extract
from tests.foreign.apart import all_apart, program
from tests.foreign.outcomes import PASSED, Outcome

Part = tuple[str, str, str]
_TAR = re.compile(r"tar|ustar|pax", re.IGNORECASE)
_NOW_SECONDS = 86400  # younger is what got its time from being unpacked
# A peer that unpacks as another does: each is told to restore what we restore.
_PEERS = (
    ("bsdtar", "-xpf", "{archive}", "--numeric-owner", "-C", "{directory}"),
    ("tar", "-xpf", "{archive}", "--numeric-owner", "--xattrs", "--xattrs-include=*", "--acls", "-C", "{directory}"),
)


class Suite:
    def __init__(self, source: Path, cache: Path) -> None:
        self.source = source
        self.scratch = cache / "scratch"

    def outcomes(self, chosen: Callable[[str], bool], jobs: int) -> Iterator[Outcome]:
        files = sorted(path for path in self.source.rglob("*.uu"))
        inputs = [(f"{path.parent.parent.name}/{path.name.removesuffix('.uu')}", (path,)) for path in files]
        yield from all_apart("tests.foreign.libarchive", inputs, chosen, self.scratch, jobs)


def uudecoded(text: bytes) -> bytes:
    """Return what uuencode made text of, its begin line and what stands around included."""
    lines = iter(text.splitlines())
    for line in lines:
        if line.startswith(b"begin "):
            break
    else:
        raise ValueError("there is no begin line")
    data = bytearray()
    for line in lines:
        if line.rstrip() == b"end":
            return bytes(data)
        if line:
            data += _line(line)
    raise ValueError("there is no end line")


def _line(line: bytes) -> bytes:
    try:
        return binascii.a2b_uu(line)
    except binascii.Error:  # some encoders fill the last group with more than zeros
        length = (line[0] - 32) & 63
        return binascii.a2b_uu(line[: 1 + (length * 4 + 2) // 3])


def judge(packed: Path, scratch: Path) -> list[Part]:
    """Unpack an archive by ourselves and by the peers, and compare."""
    archive = scratch / packed.name.removesuffix(".uu")
    archive.write_bytes(uudecoded(packed.read_bytes()))
    is_tar, theirs = _is_tar(archive), []
    refused = _refusal(archive, scratch / "ours")
    if refused is not None and not (refused.isprintable() and len(refused) < 1000):
        return [("", "refusal", repr(refused))]
    if not is_tar:
        return [("", PASSED if refused else "accepted", refused or "bsdtar knows no tar in it")]
    for number, peer in enumerate(_PEERS):
        directory = scratch / f"peer{number}"
        directory.mkdir()
        done = program(*(word.format(archive=archive, directory=directory) for word in peer))
        theirs.append((peer[0], done.returncode, done.stderr.strip()[-200:], tree(directory)))
    return [_compared(refused, tree(scratch / "ours"), theirs)]


def _is_tar(archive: Path) -> bool:
    """Whether bsdtar finds a tar, below any compression."""
    found = re.search(r"Archive Format: ([^,]*)", program("bsdtar", "-tvvf", archive).stdout)
    return bool(found and _TAR.search(found[1]))


def _refusal(archive: Path, directory: Path) -> str | None:
    directory.mkdir()
    try:
        extract(archive, str(directory))
    except DiskImageError as error:
        return str(error)
    return None


def _compared(refused: str | None, ours: dict[str, Any], theirs: list[tuple[str, int, str, dict[str, Any]]]) -> Part:
    if refused:
        good = [name for name, status, said, _ in theirs if status == 0 and not said]
        return ("", "refused" if good else PASSED, f"{refused} ({' and '.join(good) or 'nobody'} unpacks it)")
    differences = [(status, f"{name}: {first_difference(found, ours)}") for name, status, _, found in theirs]
    if any(found == ours for *_, found in theirs):
        return ("", PASSED, "")
    if all(status for status, _ in differences):
        return ("", "accepted", "; ".join(said for _, _, said, _ in theirs))
    return ("", "differs", "; ".join(text for _, text in differences))


def first_difference(expected: dict[str, Any], found: dict[str, Any]) -> str:
    for name in sorted({*expected, *found}):
        if expected.get(name) != found.get(name):
            return f"{name!r}: expected {expected.get(name)}, got {found.get(name)}"
    return "the same"


def tree(directory: Path) -> dict[str, Any]:
    """Return what lies below a directory: for each path all that an archive can say of it."""
    found: dict[str, Any] = {}
    names: dict[int, str] = {}
    for path in sorted(
        Path(parent) / name for parent, folders, files in os.walk(directory) for name in folders + files
    ):
        status = os.lstat(path)
        name = os.fsdecode(os.path.relpath(path, directory))
        first = names.setdefault(status.st_ino, name)  # of a file with several names
        found[name] = {
            "mode": oct(status.st_mode),
            "owner": f"{status.st_uid}:{status.st_gid}",
            "time": "now" if time.time() - status.st_mtime < _NOW_SECONDS else status.st_mtime_ns,
            "device": status.st_rdev,
            "link": first if first != name else None,
            "contents": _contents(path, status.st_mode),
            "xattrs": _attributes(path),
        }
    return found


def _contents(path: Path, mode: int) -> str:
    if stat.S_ISLNK(mode):
        return os.readlink(path)
    if not stat.S_ISREG(mode):
        return ""
    with path.open("rb") as file:
        return f"{os.fstat(file.fileno()).st_size} {hashlib.file_digest(file, 'sha1').hexdigest()}"


def _attributes(path: Path) -> dict[str, str]:
    names = os.listxattr(path, follow_symlinks=False)
    return {name: os.getxattr(path, name, follow_symlinks=False).hex() for name in sorted(names)}
