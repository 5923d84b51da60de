# SPDX-License-Identifier: MIT
"""Wrong values for public functions: ValueError or DiskImageError with a sentence, and nothing is lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pydiskimg import (
    DiskImageError,
    InUseError,
    MemoryDisk,
    NewExt,
    PacedDisk,
    Region,
    SourceRegion,
    Store,
    UnsupportedImageError,
    commit,
    compare,
    copy,
    new_image,
    new_overlay,
    open_disk,
    open_image,
    open_qcow2_store,
    populate_joined,
    read_bytes,
    rename_backing,
    repair_qcow2,
    take_snapshot,
)

MIB = 1 << 20


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def made(name: str, size: int = 8 * MIB) -> str:
    with new_image(name, size, format="qcow2") as disk:
        disk.write(0, b"contents")
    return name


@pytest.mark.parametrize("start", [0, 3 * MIB])
@pytest.mark.parametrize("as_file", [True, False])
def test_a_copy_between_regions_that_overlap(as_file: bool, start: int) -> None:
    """The copy has lost bytes before: they were overwritten before they were read."""
    contents = b"".join(bytes([number]) * MIB for number in range(1, 9))
    Path("disk").write_bytes(contents)
    memory = MemoryDisk(8 * MIB)
    memory.write(0, contents)
    with open_disk("disk", writable=True) as file, open_image("disk") as again:
        disk = file if as_file else memory
        for source in (disk, again) if as_file else (disk,):
            with pytest.raises(InUseError, match=r"overlaps the source, .*, whose bytes would be lost before they are"):
                copy(SourceRegion(source, start, 4 * MIB), Region(disk, 3 * MIB - start, 5 * MIB))
        assert read_bytes(disk, 0, disk.size) == contents
        copy(Region(disk, 0, 4 * MIB), Region(disk, 4 * MIB, 4 * MIB), verify=True)
        copy(disk, disk)
        assert read_bytes(disk, 0, disk.size) == contents[: 4 * MIB] * 2


def test_two_file_systems_in_one_place() -> None:
    disk = MemoryDisk(64 * MIB)
    for root, boot in ((disk, disk), (Region(disk, 0, 40 * MIB), Region(disk, 30 * MIB, 20 * MIB))):
        with pytest.raises(ValueError, match="overlaps "):
            populate_joined(NewExt(disk=root), NewExt(disk=boot), [])
    assert not any(disk.data)
    populate_joined(NewExt(disk=Region(disk, 0, 40 * MIB)), NewExt(disk=Region(disk, 40 * MIB, 20 * MIB)), [])


@pytest.mark.parametrize(
    ("backing", "form", "text"),
    [
        (b"top", b"qcow2", "top: cannot be its own backing file, and top is the same file"),
        (b"./linked", b"qcow2", "top: cannot be its own backing file, and ./linked is the same file"),
        (b"", b"raw", "'' is not the name of a backing file"),
        (b"a\0b", b"raw", r"'a\\x00b' is not the name of a backing file"),
        (b"other", b"", "a backing file of the format '' is not read; expected raw or qcow2"),
        (b"other", b"vmdk", "a backing file of the format 'vmdk' is not read; expected raw or qcow2"),
    ],
)
def test_what_cannot_be_a_backing_file(backing: bytes, form: bytes, text: str) -> None:
    Path("linked").symlink_to(made("top"))
    before = Path("top").read_bytes()
    with pytest.raises(DiskImageError, match=text):
        new_overlay("top", 8 * MIB, backing_file=backing, backing_format=form)
    if backing not in (b"", b"top", b"./linked"):  # which qemu-img rebase -u takes, too
        with pytest.raises(DiskImageError, match=text):
            rename_backing("top", backing.decode(), backing_format=form.decode())
    assert Path("top").read_bytes() == before


def test_an_overlay_of_a_negative_size() -> None:
    with pytest.raises(UnsupportedImageError, match="top: a size of -1 bytes is not possible; expected 0 or more"):
        new_overlay("top", -1, backing_file=b"disk", backing_format=b"raw")
    assert not Path("top").exists()


def test_a_closed_store() -> None:
    with open_qcow2_store(made("disk.qcow2")) as store:
        pass
    operations: list[Callable[[Store], object]] = [
        lambda closed: read_bytes(closed, 0, 4),
        repair_qcow2,
        lambda closed: take_snapshot(closed, "one", now_ns=0),
    ]
    for operation in operations:
        with pytest.raises(DiskImageError, match=r"^disk.qcow2: is closed$"):
            operation(store)


@pytest.mark.parametrize("rate", [0, -1])
def test_a_rate_at_which_nothing_moves(rate: int) -> None:
    with pytest.raises(ValueError, match=f"a rate of {rate} bytes a second is not possible"):
        PacedDisk(MemoryDisk(MIB), rate)
    if rate:
        new_overlay("top", 8 * MIB, backing_file=made("below").encode(), backing_format=b"qcow2")
        with pytest.raises((ValueError, DiskImageError)):
            commit("top", references=None, rate=rate)


@pytest.mark.parametrize(
    "work",
    [
        lambda: copy(MemoryDisk(4 * MIB, fill=1), MemoryDisk(4 * MIB), workers=-1),
        lambda: compare(MemoryDisk(4 * MIB, fill=1), MemoryDisk(4 * MIB), workers=-1),
    ],
)
@pytest.mark.timeout(60)
def test_less_than_no_workers(work: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match="-1 workers are not possible"):
        work()
