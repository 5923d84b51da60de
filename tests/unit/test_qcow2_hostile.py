# SPDX-License-Identifier: MIT
"""Images that lie: each is refused with its one sentence, soon, in little memory, and nothing else is opened."""

from __future__ import annotations

import ctypes
import os
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import islice
from pathlib import Path

import pytest

from pydiskimg.cli import main
from pydiskimg.errors import DiskImageError, InvalidImageError, UnsupportedImageError
from pydiskimg.extents import Kind
from pydiskimg.formats.qcow2.check import check_qcow2
from pydiskimg.formats.qcow2.disk import open_qcow2_disk
from pydiskimg.formats.qcow2.header import read_header
from pydiskimg.formats.qcow2.preallocation import has_unfilled_clusters
from pydiskimg.formats.qcow2.readable import require_readable
from pydiskimg.formats.qcow2.reader import Qcow2Source, open_qcow2
from pydiskimg.formats.qcow2.snapshots import read_snapshots
from pydiskimg.image import open_image
from pydiskimg.protocols import WritableBuffer, check_range, read_bytes
from pydiskimg.references import allow_references
from tests.fixtures.hostile_descriptions import DESCRIPTION_LIES, bitmap, with_bitmaps, with_luks
from tests.fixtures.hostile_images import COMPRESSED_LIES, HEADER_LIES, LIES, TABLE_LIES, Lie, one_cluster
from tests.fixtures.hostile_overlaps import OVERLAP_LIES, InOrder
from tests.fixtures.hostile_references import ALLOWED, DENIED, IMAGE, SECRET, SIZE, NamingLie, naming
from tests.fixtures.hostile_snapshots import SNAPSHOT_LIES
from tests.fixtures.hostile_table import table
from tests.fixtures.odd_images import ODDITIES, Oddity
from tests.fixtures.qcow2_images import BytesSource
from tests.fuzz.targets import TARGETS, LimitedStore, file_of, outcome

SECONDS = 2.0
MEMORY = 64 << 20
ROOT = Path(__file__).resolve().parent.parent.parent


def assert_sentence(text: str) -> None:
    """One line that can be printed, begins with the image's name and is not long."""
    assert text.isprintable()
    assert len(text) < 500
    assert ": " in text


@contextmanager
def limits() -> Iterator[None]:
    """Hold what is done inside to the limits on time and on memory, that of C libraries included; proc(5)."""
    Path("/proc/self/clear_refs").write_text("5")
    before, start = peak_memory(), time.process_time()
    yield
    assert time.process_time() - start < SECONDS
    assert peak_memory() - before < MEMORY


def peak_memory() -> int:
    """The largest resident size of this process in bytes, since it was reset."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


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
    """It is read for what is there; check tells of it, and no table is written to."""
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


# What is opened: an audit hook sees every open() of Python's own, and inotify whatever else touches the secret.

_opened: list[str] | None = None


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if _opened is not None and (
        event == "open" or event.startswith(("socket.", "subprocess.", "os.exec", "os.system"))
    ):
        _opened.append(f"{arguments[0]!s}" if event == "open" else event)


sys.addaudithook(_audit)


@contextmanager
def record_opened() -> Iterator[list[str]]:
    """Give the list of the files that are opened inside, modules of Python apart, and of what else reaches out."""
    global _opened  # noqa: PLW0603 - an audit hook cannot be taken back
    found: list[str] = []
    _opened = found
    try:
        yield found
    finally:
        _opened = None
        found[:] = [name for name in found if not name.endswith((".py", ".pyc", ".so"))]


_IN_ACCESS, _IN_OPEN, _EVENT = 0x1, 0x20, struct.Struct("iIII")


@contextmanager
def watch(path: Path) -> Iterator[Callable[[], bool]]:
    """Give a function that tells whether the file was opened or read since; inotify(7)."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    assert fd >= 0, os.strerror(ctypes.get_errno())
    assert libc.inotify_add_watch(fd, os.fsencode(path), _IN_ACCESS | _IN_OPEN) >= 0

    def touched() -> bool:
        try:
            return len(os.read(fd, 4096)) >= _EVENT.size
        except BlockingIOError:
            return False

    try:
        yield touched
    finally:
        os.close(fd)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    (tmp_path / SECRET).write_bytes(b"s" * SIZE)
    directory = tmp_path / "images"
    directory.mkdir()
    return directory


@pytest.mark.parametrize(
    "lie", [*DENIED, *ALLOWED], ids=lambda lie: f"{'allowed' if lie.allowed else 'denied'} {lie.claim}"
)
def test_what_an_image_may_not_name_is_not_opened(lie: NamingLie, images: Path) -> None:
    lie.make(images)
    policy = allow_references(images) if lie.allowed else nullcontext()
    with policy as references, watch(images.parent / SECRET) as touched, limits(), record_opened() as opened:
        with pytest.raises(DiskImageError) as caught:
            open_image(images / IMAGE, references=references).close()
        assert not touched()
    text = str(caught.value)
    assert lie.says.replace("{dir}", str(images)) in text
    assert_sentence(text.replace(str(images), ""))
    below = [name for name in opened if lie.allowed and name.startswith("/proc/self/fd/")]
    assert [name for name in opened if name not in below] == [str(images / IMAGE)]
    assert len(below) <= 32


def test_the_watch_sees_what_is_opened(images: Path) -> None:
    secret = images.parent / SECRET
    with watch(secret) as touched, record_opened() as opened:
        assert not touched()
        secret.read_bytes()
        assert touched()
    assert opened == [str(secret)]


@pytest.mark.parametrize("lie", DENIED, ids=lambda lie: lie.claim)
def test_nobody_is_allowed_by_being_in_the_same_directory(lie: NamingLie, images: Path) -> None:
    """Whatever names lie around, without a policy the outcome is the same."""
    for name in ("base", "nbd:unix:", "secret"):
        (images / name).write_bytes(bytes(SIZE))
    lie.make(images)
    with record_opened() as opened, pytest.raises(DiskImageError):
        open_image(images / IMAGE)
    assert opened == [str(images / IMAGE)]


def test_a_chain_of_32_is_read(images: Path) -> None:
    for number in range(32):
        name = str(number) if number else IMAGE
        (images / name).write_bytes(naming(backing=b"%d" % (number + 1), backing_format=b"qcow2"))
    (images / "32").write_bytes(one_cluster(1 << 63 | 0x800, b"end".ljust(512)))
    with allow_references(images) as references, open_image(images / IMAGE, references=references) as source:
        assert read_bytes(source, 0, 3) == b"end"
        assert [extent.kind for extent in source.extents()] == [Kind.DATA]


# Polyglots: what a guest writes to its disk is never taken for an image by anybody who says raw.


def test_a_raw_disk_that_begins_like_qcow2_is_raw(images: Path) -> None:
    disk = images / "disk"
    disk.write_bytes(naming(backing=b"../secret"))
    content = disk.read_bytes()
    with record_opened() as opened, open_image(disk, format="raw") as source:
        assert read_bytes(source, 0, source.size) == content
    assert opened == [str(disk)]


def test_a_raw_backing_file_that_begins_like_qcow2_is_raw(images: Path) -> None:
    guest = naming(backing=b"../secret")
    (images / "base").write_bytes(guest)
    (images / IMAGE).write_bytes(naming(backing=b"base", backing_format=b"raw"))
    with allow_references(images) as references, open_image(images / IMAGE, references=references) as source:
        assert read_bytes(source, 0, SIZE) == guest[:SIZE]


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
            with pytest.raises(UnsupportedImageError, match="clusters, and at most 2147483647 are checked"):
                check_qcow2(file)
