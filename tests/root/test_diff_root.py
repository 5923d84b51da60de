# SPDX-License-Identifier: MIT
"""diff of two images beside diff(1), stat and the attributes of both as the kernel shows them, after random changes."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pydiskimg.cli import main
from pydiskimg.host.loop import loop_device
from pydiskimg.host.mount import mounted
from tests.fixtures.ext_files import made_ext
from tests.fixtures.programs import Tool, run

pytestmark = pytest.mark.root

MIB = 1 << 20
ONLY, DIFFER = re.compile(r"Only in (.*?): (.*)"), re.compile(r"(?:Files|Symbolic links) (.*) and .* differ")
OTHER_TYPE = re.compile(r"File (.*) is an? (.*) while file .* is an? (.*)")


def tree(root: Path) -> Path:
    rng = random.Random(1)
    for directory in ("", "a", "a.b", "a/deep er", "räksmörgås"):
        (root / directory).mkdir(parents=True, exist_ok=True)
        for number in range(8):
            path = root / directory / f"file {number}"
            path.write_bytes(rng.randbytes(rng.choice((0, 10, 5000, 70_000))))
        (root / directory / "link").symlink_to(rng.choice(("file 1", "x" * 100)))
        os.mkfifo(root / directory / "fifo")
        os.mknod(root / directory / "null", 0o020666, os.makedev(1, 3))
        os.link(root / directory / "file 2", root / directory / "second name")
        os.setxattr(root / directory / "file 3", "user.note", b"a note")
    return root


def patch(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(max(0, path.stat().st_size - 1))
        file.write(b"!")


def relink(path: Path) -> None:
    if path.is_symlink():
        path.unlink()
        path.symlink_to("elsewhere")


def become(path: Path, make: Callable[[Path], object]) -> None:
    if not stat.S_ISDIR(path.lstat().st_mode):
        path.unlink()
        make(path)


CHANGES: tuple[Callable[[Path], object], ...] = (
    lambda path: patch(path) if stat.S_ISREG(path.lstat().st_mode) else None,
    lambda path: None if path.is_symlink() else path.chmod(0o640),
    lambda path: os.chown(path, 70_000, 5, follow_symlinks=False),
    lambda path: None if path.is_symlink() or not path.is_file() else os.setxattr(path, "user.note", b"another"),
    lambda path: os.setxattr(path, "trusted.note", b"for links, too", follow_symlinks=False),
    lambda path: os.utime(path, (5, 6), follow_symlinks=False),
    relink,
    lambda path: become(path, os.mkfifo),
    lambda path: become(path, lambda at: at.mkdir()),
    lambda path: become(path, lambda at: at.symlink_to("new")),
    lambda path: shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(),
    lambda path: os.link(path, path.with_name("third name")) if path.is_file() and not path.is_symlink() else None,
    lambda path: path.rename(path.with_name(f"{path.name} moved")),
)


def changed(root: Path, rng: random.Random) -> None:
    for _ in range(25):
        path = rng.choice(sorted(path for path in root.rglob("*") if "lost+found" not in path.parts))
        try:
            rng.choice(CHANGES)(path)
        except FileExistsError:  # the third name
            continue


def below(root: Path, path: Path) -> Iterator[str]:
    yield f"/{path.relative_to(root)}"
    if path.is_dir() and not path.is_symlink():
        yield from (f"/{one.relative_to(root)}" for one in path.rglob("*"))


def attributes(path: Path) -> dict[str, bytes]:
    names = os.listxattr(path, follow_symlinks=False)
    return {name: os.getxattr(path, name, follow_symlinks=False) for name in names}


def expected(old: Path, new: Path, tool: Tool) -> dict[str, set[str]]:
    """What differs, by path: - and + for what only one has, else the names of the fields."""
    found: dict[str, set[str]] = {}
    lines = run(
        tool("env"), "LC_ALL=C.UTF-8", tool("diff"), "-rq", "--no-dereference", str(old), str(new), expect=(0, 1)
    )
    for line in lines.splitlines():
        if only := ONLY.fullmatch(line):
            path = Path(only[1], only[2])
            root, sign = (old, "-") if path.is_relative_to(old) else (new, "+")
            found.update((name, {sign}) for name in below(root, path))
        elif differ := DIFFER.fullmatch(line):
            path = Path(differ[1])
            found["/" + str(path.relative_to(old))] = {"target" if path.is_symlink() else "contents"}
        else:
            other = OTHER_TYPE.fullmatch(line)
            assert other is not None, line
            if other[2] != other[3]:  # of two fifos diff says this, too
                path = Path(other[1])
                found["/" + str(path.relative_to(old))] = {"type"}
                for root, sign in ((old, "-"), (new, "+")):  # diff passes over what is in a directory then
                    found.update((name, {sign}) for name in list(below(root, root / path.relative_to(old)))[1:])
    for path in (new, *new.rglob("*")):
        before, after = old / path.relative_to(new), path
        name = f"/{path.relative_to(new)}" if path != new else "/"
        if not os.path.lexists(before) or found.get(name) == {"type"}:
            continue
        facts, others = before.lstat(), after.lstat()
        fields = found.get(name, set())
        compared = {"mode": "st_mode", "uid": "st_uid", "gid": "st_gid"}
        compared |= {"links": "st_nlink"} if stat.S_ISREG(facts.st_mode) else {}
        fields |= {field for field, at in compared.items() if getattr(facts, at) != getattr(others, at)}
        fields |= {"modified"} if facts.st_mtime_ns != others.st_mtime_ns else set()
        fields |= {"attributes"} if attributes(before) != attributes(after) else set()
        if fields:
            found[name] = fields
    return found


def as_diff_says(row: dict[str, Any]) -> set[str]:
    """The fields of one difference, where a size that differs is among the contents."""
    if row["new"] is None or row["old"] is None:
        return {"-" if row["new"] is None else "+"}
    return {"contents" if field == "size" else field for field in row["changed"]}


@pytest.mark.parametrize("seed", range(4))
def test_it_is_what_the_kernel_shows(seed: int, tmp_path: Path, tool: Tool, capsys: pytest.CaptureFixture[str]) -> None:
    images = [made_ext(tool, tmp_path / "old", "-t ext4", 32 * MIB, tree(tmp_path / "tree")), tmp_path / "new"]
    shutil.copyfile(*images)
    with loop_device(images[1]) as loop, mounted(loop.path, fs_type="ext4") as point:
        changed(Path(point), random.Random(seed))
    with (
        loop_device(images[0]) as first,
        loop_device(images[1]) as second,
        mounted(first.path, fs_type="ext4") as old,
        mounted(second.path, fs_type="ext4") as new,
    ):
        wanted = expected(Path(old), Path(new), tool)
    assert main(["diff", "--times", "--output", "json", *map(str, images)]) == 1
    rows = json.loads(capsys.readouterr().out)
    assert {row["path"]: as_diff_says(row) for row in rows} == wanted
    assert len(wanted) > 15
