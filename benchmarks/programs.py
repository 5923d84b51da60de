# SPDX-License-Identifier: MIT
"""Run programs of the system for inputs and targets."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

PATH = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def run(*command: str, stdin: str | None = None) -> str:
    """Run a program that must succeed; returns what it prints."""
    environment = {**os.environ, "PATH": PATH, "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        command, input=stdin, capture_output=True, text=True, check=False, env=environment, errors="replace"
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: status {done.returncode}: {done.stderr.strip()[-2000:]}")
    return done.stdout


@contextmanager
def attached(disk: Path, start: int = 0, length: int = 0) -> Iterator[str]:
    """Give a loop device over a file, or over length bytes of it."""
    where = ["--offset", str(start), "--sizelimit", str(length)] if length else []
    device = run("losetup", "--find", "--show", *where, str(disk)).strip()
    try:
        yield device
    finally:
        run("losetup", "--detach", device)


@contextmanager
def mounted(disk: Path | str, point: Path) -> Iterator[Path]:
    """Mount a file system on the directory point, which is made and removed."""
    point.mkdir()
    run("mount", *(() if str(disk).startswith("/dev/") else ("-o", "loop")), str(disk), str(point))
    try:
        yield point
    finally:
        run("umount", str(point))
        point.rmdir()


def emulated() -> bool:
    """True where the virtual machines of virt-* have no KVM, or the environment of libguestfs says so."""
    return not Path("/dev/kvm").exists() or "force_tcg" in os.environ.get("LIBGUESTFS_BACKEND_SETTINGS", "")


@cache
def mke2fs_takes_tarballs() -> bool:
    done = subprocess.run(["mke2fs", "-V"], capture_output=True, text=True, check=True, env={"PATH": PATH})
    return tuple(map(int, done.stderr.split()[1].split("-")[0].split("."))) >= (1, 47, 1)
