# SPDX-License-Identifier: MIT
"""Images that Debian's own programs made and compressed: qemu-img, xz, gzip, pigz, zstd and bzip2."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.fixtures.node import Node

pytestmark = pytest.mark.oracle
MIB = 1 << 20
SIZE = 24 * MIB


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same disk as raw and as qcow2 of qemu-img, whose tables lie among the data."""
    directory = tmp_path_factory.mktemp("images")
    raw, qcow2 = directory / "x.raw", directory / "x.qcow2"
    with raw.open("wb") as file:
        file.truncate(SIZE)
        for start in (0, 5 * MIB, 17 * MIB + 512):
            file.seek(start)
            file.write(os.urandom(MIB))
        file.seek(510)
        file.write(b"\x55\xaa")
    subprocess.run(["qemu-img", "convert", "-q", "-O", "qcow2", raw, qcow2], check=True)
    grown = directory / "y.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", grown, str(SIZE)], check=True)
    orders = [f"write -q -P {place + 1} {place}M 1M" for place in (21, 3, 12)]  # not in the order of the disk
    words = [word for order in orders for word in ("-c", order)]
    subprocess.run(["qemu-io", "-f", "qcow2", *words, grown], check=True, stdout=subprocess.DEVNULL)
    return {"raw": raw, "qcow2": qcow2, "backwards": grown}


@pytest.mark.parametrize(
    ("kind", "command", "ending"),
    [
        ("raw", ["xz", "-0", "--block-size=1MiB", "-T2"], "xz"),
        ("raw", ["gzip", "-1"], "gz"),
        ("raw", ["pigz", "-1"], "gz"),
        ("raw", ["zstd", "-q", "-1", "--long=27"], "zst"),
        ("raw", ["bzip2", "-1"], "bz2"),
        ("qcow2", ["xz", "-0"], "xz"),
        ("qcow2", ["zstd", "-q", "-1"], "zst"),
        ("backwards", ["gzip", "-1"], "gz"),
        ("backwards", ["bzip2", "-1"], "bz2"),
    ],
)
def test_as_debian_programs_make_them(
    images: dict[str, Path], tmp_path: Path, kind: str, command: list[str], ending: str
) -> None:
    image = images[kind]
    name = f"{image.name}.{ending}"
    node = Node.make(tmp_path / "node", IMAGE_NAME=name, IDENTITY="no", GROW="no")
    with image.open("rb") as source, (node.images / name).open("wb") as target:
        subprocess.run([*command, "-c"], stdin=source, stdout=target, check=True)
    disk = tmp_path / "disk"
    disk.write_bytes(b"\xff" * (SIZE + MIB))
    done = node.create(disk)
    assert done.returncode == 0, done.stderr
    expected = subprocess.run(
        ["qemu-img", "dd", "-U", "-O", "raw", f"if={image}", f"of={tmp_path / 'expected'}", "bs=1M"], check=True
    )
    assert expected.returncode == 0
    assert disk.read_bytes() == (tmp_path / "expected").read_bytes() + bytes(MIB)
