# SPDX-License-Identifier: MIT
"""Trees with everything unusual in them, and a description of a tree that can be compared field by field."""

from __future__ import annotations

import hashlib
import os
import random
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

NANOSECOND = 1_000_000_000
LONG = "long-" + "n" * 120
PAGE = 4096
VERY_LONG = "very-long-" + "n" * 240


@dataclass(frozen=True)
class Node:
    """What lstat, the contents and the attributes say about one path."""

    mode: int
    uid: int
    gid: int
    links: int
    twin: bytes
    size: int
    rdev: int
    mtime_ns: int
    link: bytes
    digest: str
    xattrs: tuple[tuple[str, bytes], ...]


def walk(root: bytes) -> Iterator[bytes]:
    yield root
    for directory, names, files in os.walk(root):
        for name in sorted(names + files):
            yield os.path.join(directory, name)


def picture(root: Path) -> dict[bytes, Node]:
    """Return every path below root, and root itself, with the fields that are compared."""
    base = os.fsencode(root)
    twins: dict[tuple[int, int], bytes] = {}
    found = {}
    for path in sorted(walk(base)):
        status = os.lstat(path)
        relative = path[len(base) :]
        link = stat.S_ISLNK(status.st_mode)
        plain = stat.S_ISREG(status.st_mode)
        found[relative] = Node(
            mode=status.st_mode,
            uid=status.st_uid,
            gid=status.st_gid,
            links=status.st_nlink,
            twin=twins.setdefault((status.st_dev, status.st_ino), relative),
            size=0 if stat.S_ISDIR(status.st_mode) else status.st_size,
            rdev=status.st_rdev,
            mtime_ns=status.st_mtime_ns,
            link=os.readlink(path) if link else b"",
            digest=digest(path) if plain else "",
            xattrs=tuple(
                (name, os.getxattr(path, name, follow_symlinks=False))
                for name in sorted(os.listxattr(path, follow_symlinks=False))
            ),
        )
    return found


def digest(path: bytes) -> str:
    """Return a hash of the contents that a hole and zeros do not change, and that does not read holes."""
    sha = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        position = 0
        while position < size:
            try:
                position = os.lseek(file.fileno(), position, os.SEEK_DATA) // PAGE * PAGE
            except OSError:  # nothing but a hole from here on
                break
            os.lseek(file.fileno(), position, os.SEEK_SET)
            page = file.read(PAGE)
            if page.strip(b"\0"):
                sha.update(b"%d:%d:" % (position, len(page)) + page)
            position += len(page)
    return sha.hexdigest()


def differences(ours: Path, theirs: Path) -> list[str]:
    """Return one line for each path that is not the same in both trees."""
    left, right = picture(ours), picture(theirs)
    return [
        f"{path!r}: {left.get(path)} is not {right.get(path)}"
        for path in sorted(left.keys() | right.keys())
        if left.get(path) != right.get(path)
    ]


def sparse_file(path: Path, size: int, runs: list[tuple[int, int]], *, seed: int = 1) -> None:
    """Make a file of size bytes with random data at each (offset, length) and holes elsewhere."""
    source = random.Random(seed)
    with open(path, "wb") as file:
        file.truncate(size)
        for offset, length in runs:
            file.seek(offset)
            file.write(source.randbytes(length))


def sparse_tree(root: Path) -> None:
    """Sparse files of many shapes: holes at the start, the end, everywhere; no data at all; many fragments."""
    root.mkdir(parents=True, exist_ok=True)
    sparse_file(root / "all-hole", 3 << 20, [])
    sparse_file(root / "hole-first", (2 << 20) + 5, [(1 << 20, (1 << 20) + 5)])
    sparse_file(root / "hole-last", 5 << 20, [(0, 4096)])
    sparse_file(root / "hole-in-the-middle", 4 << 20, [(0, 10_000), ((4 << 20) - 10_000, 10_000)])
    sparse_file(root / "dense", 300_001, [(0, 300_001)])
    sparse_file(root / "empty", 0, [])
    sparse_file(root / "odd-end", (1 << 20) + 13, [(0, 4096), (1 << 20, 13)])
    sparse_file(root / "five-runs", 9 << 20, [(index << 20, 4096) for index in range(0, 9, 2)])
    sparse_file(root / "many-runs", 1500 * 12288, [(index * 12288, 4096) for index in range(1500)])
    sparse_file(root / "beyond-8-gib", (9 << 30) + 1, [(1 << 20, 4096), (9 << 30, 1)])
    sparse_file(root / ("sparse-" + LONG), 2 << 20, [(1 << 20, 4096)])
    source = random.Random(7)
    for index in range(12):
        runs = [(source.randrange(0, 4 << 20), source.randrange(1, 70_000)) for _ in range(source.randrange(1, 30))]
        sparse_file(root / f"random-{index}", (4 << 20) + 70_000 + source.randrange(9999), runs, seed=index)
    (root / "after-the-sparse-ones").write_text("still in step\n")


def plain_tree(root: Path, *, fifo: bool = True) -> None:
    """What every tar format can hold (version 7 has no FIFOs), with whole seconds."""
    (root / "directory/below").mkdir(parents=True)
    (root / "empty-directory").mkdir(mode=0o700)
    (root / "read-only-directory").mkdir()
    (root / "read-only-directory/file").write_text("inside")
    (root / "text").write_text("text\n")
    (root / "empty").write_bytes(b"")
    (root / "block").write_bytes(bytes(range(256)) * 2)
    (root / "big").write_bytes(random.Random(3).randbytes(3_000_001))
    (root / "compressible").write_text("the same again\n" * 400_000)
    (root / "script").write_text("#!/bin/sh\n")
    (root / "script").chmod(0o6755)
    (root / "read-only").write_text("no")
    (root / "read-only").chmod(0o444)
    (root / "nothing-allowed").write_text("no")
    (root / "nothing-allowed").chmod(0o400 if os.geteuid() else 0)  # the judges have to read it
    os.link(root / "text", root / "directory/hard-link")
    os.link(root / "big", root / "directory/below/hard-link")
    os.symlink("text", root / "symlink")
    os.symlink("/nowhere/at all", root / "dangling")
    os.symlink("directory", root / "symlink-to-directory")
    os.link(root / "symlink", root / "hard-link-to-symlink", follow_symlinks=False)
    if fifo:
        os.mkfifo(root / "fifo", 0o640)
    (root / "name with spaces").write_text("")
    (root / "new\nline").write_text("")
    (root / "back\\slash").write_text("")
    (root / "sticky").mkdir()
    (root / "sticky").chmod(0o1777)
    (root / "set-group").mkdir()
    (root / "set-group").chmod(0o2755)
    (root / "read-only-directory").chmod(0o555)
    for index, path in enumerate(sorted(walk(os.fsencode(root)), reverse=True)):
        os.utime(path, ns=(0, (1_000_000_000 + 86_400 * index) * NANOSECOND), follow_symlinks=False)


def odd_tree(root: Path) -> None:
    """plain_tree() and what needs GNU's or pax's extensions: names, times."""
    plain_tree(root)
    (root / LONG).mkdir()
    (root / LONG / VERY_LONG).write_text("long")
    os.link(root / LONG / VERY_LONG, root / ("hard-" + LONG))
    os.symlink("x" * 300, root / "long-symlink")
    os.symlink("ж" * 90, root / "unicode-symlink-ж")
    deep = root.joinpath(*(["d" * 100] * 12))
    deep.mkdir(parents=True)
    (deep / "deep").write_text("deep")
    (root / "grüße-日本語").write_text("unicode")
    (root / "decomposed-e\u0301").write_text("not the same as \u00e9")
    (root / "composed-\u00e9").write_text("not the same as e\u0301")
    os.link(root / "decomposed-e\u0301", root / "hard-decomposed-e\u0301")
    base = os.fsencode(root)
    for bad in (b"latin-\xe4", b"not-utf8-\xff\xfe", b"cut-\xe6\x97"):
        with open(os.path.join(base, bad), "wb") as file:
            file.write(bad)
    os.symlink(b"target-\xff", os.path.join(base, b"symlink-\xff"))
    os.link(os.path.join(base, b"latin-\xe4"), os.path.join(base, b"hard-\xe4"))
    times = {"before-1970": -1_500_000_000, "just-before": -250_000_000, "long-before": -(1 << 30) * NANOSECOND + 1}
    times |= {"with-ns": 1_600_000_000_123_456_789, "zero": 0, "one-ns": 1, "after-2038": (1 << 32) * NANOSECOND + 7}
    for name, value in times.items():
        (root / name).write_text(name)
        os.utime(root / name, ns=(value, value))
    os.utime(root / "sticky", ns=(5, 1_600_000_000_000_000_001))
