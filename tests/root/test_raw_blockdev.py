# SPDX-License-Identifier: MIT
"""Raw and qcow2 images on block devices: size by ioctl, and a format that is never guessed there."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pydiskimg.cli import main
from pydiskimg.errors import UnsupportedImageError
from pydiskimg.extents import Extent, Kind
from pydiskimg.images.open import open_image
from pydiskimg.protocols import read_bytes
from tests.fixtures.qcow2_images import Craft, assert_contract

pytestmark = pytest.mark.root


@pytest.fixture(params=[512, 4096])
def device(request: pytest.FixtureRequest, tmp_path: Path, tool: Callable[[str], str]) -> Iterator[str]:
    """A loop device of 3 MiB over a sparse file that starts as a qcow2 image does."""
    backing = tmp_path / "backing"
    with backing.open("wb") as file:
        file.write(Craft().build())
        file.truncate(3 << 20)
    losetup = tool("losetup")
    command = [losetup, "--find", "--show", "--read-only", "--sector-size", str(request.param), str(backing)]
    path = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    try:
        yield path
    finally:
        subprocess.run([losetup, "--detach", path], check=True)


def test_a_block_device_is_one_extent_of_data(device: str) -> None:
    with open_image(device, format="raw") as source:
        assert (source.format, source.size) == ("raw", 3 << 20)
        assert assert_contract(source) == [Extent(0, 3 << 20, Kind.DATA)]
        assert read_bytes(source, 0, 1536) == Craft().build()
        assert read_bytes(source, (3 << 20) - 777, 777) == bytes(777)


def test_the_format_of_a_device_is_not_guessed(device: str) -> None:
    with pytest.raises(UnsupportedImageError, match=f"^{device}: looks like a qcow2 image, which a guest can write"):
        open_image(device)
    with open_image(device, format="qcow2") as source:
        assert (source.format, source.size) == ("qcow2", 64 << 9)
        assert read_bytes(source, 0, source.size) == bytes(64 << 9)


def test_snapshots_of_a_device_are_not_guessed(device: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["snapshot", "-l", device]) == 1
    assert "name the format" in capsys.readouterr().err
    assert main(["snapshot", "-l", "-f", "qcow2", device]) == 0
