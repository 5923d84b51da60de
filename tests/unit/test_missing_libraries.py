# SPDX-License-Identifier: MIT
"""Without site-packages, and so without pyparted, libarchive-c and tqdm: what needs none of them works."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.fixtures.checkout import ROOT
from tests.fixtures.example_files import make_example_files
from tests.fixtures.terminals import on_terminal


@pytest.fixture(scope="module")
def example_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("examples")
    make_example_files(directory, tmp_path_factory.mktemp("scratch"))
    with tarfile.open(directory / "files.tar.xz", "w:xz") as archive:
        archive.add(directory / "root.dump", "srv/root.dump")
    return directory


def pydiskimg(*arguments: str, directory: Path) -> tuple[int, str, str]:
    """Run a command with an interpreter that has the standard library and this checkout only."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-S", "-m", "pydiskimg", *arguments]
    done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def test_the_libraries_are_missing(tmp_path: Path) -> None:
    for name in ("parted", "libarchive", "tqdm"):
        done = subprocess.run([sys.executable, "-S", "-c", f"import {name}"], cwd=tmp_path, check=False, stderr=-3)
        assert done.returncode == 1


def test_images_and_their_files(example_files: Path, tmp_path: Path) -> None:
    shutil.copy(example_files / "disk.qcow2", tmp_path)
    shutil.copy(example_files / "files.tar.gz", tmp_path)
    for command in (
        "info disk.qcow2",
        "map disk.qcow2",
        "check disk.qcow2",
        "convert -p --verify disk.qcow2 disk.raw",
        "compare disk.raw disk.qcow2",
        "convert -c -O qcow2 disk.raw small.qcow2",
        "create -f qcow2 new.qcow2 1G",
        "ls -l disk.qcow2 /etc",
        "tar-in disk.qcow2 files.tar.gz /",
        "show disk.raw",
        "filesystems disk.raw",
        "mkfs --create 16M data.img",
    ):
        assert pydiskimg(*command.split(), directory=tmp_path)[::2] == (0, ""), command
    assert pydiskimg("cat", "disk.qcow2", "/etc/motd", directory=tmp_path) == (0, "hello\n", "")


def test_progress_on_a_terminal(example_files: Path) -> None:
    command = [sys.executable, "-S", "-m", "pydiskimg", "compare", "-p", "disk.qcow2", "disk.raw"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    status, said = on_terminal(command, columns=200, environment=environment, directory=example_files)
    assert status == 0
    assert b"100%" in said


@pytest.mark.parametrize(
    ("command", "package"),
    [
        ("build debian.tar.gz new.raw --size 64M", "python3-parted"),
        ("tar-in disk.qcow2 files.tar.xz /", "python3-libarchive-c"),
    ],
)
def test_what_is_missing_is_named(command: str, package: str, example_files: Path, tmp_path: Path) -> None:
    for name in ("disk.qcow2", "files.tar.xz", "debian.tar.gz"):
        shutil.copy(example_files / name, tmp_path)
    status, output, error = pydiskimg(*command.split(), directory=tmp_path)
    assert (status, output) == (1, "")
    assert package in error
    assert error.count("\n") == 1
    assert not (tmp_path / "new.raw").exists()
