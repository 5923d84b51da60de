# SPDX-License-Identifier: MIT
"""Find the files that differ between two trees in one walk through both: memory does not grow with their number."""

from __future__ import annotations

import stat
from dataclasses import dataclass

from pydiskimg.fs.ext4.tree.tree import ExtTree
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator
    from typing import TypeAlias

    from pydiskimg.protocols import Source

    Found: TypeAlias = tuple[str, os.stat_result]

_PIECE = 1 << 20  # bytes of contents that are compared at once
_DEVICES = (stat.S_IFCHR, stat.S_IFBLK)


@dataclass(frozen=True, slots=True)
class FileDifference:
    """A path, and the status of its file in the first and the second tree; None if it does not exist there.

    fields names the differences if both have it: type, mode, uid, gid, links, modified, size, contents, target, device,
    attributes.
    """

    path: str
    old: os.stat_result | None
    new: os.stat_result | None
    fields: tuple[str, ...] = ()


def tree_differences(old: ExtTree, new: ExtTree, *, times: bool = False) -> Iterator[FileDifference]:
    """Yield the differences between two trees in the order of their paths, each directory before its files.

    The comparison covers what tar would pack: type, mode, owners, extended attributes, contents, targets and device
    numbers; with times also the times of the last modification. Raises as reading the trees does.
    """
    olds, news = _walk(old), _walk(new)
    before, after = next(olds, None), next(news, None)
    while before is not None or after is not None:
        if after is None or (before is not None and _key(before) < _key(after)):
            assert before is not None
            yield FileDifference(before[0], before[1], None)
            before = next(olds, None)
        elif before is None or _key(after) < _key(before):
            yield FileDifference(after[0], None, after[1])
            after = next(news, None)
        else:
            fields = tuple(_differing(old, before[1], new, after[1], after[0], times=times))
            if fields:
                yield FileDifference(after[0], before[1], after[1], fields)
            before, after = next(olds, None), next(news, None)


def _walk(tree: ExtTree) -> Iterator[Found]:
    yield "/", tree.stat("/")
    yield from tree.walk("/")


def _key(found: Found) -> list[bytes]:
    """The order of walk(): by names as bytes, a directory before its files."""
    return found[0].strip("/").encode(errors="surrogateescape").split(b"/")


def _differing(
    old: ExtTree, before: os.stat_result, new: ExtTree, after: os.stat_result, path: str, *, times: bool
) -> Iterator[str]:
    kind = stat.S_IFMT(before.st_mode)
    if kind != stat.S_IFMT(after.st_mode):
        yield "type"
        return
    compared = _COMPARED | (_LINKS if kind == stat.S_IFREG else {}) | (_MODIFIED if times else {})
    for name, field in compared.items():
        if getattr(before, field) != getattr(after, field):
            yield name
    yield from _differing_contents(old, before, new, after, path)
    if old.attributes(path, follow_symlinks=False) != new.attributes(path, follow_symlinks=False):
        yield "attributes"


_COMPARED = {"mode": "st_mode", "uid": "st_uid", "gid": "st_gid"}
_LINKS = {"links": "st_nlink"}  # for a directory it counts its subdirectories
_MODIFIED = {"modified": "st_mtime_ns"}


def _differing_contents(
    old: ExtTree, before: os.stat_result, new: ExtTree, after: os.stat_result, path: str
) -> Iterator[str]:
    """Compare the contents of two files of the same type."""
    kind = stat.S_IFMT(before.st_mode)
    if kind == stat.S_IFREG and before.st_size != after.st_size:
        yield "size"
    elif kind == stat.S_IFREG and not _same_contents(old.open(path), new.open(path)):
        yield "contents"
    elif kind == stat.S_IFLNK and old.readlink(path) != new.readlink(path):
        yield "target"
    elif kind in _DEVICES and before.st_rdev != after.st_rdev:
        yield "device"


def _same_contents(old: Source, new: Source) -> bool:
    """Compare two sources of the same size."""
    a, b = bytearray(min(_PIECE, old.size)), bytearray(min(_PIECE, old.size))
    for start in range(0, old.size, _PIECE):
        length = min(_PIECE, old.size - start)
        old.read_into(start, memoryview(a)[:length])
        new.read_into(start, memoryview(b)[:length])
        if a[:length] != b[:length]:
            return False
    return True
