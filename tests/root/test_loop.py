# SPDX-License-Identifier: MIT
"""Loop devices: what they show, what they refuse, and that nothing of them is left."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from pydiskimg.errors import InUseError, StorageError
from pydiskimg.host import loop
from pydiskimg.host.loop import LoopDevice, loop_device
from pydiskimg.linux import blockdev, loopctl
from tests.fixtures.reachable import reachable_by_all
from tests.fixtures.unmounting import unmount

pytestmark = pytest.mark.root
MIB = 1 << 20


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """8 MiB; each MiB is filled with its number."""
    path = tmp_path / "image"
    path.write_bytes(b"".join(bytes([number]) * MIB for number in range(8)))
    return path


def attached() -> list[str]:
    """The files behind loop devices; other programs have theirs."""
    found = []
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        with suppress(OSError):
            found.append(path.read_text())
    return found


def write(device: LoopDevice, offset: int, data: bytes) -> None:
    fd = os.open(device.path, os.O_WRONLY)
    try:
        assert os.pwrite(fd, data, offset) == len(data)
    finally:
        os.close(fd)


@pytest.mark.parametrize("sector_size", [512, 4096])
def test_shows_the_range_and_writes_into_it(image: Path, sector_size: int) -> None:
    with loop_device(image, offset=2 * MIB, length=3 * MIB, sector_size=sector_size) as device:
        assert device.size == blockdev.device_size(device.fd) == 3 * MIB
        assert blockdev.logical_sector_size(device.fd) == sector_size
        assert os.pread(device.fd, 2, MIB - 1) == b"\2\3"
        status = loopctl.get_status(device.fd)
        assert (status.offset, status.size_limit) == (2 * MIB, 3 * MIB)
        assert status.flags & loopctl.LO_FLAGS_AUTOCLEAR
        write(device, MIB, b"written")
    assert image.read_bytes()[3 * MIB : 3 * MIB + 8] == b"written\3"
    assert image.stat().st_size == 8 * MIB


def test_read_only(image: Path) -> None:
    with loop_device(image, read_only=True) as device:
        assert loopctl.get_status(device.fd).flags & loopctl.LO_FLAGS_READ_ONLY
        with pytest.raises(PermissionError):
            write(device, 0, b"x")


def test_over_a_descriptor_which_stays_open(image: Path) -> None:
    fd = os.open(image, os.O_RDWR)
    try:
        with loop_device(fd, offset=MIB) as device:
            assert device.size == 7 * MIB
        assert os.pread(fd, 1, 0) == b"\0"
    finally:
        os.close(fd)


def test_descriptor_that_cannot_be_written_is_refused(image: Path) -> None:
    fd = os.open(image, os.O_RDONLY)
    try:
        with pytest.raises(StorageError, match="became read-only"), loop_device(fd):
            pass
        with loop_device(fd, read_only=True):
            pass
    finally:
        os.close(fd)


@pytest.mark.parametrize("by_path", [True, False])
def test_part_of_a_block_device_that_is_held_exclusively(image: Path, by_path: bool) -> None:
    with loop_device(image) as whole:
        exclusive = os.open(whole.path, os.O_RDWR | os.O_EXCL)
        try:
            with loop_device(whole.path if by_path else exclusive, offset=5 * MIB, length=MIB) as part:
                assert os.pread(part.fd, 1, 0) == b"\5"
                write(part, 0, b"part")
                with pytest.raises(OSError, match="busy"):
                    os.open(whole.path, os.O_RDWR | os.O_EXCL)
            assert os.pread(exclusive, 4, 5 * MIB) == b"part"
        finally:
            os.close(exclusive)
    assert image.read_bytes()[5 * MIB : 5 * MIB + 4] == b"part"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"offset": 8 * MIB}, "bytes 8388608 to 8388608; the file or device has 8388608 bytes"),
        ({"offset": 9 * MIB}, "has 8388608 bytes"),
        ({"length": 9 * MIB}, "bytes 0 to 9437184"),
        ({"length": 0}, "bytes 0 to 0"),
        ({"length": 700}, "700 bytes at offset 0; both must be multiples of the sector size, 512"),
        ({"offset": 512, "sector_size": 4096}, "multiples of the sector size, 4096"),
        ({"sector_size": MIB}, "the kernel refused"),
    ],
)
def test_impossible_ranges(image: Path, arguments: dict[str, int], text: str) -> None:
    with pytest.raises(StorageError, match=text) as caught, loop_device(image, **arguments):  # type: ignore[arg-type]
        pass
    assert str(caught.value).startswith(f"{image}: ")


def test_negative_numbers_are_the_callers_fault(image: Path) -> None:
    for arguments in ({"offset": -512}, {"length": -512}):
        with pytest.raises(ValueError, match="negative"), loop_device(image, **arguments):  # type: ignore[arg-type]
            pass


def test_what_is_no_disk(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo", tmp_path / "missing", Path("/dev/null")):
        with pytest.raises(StorageError, match=str(path)), loop_device(path):
            pass


def test_many_at_once(image: Path) -> None:
    failures: list[BaseException] = []

    def use(number: int) -> None:
        try:
            for _ in range(10):
                with loop_device(image, offset=number * MIB, length=MIB) as device:
                    assert os.pread(device.fd, 4, 0) == bytes([number]) * 4
        except BaseException as error:  # noqa: BLE001  # told in the main thread
            failures.append(error)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_others_take_the_device_first(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = loopctl.get_free
    with loop_device(image) as taken:
        answers = [int(taken.path.removeprefix("/dev/loop"))] * 3
        monkeypatch.setattr(loopctl, "get_free", lambda fd: answers.pop() if answers else real(fd))
        with loop_device(image) as device:
            assert device.path != taken.path
            assert not answers
        monkeypatch.setattr(loop, "_ATTACH_SECONDS", 0.05)
        monkeypatch.setattr(loopctl, "get_free", lambda fd: int(taken.path.removeprefix("/dev/loop")))
        with pytest.raises(InUseError, match="no loop device was free"), loop_device(image):
            pass


def test_missing_nodes_have_sentences(image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(loopctl, "get_free", lambda fd: 999_999)
        with (
            pytest.raises(StorageError, match=r"offers /dev/loop999999 but that node does not exist"),
            loop_device(image),
        ):
            pass
    monkeypatch.setattr(loop, "CONTROL", str(tmp_path / "loop-control"))
    with pytest.raises(StorageError, match="is the kernel's module 'loop' loaded"), loop_device(image):
        pass


def test_holder_is_waited_for(image: Path) -> None:
    with loop_device(image) as device:
        other = os.open(device.path, os.O_RDONLY)
        timer = threading.Timer(0.3, os.close, (other,))
        timer.start()
    timer.join()
    assert str(image) not in "".join(attached())


def test_holder_that_stays_is_an_error(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "_DETACH_SECONDS", 0.1)
    others: list[int] = []

    def hold_and_fail(device: LoopDevice) -> None:
        others.append(os.open(device.path, os.O_RDONLY))
        os.stat("/missing")

    try:
        with pytest.raises(InUseError, match=f"over {image}: is still in use") as caught, loop_device(image) as device:
            others.append(os.open(device.path, os.O_RDONLY))
        assert caught.value.errno == errno.EBUSY
        # The error of the body comes first.
        with pytest.raises(FileNotFoundError), loop_device(image) as device:
            hold_and_fail(device)
    finally:
        for fd in others:
            os.close(fd)


def test_failed_sync_is_told_and_everything_is_let_go(
    image: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(StorageError, match=r"/dev/loop\d+: cannot bring what was written"), loop_device(image):
            pass
        assert "cannot bring what was written" in caplog.text  # the second one, on the file itself


def test_full_disk_below_is_an_error(tmp_path: Path, tool: Callable[[str], str]) -> None:
    """Writes fill the page cache first; their failure is reported by fsync."""
    full = tmp_path / "full"
    full.mkdir()
    subprocess.run([tool("mount"), "-t", "tmpfs", "-o", "size=1m", "none", full], check=True)
    try:
        with (full / "image").open("wb") as file:
            file.truncate(8 * MIB)
        expected = pytest.raises(StorageError, match="stable storage: Input/output error")
        with expected, loop_device(full / "image") as device:
            write(device, 0, b"x" * 4 * MIB)
    finally:
        unmount(full)


def test_ordinary_users_get_a_sentence(image: Path) -> None:
    """In a child: it becomes nobody."""
    image.chmod(0o666)
    reachable_by_all(image)
    script = (
        "import os, sys; from pydiskimg.host.loop import loop_device\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "try:\n"
        "    with loop_device(sys.argv[1]): pass\n"
        "except OSError as error: print(error)\n"
    )
    environment = {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    done = subprocess.run(
        [sys.executable, "-S", "-c", script, image], env=environment, capture_output=True, check=True, text=True
    )
    assert done.stdout == f"{image}: making a loop device over it needs root\n"
