# SPDX-License-Identifier: MIT
"""A user's own project, checked by mypy and pyright against the installed package and its py.typed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import pydiskimg
from tests.fixtures.checkout import ROOT

pytestmark = pytest.mark.oracle

# Types as a user writes them: each annotation is wrong unless the package declares it so.
_USES = """
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pydiskimg
from names import Comparison, Content, Copied, ExtInfo, Extent, FileSystemKind, Kind, MemoryDisk, NewPartition
from names import PartitionTable, Region, Source, compare, copy, find_volumes, make_ext, new_image, open_disk
from names import open_image, open_tree, plan_partition_table, used_source
from pydiskimg import errors

VERSION: str = pydiskimg.__version__


def show(done: int, total: int) -> None:
    print(done, total)


def back_up(device: Path, image: str) -> int:
    with open_image(device, format="raw") as source, new_image(image, source.size, format="qcow2") as disk:
        copied: Copied = copy(used_source(source), disk, unit=disk.unit, progress=show, verify=True)
        same: Comparison = compare(source, disk)
        return copied.written if same.identical else 0


class Ones(Source):
    @property
    def name(self) -> str:
        return "ones"

    @property
    def size(self) -> int:
        return 1 << 20

    def extents(self) -> Iterator[Extent]:
        yield Extent(0, self.size, Kind.DATA)

    def read_into(self, offset: int, buffer: bytearray | memoryview) -> None:
        buffer[:] = bytes([1]) * len(buffer)


def make(path: str) -> UUID:
    with open_disk(path, writable=True) as disk:
        table: PartitionTable = plan_partition_table(disk.size, disk.sector_size, [NewPartition(Content.LINUX)])
        root = table.partitions[0]
        made: ExtInfo = make_ext(Region(disk, root.start, root.length), label="root")
        table.write(disk)
        return made.uuid


def names(path: str) -> list[str]:
    try:
        with open_tree(path) as tree:
            return tree.list("/home")
    except errors.StorageError as error:
        assert isinstance(error, pydiskimg.errors.DiskImageError), error.errno
        return []


def rename(path: str) -> None:
    with open_tree(path, writable=True) as tree:
        tree.write("/etc/hostname", b"web1\\n")
    with open_image(path) as source:
        for volume in find_volumes(source):
            kind: FileSystemKind | None = volume.content
            print(volume.partition.number, kind.type if kind else None)


copy(Ones(), MemoryDisk(1 << 20), progress=lambda done, total: print(done, total))
"""
_WRONG = """
import pydiskimg
from pydiskimg import copy, no_such_name

pydiskimg.neither_this()
copy("disk.raw", "copy.raw")
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    names: list[str] = getattr(pydiskimg, "__all__")  # noqa: B009 - hidden from type checkers
    imported = f"from pydiskimg import {', '.join(names)}\n"
    (tmp_path / "names.py").write_text(f"{imported}\n__all__ = {names}\n")
    (tmp_path / "uses.py").write_text(_USES)
    (tmp_path / "wrong.py").write_text(_WRONG)
    return tmp_path


def check(*command: str, project: Path) -> tuple[int, str]:
    """Run a checker in the project, which sees the package where it is installed and not this checkout."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MYPYPATH")}
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=project, env=environment, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout


def test_mypy(project: Path) -> None:
    status, output = check("mypy", "--strict", "names.py", "uses.py", "wrong.py", project=project)
    found = [line for line in output.splitlines() if ": error: " in line]
    assert status == 1
    assert [line.partition(": error: ")[0] for line in found] == [f"wrong.py:{line}" for line in (3, 5, 6, 6)]
    assert "no_such_name" in found[0]
    assert "neither_this" in found[1]


def test_every_example_of_the_documentation_by_mypy(tmp_path: Path) -> None:
    """Each block alone, as a user copies it; root and boot are disks that the page has described."""
    begun = "from pydiskimg import Disk\n\nroot: Disk\nboot: Disk\n"
    for page in ("README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))):
        found = re.findall(r"^```python\n(.*?)^```$", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
        for number, block in enumerate(found, 1):
            name = f"{Path(page).stem.replace('-', '_')}_{number}.py"
            (tmp_path / name).write_text(begun + block if "NewExt(disk=root" in block else block)
    examples = sorted(path.name for path in tmp_path.iterdir())
    assert len(examples) > 30
    status, output = check("mypy", "--strict", *examples, project=tmp_path)
    assert (status, output.splitlines()[:-1]) == (0, [])


def test_pyright(project: Path) -> None:
    (project / "pyrightconfig.json").write_text(json.dumps({"typeCheckingMode": "strict"}))
    command = ("pyright", "--outputjson", "--pythonpath", sys.executable, "names.py", "uses.py", "wrong.py")
    status, output = check(*command, project=project)
    found = [(Path(row["file"]).name, row["range"]["start"]["line"] + 1, row["message"]) for row in _rows(output)]
    assert status == 1
    assert {(name, line) for name, line, _ in found} == {("wrong.py", 3), ("wrong.py", 5), ("wrong.py", 6)}
    assert any("no_such_name" in message for _, _, message in found)
    assert any("neither_this" in message for _, _, message in found)


def _rows(output: str) -> list[dict[str, Any]]:
    rows = json.loads(output)["generalDiagnostics"]
    assert isinstance(rows, list)
    return [row for row in rows if row["severity"] == "error"]
