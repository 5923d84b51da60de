# SPDX-License-Identifier: MIT
"""write and bmap beside bmaptool, and what is refused before a byte is written."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import re
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pydiskimg.cli import main
from tests.fixtures.ext_files import made_ext, sized, some_files
from tests.fixtures.programs import Tool, run

pytestmark = pytest.mark.oracle

MIB = 1 << 20
SIZE = 24 * MIB


@pytest.fixture
def raw(tmp_path: Path, tool: Tool) -> Path:
    (tmp_path / "files").mkdir()
    return made_ext(tool, tmp_path / "my disk.raw", "-t ext4", SIZE, some_files(tmp_path / "files", 40))


@pytest.fixture
def device(tmp_path: Path) -> Path:
    """A file in place of a device, larger than the image and full of other bytes."""
    path = tmp_path / "device"
    path.write_bytes(b"\xff" * (SIZE + MIB))
    return path


def written(device: Path) -> bytes:
    assert device.stat().st_size == SIZE + MIB
    return device.read_bytes()[:SIZE]


@pytest.mark.parametrize(
    ("ending", "pack"), [("gz", gzip.compress), ("xz", lzma.compress), ("bz2", bz2.compress), ("raw", bytes)]
)
def test_the_device_has_the_image_whatever_it_is_compressed_with(
    ending: str, pack: Callable[[bytes], bytes], raw: Path, device: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = raw.with_name(f"packed.{ending}")
    image.write_bytes(pack(raw.read_bytes()))
    assert main(["write", "--yes", str(image), str(device)]) == 0
    assert capsys.readouterr().out == f"{device}: 24 MiB were written, read back and compared\n"
    assert written(device) == raw.read_bytes()
    assert device.read_bytes()[SIZE:] == b"\xff" * MIB


def test_a_qcow2_is_written_as_the_disk_that_it_holds(raw: Path, device: Path, tool: Tool) -> None:
    image = raw.with_suffix(".qcow2")
    run(tool("qemu-img"), "convert", "-f", "raw", "-O", "qcow2", str(raw), str(image))
    assert main(["write", "-y", str(image), str(device)]) == 0
    assert written(device) == raw.read_bytes()


def test_block_maps_of_both_programs_say_the_same(raw: Path, tool: Tool, capsys: pytest.CaptureFixture[str]) -> None:
    theirs = run(tool("bmaptool"), "create", str(raw))
    assert main(["bmap", str(raw)]) == 0
    ours = capsys.readouterr().out
    assert ranges(ours) == ranges(theirs)
    for name in ("ImageSize", "BlockSize", "BlocksCount", "MappedBlocksCount", "ChecksumType"):
        pattern = f"<{name}>\\s*(\\S+)\\s*</{name}>"
        found = [re.search(pattern, text) for text in (ours, theirs)]
        assert found[0] is not None
        assert found[1] is not None
        assert found[0][1] == found[1][1]


def ranges(text: str) -> list[tuple[str, str]]:
    return re.findall(r'<Range chksum="(\w+)">\s*([\d-]+)\s*</Range>', text)


def test_bmaptool_copies_by_a_block_map_of_ours(raw: Path, tool: Tool, tmp_path: Path) -> None:
    target = tmp_path / "copy"
    assert main(["bmap", "-o", str(raw.with_suffix(".bmap")), str(raw)]) == 0
    run(tool("bmaptool"), "copy", str(raw), str(target))
    assert target.read_bytes() == raw.read_bytes()


@pytest.mark.parametrize("maker", ["bmaptool", "pydiskimg"])
def test_a_block_map_is_found_and_compared_with_the_device(
    maker: str, raw: Path, device: Path, tool: Tool, capsys: pytest.CaptureFixture[str]
) -> None:
    block_map = raw.with_suffix(".bmap")
    if maker == "bmaptool":
        run(tool("bmaptool"), "create", "-o", str(block_map), str(raw))
    else:
        assert main(["bmap", "-o", str(block_map), str(raw)]) == 0
    packed = Path(f"{raw}.xz")
    packed.write_bytes(lzma.compress(raw.read_bytes()))
    assert main(["write", "--yes", str(packed), str(device)]) == 0
    assert "ranges have the checksums of the block map" in capsys.readouterr().out
    with raw.open("r+b") as file:  # the superblock of the file system, which every map has
        file.seek(1024 + 0x78)
        file.write(b"another label")
    assert main(["write", "--yes", str(raw), str(device)]) == 1
    assert "by the block map: the image is damaged" in capsys.readouterr().err
    assert main(["write", "--yes", "--nobmap", str(raw), str(device)]) == 0


def test_the_result_for_programs(raw: Path, device: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = {"filename": str(raw), "device": str(device), "size": SIZE, "verified": True, "block-map-ranges": None}
    assert main(["write", "--yes", "--output", "json", str(raw), str(device)]) == 0
    assert json.loads(capsys.readouterr().out) == facts
    assert main(["bmap", "-o", f"{raw}.bmap", str(raw)]) == 0
    assert main(["write", "--yes", "--no-verify", "--output", "json", str(raw), str(device)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found.pop("block-map-ranges") > 0
    assert found == {name: value for name, value in facts.items() if name != "block-map-ranges"} | {"verified": False}


def test_what_is_refused_leaves_the_device_as_it_was(
    raw: Path, device: Path, tmp_path: Path, tool: Tool, capsys: pytest.CaptureFixture[str]
) -> None:
    before = device.read_bytes()
    small = sized(tmp_path / "small", SIZE - MIB)
    packed = Path(f"{raw}.gz")
    packed.write_bytes(gzip.compress(raw.read_bytes()))
    qcow2 = tmp_path / "disk.qcow2"
    run(tool("qemu-img"), "convert", "-f", "raw", "-O", "qcow2", str(raw), str(qcow2))
    packed_qcow2 = Path(f"{qcow2}.gz")
    packed_qcow2.write_bytes(gzip.compress(qcow2.read_bytes()))
    for words, message in (
        ([raw, device], "nothing was written: standard input is not a terminal; use --yes"),
        (["--yes", raw, small], "the disk has 24117248 bytes"),
        (["--yes", packed, small], "by its own tables, the disk"),
        (["--yes", packed_qcow2, device], "contains a qcow2 image"),
        (["--yes", tmp_path / "none", device], "cannot open"),
        (["--yes", "http://localhost:1/disk.raw", device], "write reads files and devices; use pydiskimg convert"),
        (["--yes", raw, tmp_path / "none"], "cannot open"),
        (["--yes", "--bmap", tmp_path / "none", raw, device], "cannot read the block map"),
        (["--yes", "--bmap", raw, raw, device], "is not a block map that can be used"),
    ):
        assert main(["write", *map(str, words)]) == 1
        assert message in capsys.readouterr().err
    assert device.read_bytes() == before
    assert not any(small.read_bytes())


def test_what_is_not_an_image_is_not_written(
    raw: Path, device: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = device.read_bytes()
    contents = {"page.img": b"<html>Not found</html>", "empty.img": b"", "archive.img": tar_of(raw)}
    contents["archive.img.gz"] = gzip.compress(contents["archive.img"])
    contents["twice.gz"] = gzip.compress(lzma.compress(b"x"))
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    for image, message in (
        ("page.img", "is text that begins with '<html>"),
        ("empty.img", "is empty"),
        ("archive.img", "is a tar archive, not a disk image"),
        ("archive.img.gz", "contains a tar archive, compressed"),
        ("twice.gz", "contains data compressed with xz, compressed; expected a raw image"),
        (device.name, "is both source and destination"),
    ):
        assert main(["write", "--yes", str(tmp_path / image), str(device)]) == 1
        assert message in capsys.readouterr().err
    assert device.read_bytes() == before
    assert main(["write", "--yes", "-f", "raw", str(tmp_path / "archive.img"), str(device)]) == 0


def tar_of(path: Path) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as tar:
        tar.add(path, path.name)
    return output.getvalue()


def test_a_qcow2_is_not_written_into_its_own_backing_file(raw: Path, tmp_path: Path, tool: Tool) -> None:
    top = tmp_path / "top.qcow2"
    run(tool("qemu-img"), "create", "-q", "-f", "qcow2", "-b", raw.name, "-F", "raw", str(top))
    before = raw.read_bytes()
    assert main(["write", "--yes", "--allow-references", str(tmp_path), str(top), str(raw)]) == 1
    assert raw.read_bytes() == before


def test_a_compressed_image_of_another_size_than_its_block_map_says(
    raw: Path, device: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bmap", "-o", f"{raw}.bmap", str(raw)]) == 0
    packed = Path(f"{raw}.gz")
    packed.write_bytes(gzip.compress(raw.read_bytes() + bytes(4096)))
    assert main(["write", "--yes", "--bmap", f"{raw}.bmap", str(packed), str(device)]) == 1
    assert "the block map is for an image of" in capsys.readouterr().err


def test_what_a_device_holds_is_shown(
    raw: Path, tmp_path: Path, tool: Tool, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "held.qcow2"
    run(tool("qemu-img"), "create", "-q", "-f", "qcow2", str(image), "1M")
    os.truncate(image, SIZE)
    for device, held in ((image, "a qcow2 image"), (sized(tmp_path / "new", SIZE), "nothing known")):
        assert main(["write", str(raw), str(device)]) == 1
        assert held in capsys.readouterr().err


def test_damaged_compressed_data_are_an_error(raw: Path, device: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packed = Path(f"{raw}.gz")
    packed.write_bytes(gzip.compress(raw.read_bytes())[:-2000])
    assert main(["write", "--yes", str(packed), str(device)]) == 1
    said = capsys.readouterr().err
    assert str(packed) in said
    assert said.endswith(f"; {device} is not complete\n")
