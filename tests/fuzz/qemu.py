# SPDX-License-Identifier: MIT
"""A changed image that qemu-img finds clean: what qemu-img reads of it is what we read."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from pydiskimg.protocols import read_bytes
from tests.fuzz.targets import SMALL, open_bytes

_SECONDS = 20


def compare_with_qemu(image: bytes, directory: Path) -> str:
    """Return a word for the outcome; AssertionError when the two read other bytes."""
    source = open_bytes(image)
    if source.size > SMALL or source.header.has_data_file or source.backing is not None or not source.size:
        return "data"
    directory.mkdir(exist_ok=True)
    path, raw = directory / "image.qcow2", directory / "image.raw"
    path.write_bytes(image)
    if _qemu("check", "-q", "-f", "qcow2", str(path)) not in (0, 3):  # 3: leaks, and nothing else
        return "data, and qemu-img finds the image damaged"
    if _qemu("convert", "-f", "qcow2", "-O", "raw", str(path), str(raw)):
        return "data, and qemu-img reads none"
    theirs = raw.read_bytes()
    mine = read_bytes(source, 0, source.size)
    assert abs(len(mine) - len(theirs)) < 512, "qemu-img finds another size"
    common = min(len(mine), len(theirs))
    assert mine[:common] == theirs[:common], "qemu-img reads other bytes"
    os.unlink(raw)
    return "data, as qemu-img reads it"


def _qemu(*words: str) -> int:
    return subprocess.run(["qemu-img", *words], capture_output=True, check=False, timeout=_SECONDS).returncode
