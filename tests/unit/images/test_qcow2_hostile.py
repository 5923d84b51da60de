# SPDX-License-Identifier: MIT
"""Invalid images: each is refused with its own message, in little time and memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest

from pydiskimg.cli import main
from pydiskimg.errors import DiskImageError, InvalidImageError, UnsupportedImageError
from pydiskimg.images.open import open_image
from pydiskimg.images.qcow2.check import check_qcow2
from pydiskimg.images.qcow2.header import read_header, require_readable
from pydiskimg.images.qcow2.reader import Qcow2Source, open_qcow2
from pydiskimg.images.qcow2.refcount_reader import has_unfilled_clusters
from pydiskimg.images.qcow2.snapshots import read_snapshots
from pydiskimg.images.qcow2.write.disk import open_qcow2_disk
from pydiskimg.protocols import WritableBuffer, check_range, read_bytes
from tests.fixtures.checkout import ROOT
from tests.fixtures.hostile_descriptions import DESCRIPTION_LIES, bitmap, with_bitmaps, with_luks
from tests.fixtures.hostile_images import COMPRESSED_LIES, HEADER_LIES, LIES, TABLE_LIES, Lie, one_cluster
from tests.fixtures.hostile_overlaps import OVERLAP_LIES, InOrder
from tests.fixtures.hostile_references import IMAGE
from tests.fixtures.hostile_snapshots import SNAPSHOT_LIES
from tests.fixtures.hostile_table import table
from tests.fixtures.limits import assert_sentence, limits
from tests.fixtures.odd_images import ODDITIES, Oddity
from tests.fixtures.qcow2_images import BytesSource
from tests.fuzz.targets import TARGETS, LimitedStore, file_of, outcome


def open_bytes(image: bytes, snapshot: str | None = None) -> Qcow2Source:
    file = BytesSource(image)
    data_file = BytesSource(bytes(4096), "data.raw") if read_header(file).has_data_file else None
    return open_qcow2(file, data_file=data_file, snapshot=snapshot)


def open_header(image: bytes) -> None:
    file = BytesSource(image)
    require_readable(read_header(file), file.name)
    open_bytes(image)


def read_all(image: bytes) -> None:
    source = open_bytes(image)
    assert sum(extent.length for extent in source.extents()) == source.size
    read_bytes(source, 0, source.size)


def list_snapshots(image: bytes) -> None:
    file = BytesSource(image)
    read_snapshots(file, read_header(file))


def open_snapshot(image: bytes) -> None:
    open_bytes(image, snapshot="1")


STAGES: dict[str, Callable[[bytes], None]] = {
    "open": open_header,
    "read": read_all,
    "snapshots": list_snapshots,
    "snapshot": open_snapshot,
}
BEFORE = {"open": (), "read": (open_header,), "snapshots": (read_all,), "snapshot": (read_all, list_snapshots)}


@pytest.mark.parametrize("lie", [*LIES, *SNAPSHOT_LIES], ids=lambda lie: lie.claim)
def test_a_lie_is_refused_with_its_sentence(lie: Lie) -> None:
    image = lie.image()
    for stage in BEFORE[lie.stage]:
        stage(image)
    with limits(), pytest.raises(DiskImageError) as caught:
        STAGES[lie.stage](image)
    text = str(caught.value)
    assert lie.says in text
    assert text.startswith("test.qcow2: ")
    assert_sentence(text)


@pytest.mark.parametrize("oddity", ODDITIES, ids=lambda oddity: oddity.claim)
def test_an_oddity_is_read_for_what_it_is(oddity: Oddity) -> None:
    image = oddity.image()
    assert len(image) <= (1 << 20) + (1 << 18)
    with limits():
        source = open_bytes(image)
        assert read_bytes(source, 0, min(source.size, len(oddity.reads))) == oddity.reads
        read_bytes(source, max(0, source.size - (1 << 20)), min(1 << 20, source.size))
        for extent in islice(source.extents(), 5000):
            assert extent.length > 0


def check(image: bytes) -> str:
    try:
        return "\n".join(check_qcow2(BytesSource(image)).details)
    except DiskImageError as error:
        return str(error)


def write(image: bytes) -> tuple[str, bytes]:
    """Write data over data, and some more; returns what was said against it, and the file as it is then."""
    with file_of(image) as fd:
        try:
            disk = open_qcow2_disk(LimitedStore(fd, "test.qcow2"))
            disk.write(0, b"new!" * 128)
            disk.write(5 * 512, b"more" * 128)
            disk.flush()
        except DiskImageError as error:
            return str(error), os.pread(fd, 1 << 20, 0)
        return "", os.pread(fd, 1 << 20, 0)


def test_the_image_that_is_falsified_is_in_order() -> None:
    image = bytes(InOrder().image)
    assert check(image) == ""
    complaint, changed = write(image)
    assert (complaint, check(changed)) == ("", "")
    assert changed != image


@pytest.mark.parametrize("lie", OVERLAP_LIES, ids=lambda lie: f"{lie.stage} {lie.claim}")
def test_what_lies_upon_each_other(lie: Lie) -> None:
    """The readable part is read; check reports the rest, and no table is written."""
    image = lie.image()
    with limits():
        outcome("read", image, 1)
        found = check(image)
        assert found
        complaint, changed = write(image)
    assert lie.says in (found if lie.stage == "check" else complaint)
    if lie.stage == "write":
        assert_sentence(complaint)
        assert changed == image


@pytest.mark.parametrize(
    "lie", [*LIES, *SNAPSHOT_LIES, *OVERLAP_LIES, *DESCRIPTION_LIES], ids=lambda lie: f"{lie.stage} {lie.claim}"
)
def test_everything_bears_every_lie(lie: Lie) -> None:
    image = lie.image()
    for target in TARGETS:
        with limits():
            outcome(target, image, 1)


@pytest.mark.parametrize("lie", [*HEADER_LIES, *TABLE_LIES, *COMPRESSED_LIES], ids=lambda lie: lie.claim)
def test_no_stream_is_believed_either(lie: Lie) -> None:
    assert outcome("stream", lie.image(), 1) == "refused"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    directory = tmp_path / "images"
    directory.mkdir()
    return directory


# A file that changes while it is read.


@pytest.mark.parametrize("left", [0, 100, 0x600, 0x800, 0x801])
def test_a_file_that_becomes_shorter(left: int, images: Path) -> None:
    path = images / IMAGE
    path.write_bytes(one_cluster(1 << 63 | 0x800, b"x" * 512))
    with open_image(path) as source:
        os.truncate(path, left)
        with pytest.raises(InvalidImageError) as caught:
            read_bytes(source, 0, 512)
    assert_sentence(str(caught.value))
    assert "changed while it was read" in str(caught.value)


def test_a_file_whose_tables_change(images: Path) -> None:
    path = images / IMAGE
    path.write_bytes(one_cluster(1 << 63 | 0x800, b"x" * 512))
    with open_image(path) as source:
        with path.open("r+b") as file:
            file.seek(0x600)
            file.write(b"\xff" * 512)
        with pytest.raises(InvalidImageError, match="L2 table 0, entry 0: "):
            read_bytes(source, 0, 512)


# The command says the same, as one line, and exits with status 1.


@pytest.mark.parametrize("lie", DESCRIPTION_LIES, ids=lambda lie: lie.claim)
def test_what_info_looks_at(lie: Lie, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "test.qcow2"
    path.write_bytes(lie.image())
    with limits():
        assert main(["info", "-f", "qcow2", str(path)]) == 1
    output, complaint = capfd.readouterr()
    assert output == ""
    assert lie.says in complaint
    assert complaint.startswith("pydiskimg: ")
    assert complaint.count("\n") == 1


@pytest.mark.parametrize("image", [with_bitmaps(1, 32, directory=bitmap(name=b"\x1b")), with_luks()])
def test_what_info_looks_at_in_order(image: bytes) -> None:
    assert outcome("info", image, 1) in ("data", "refused")
    with file_of(image) as fd:
        assert main(["info", "-f", "qcow2", f"/proc/self/fd/{fd}"]) == 0


READ_BY_CONVERT = [lie for lie in LIES if lie.stage == "open"] + [lie for lie in TABLE_LIES if lie.stage == "read"]


@pytest.mark.parametrize("lie", READ_BY_CONVERT, ids=lambda lie: lie.claim)
def test_the_command_refuses_too(lie: Lie, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "test.qcow2"
    path.write_bytes(lie.image())
    assert main(["convert", "-f", "qcow2", "-O", "raw", str(path), str(tmp_path / "raw")]) == 1
    output, complaint = capfd.readouterr()
    assert output == ""
    assert lie.says in complaint
    assert complaint.startswith("pydiskimg: ")
    assert complaint.count("\n") == 1
    assert os.listdir(tmp_path) == ["test.qcow2"]


def test_the_table_for_people_is_complete() -> None:
    assert table() == (ROOT / "docs" / "hostile-images.md").read_text().partition("<!-- table -->\n")[2]


# A file may be of any size and take no place: nothing may go through all of it.


class SparseSource(BytesSource):
    """A file whose bytes are followed by a hole."""

    def __init__(self, data: bytes, size: int) -> None:
        super().__init__(data)
        self.size = size

    def read_into(self, offset: int, buffer: WritableBuffer) -> None:
        check_range(self, offset, len(buffer))
        buffer[:] = self.data[offset : offset + len(buffer)].ljust(len(buffer), b"\0")


@pytest.mark.parametrize("size", [1 << 40, 1 << 62, (1 << 63) - 1])
def test_a_hole_of_any_size_behind_the_image(size: int) -> None:
    file = SparseSource(one_cluster(1 << 63 | 0x800, b"x" * 512), size)
    with limits():
        header = read_header(file)
        assert not has_unfilled_clusters(file, header, 4096)
        source = open_qcow2(file)
        assert read_bytes(source, 0, 512) == b"x" * 512
        assert [extent.length for extent in source.extents()] == [512]
        if size > 1 << 40:
            with pytest.raises(UnsupportedImageError, match="clusters, but at most 2147483647 are checked"):
                check_qcow2(file)
