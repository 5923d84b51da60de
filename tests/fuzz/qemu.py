# SPDX-License-Identifier: MIT
"""A changed image that qemu-img reads: what it reads is what we read, even where the image is damaged."""

from __future__ import annotations

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
    command = ["qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(path), str(raw)]
    if subprocess.run(command, capture_output=True, check=False, timeout=_SECONDS).returncode:
        return "data, and qemu-img reads none"
    theirs = raw.read_bytes()  # QEMU forgets what is behind the last whole sector
    mine = read_bytes(source, 0, source.size)
    assert len(mine) - 512 < len(theirs) <= len(mine), "qemu-img finds another size"
    assert mine[: len(theirs)] == theirs, "qemu-img reads other bytes"
    return "data, as qemu-img reads it"
