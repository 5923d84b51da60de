# SPDX-License-Identifier: MIT
"""What a short command imports: it decides how long it takes (docs/adr/0007)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.fs.ext4.make import make_ext
from pydiskimg.units import MIB
from tests.fixtures.checkout import ROOT
from tests.fixtures.qcow2_images import Craft

SLOW = {"argparse", "collections", "contextlib", "dataclasses", "enum", "functools", "json", "re", "signal", "typing"}

# Beyond what the interpreter has loaded itself. A new name here costs every `pydiskimg info` 0.1 ms and more.
INFO = {
    "__future__",
    "_struct",
    "errno",
    "gc",
    "pydiskimg",
    "pydiskimg.cli",
    "pydiskimg.cli.info",
    "pydiskimg.cli.output",
    "pydiskimg.errors",
    "pydiskimg.images",
    "pydiskimg.images.qcow2",
    "pydiskimg.images.qcow2.header",
    "pydiskimg.images.qcow2.layout",
    "pydiskimg.images.raw",
    "pydiskimg.linux",
    "pydiskimg.linux.fileio",
    "pydiskimg.linux.stdio",
    "pydiskimg.protocols",
    "pydiskimg.records",
    "pydiskimg.startup",
    "pydiskimg.units",
}

TELL = "import os, sys; before = set(sys.modules); from pydiskimg.cli import main; status = main({words!r})\n"
TELL += "print(*(set(sys.modules) - before), file=sys.stderr); sys.exit(status)"


def imported(*words: str) -> set[str]:
    """The modules that a command imports, in an interpreter without site."""
    command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"]
    command[-1] += TELL.format(words=words)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


@pytest.fixture
def image(tmp_path: Path) -> str:
    path = tmp_path / "image.qcow2"
    path.write_bytes(Craft().build())
    return str(path)


@pytest.mark.parametrize(
    "options", [[], ["--output=json"], ["-f", "qcow2"], ["-U", "--output", "human"], ["-f", "raw"]]
)
def test_info_imports_what_it_needs(image: str, options: list[str]) -> None:
    modules = imported("info", *options, image)
    assert modules <= INFO
    assert not modules & SLOW


def test_a_rare_form_of_info_imports_argparse(image: str) -> None:
    assert "argparse" in imported("info", "--backing-chain", image)


def test_the_package_alone_imports_next_to_nothing() -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); before = set(sys.modules); import pydiskimg\n"
    code += "print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == {"__future__", "pydiskimg", "pydiskimg.startup"}


def test_map_leaves_the_slow_ones_alone(image: str) -> None:
    slow = {"inspect", "json", "logging", "pathlib"}
    assert not imported("map", "--output", "json", image) & slow


@pytest.mark.parametrize("command", ["ls", "stat"])
def test_reading_files_leaves_the_slow_ones_alone(tmp_path: Path, command: str) -> None:
    disk = MemoryDisk(8 * MIB)
    make_ext(disk)
    path = tmp_path / "disk"
    path.write_bytes(disk.data)
    slow = {"logging", "pydiskimg.fs.ext4.journal", "shutil", "traceback", "typing", "uuid"}
    assert not imported(command, "--output", "json", str(path), "/lost+found") & slow


def test_asking_a_loop_device_what_it_shows_imports_little() -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); before = set(sys.modules)\n"
    code += "import pydiskimg.linux.loopctl; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & (SLOW | {"inspect"})


def test_create_has_a_disk_image_copied_without_what_tarballs_need() -> None:
    libraries = {"parted", "_ped", "libarchive", "pydiskimg.host.mount"}
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {{}}; print(*sys.modules)"
    for module, needed in (("ganeti_os.verbs.create", set[str]()), ("ganeti_os.install.from_tarball", libraries)):
        command = [sys.executable, "-c", code.format(module)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert set(done.stdout.split()) & libraries == needed
