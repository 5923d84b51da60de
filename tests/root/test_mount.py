# SPDX-License-Identifier: MIT
"""Mounts: private, durable, never lazy, and gone with the process however it ends."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from pydiskimg.errors import FileSystemError, InUseError, StorageError
from pydiskimg.files.mounted_tree import open_mounted_tree
from pydiskimg.host import mount
from pydiskimg.host.loop import LoopDevice, loop_device
from pydiskimg.host.mount import enter_private_namespace, mounted
from pydiskimg.linux import mounts, namespaces
from tests.fixtures.growing import state
from tests.fixtures.unmounting import unmount

pytestmark = pytest.mark.root
Tool = Callable[[str], str]
MIB = 1 << 20
SIZES = {"ext2": 10, "ext3": 20, "ext4": 20, "xfs": 320, "btrfs": 120, "vfat": 10}


def made(tool: Tool, path: Path, fs_type: str = "ext4", *options: str) -> Path:
    with path.open("wb") as file:
        file.truncate(SIZES[fs_type] * MIB)
    quiet = [] if fs_type == "vfat" else ["-q"]
    subprocess.run([tool(f"mkfs.{fs_type}"), *quiet, *options, path], check=True, capture_output=True)
    return path


def mount_and_leave(device: LoopDevice) -> None:
    with mounted(device.path, fs_type="ext4"):
        pass


@pytest.fixture
def image(tool: Tool, tmp_path: Path) -> Path:
    return made(tool, tmp_path / "image")


@pytest.fixture
def device(image: Path) -> Iterator[LoopDevice]:
    with loop_device(image) as attached:
        yield attached


def attached_files() -> str:
    found = []
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        with suppress(OSError):
            found.append(path.read_text())
    return "".join(found)


@pytest.mark.parametrize("fs_type", [name for name in SIZES if name != "vfat"])
def test_written_here_and_read_again(tool: Tool, tmp_path: Path, fs_type: str) -> None:
    path = made(tool, tmp_path / "image", fs_type)
    with loop_device(path) as device:
        with mounted(device.path, fs_type=fs_type) as target:
            Path(target, "file").write_bytes(b"written")
        with mounted(device.path, fs_type=fs_type, read_only=True) as target:
            assert Path(target, "file").read_bytes() == b"written"
            with pytest.raises(OSError, match="Read-only"):
                Path(target, "file").write_bytes(b"")


def test_vfat_where_the_kernel_has_it(tool: Tool, tmp_path: Path) -> None:
    path = made(tool, tmp_path / "image", "vfat")
    known = "\tvfat\n" in Path("/proc/filesystems").read_text()
    with loop_device(path) as device:
        outcome = "mounted"
        try:
            with mounted(device.path, fs_type="vfat") as target:
                assert os.stat(target).st_mode & 0o777 == 0o755
        except StorageError as error:
            outcome = str(error)
        # Mounting may load the module.
        assert outcome == "mounted" or (not known and "this kernel does not know that type" in outcome)


def test_nobody_else_sees_it(device: LoopDevice, tmp_path: Path) -> None:
    enter_private_namespace()
    before = namespaces.mount_namespace()
    enter_private_namespace()
    assert namespaces.mount_namespace() == before
    with mounted(device.path, fs_type="ext4") as target:
        assert device.path in Path("/proc/self/mountinfo").read_text()
        assert device.path not in Path("/proc/1/mountinfo").read_text()
        assert target not in Path("/proc/1/mountinfo").read_text()
    assert not os.path.exists(target)


def test_flags_and_options(device: LoopDevice, tmp_path: Path) -> None:
    def line() -> str:
        entries = Path("/proc/self/mountinfo").read_text().splitlines()
        return next(entry for entry in entries if f" {device.path} " in entry)

    with mounted(device.path, fs_type="ext4", target=str(tmp_path), options="nobarrier") as target:
        assert target == str(tmp_path)
        assert "nosuid,nodev,noexec" in line()
        assert "errors=remount-ro" in line()
        assert "nobarrier" in line()
    with mounted(device.path, fs_type="ext4", programs=True):
        assert {"nosuid", "nodev", "noexec"} & set(line().split()[5].split(",")) == {"nosuid", "nodev"}


def crashed(tool: Tool, path: Path, fs_type: str) -> Path:
    """An image as a guest leaves it that lost its power: its journal is to be replayed."""
    copy = path.with_name("crashed")
    with loop_device(path) as device, mounted(device.path, fs_type=fs_type) as target:
        Path(target, "file").write_bytes(b"written")
        fd = os.open(target, os.O_RDONLY)
        mounts.sync_file_system(fd)
        os.close(fd)
        os.fsync(device.fd)
        subprocess.run(["cp", "--sparse=always", path, copy], check=True)
    return copy


@pytest.mark.parametrize("fs_type", ["ext3", "ext4", "xfs", "btrfs"])
@pytest.mark.parametrize("device_too", [True, False])
def test_read_only_writes_nothing(tool: Tool, tmp_path: Path, fs_type: str, device_too: bool) -> None:
    path = crashed(tool, made(tool, tmp_path / "image", fs_type), fs_type)
    before = state(path)
    with ExitStack() as stack:
        device = stack.enter_context(loop_device(path, read_only=device_too))
        os.listdir(stack.enter_context(mounted(device.path, fs_type=fs_type, read_only=True)))
    assert state(path) == before


def test_two_guests_of_one_image(tool: Tool, tmp_path: Path) -> None:
    first = made(tool, tmp_path / "first", "xfs")
    second = tmp_path / "second"
    subprocess.run(["cp", "--sparse=always", first, second], check=True)
    with loop_device(first) as one, loop_device(second) as two:
        with mounted(one.path, fs_type="xfs") as here, mounted(two.path, fs_type="xfs") as there:
            Path(here, "name").write_bytes(b"first")
            Path(there, "name").write_bytes(b"second")
        with mounted(one.path, fs_type="xfs") as here:
            assert Path(here, "name").read_bytes() == b"first"


@pytest.mark.parametrize(
    ("fs_type", "text"),
    [
        ("xfs", "xfs file system cannot be mounted: the kernel finds no valid one there"),
        ("btrfs", "btrfs file system cannot be mounted"),
    ],
)
def test_wrong_type(device: LoopDevice, fs_type: str, text: str) -> None:
    with pytest.raises(StorageError, match=f"{device.path}: the {text}"), mounted(device.path, fs_type=fs_type):
        pass


@pytest.mark.parametrize("fs_type", ["auto", "", "LVM2_member", "swap", "proc", "overlay"])
def test_types_that_are_never_mounted(device: LoopDevice, fs_type: str) -> None:
    with pytest.raises(FileSystemError, match="expected one of ext2, ext3"), mounted(device.path, fs_type=fs_type):
        pass


def test_wrong_options_and_places(device: LoopDevice, image: Path, tmp_path: Path) -> None:
    for arguments, text in (
        ({"options": "no-such-option"}, "refuses the options '.*no-such-option'"),
        ({"target": str(tmp_path / "missing")}, "No such file"),
        ({"target": str(image)}, "Not a directory"),
    ):
        with pytest.raises(StorageError, match=text), mounted(device.path, fs_type="ext4", **arguments):  # type: ignore[arg-type]
            pass
    for path in (str(image), str(tmp_path / "missing")):
        with pytest.raises(StorageError, match=f"^{path}"), mounted(path, fs_type="ext4"):
            pass


def test_read_only_device(tool: Tool, image: Path) -> None:
    with loop_device(image, read_only=True) as device, pytest.raises(StorageError, match="the device is read-only"):
        mount_and_leave(device)


def test_damaged_file_system(tool: Tool, image: Path) -> None:
    with image.open("r+b") as file:
        file.seek(1024 + 32)
        file.write(b"\xff" * 8)
    with loop_device(image) as device, pytest.raises(StorageError, match="see dmesg"):
        mount_and_leave(device)


@pytest.mark.parametrize("fs_type", ["xfs", "btrfs"])
def test_damage_behind_the_superblock(tool: Tool, tmp_path: Path, fs_type: str) -> None:
    image = made(tool, tmp_path / "image", fs_type)
    with image.open("r+b") as file:
        for start, end in ((512, 64 << 10), (68 << 10, 64 * MIB), (65 * MIB, SIZES[fs_type] * MIB)):
            file.seek(start)
            file.write(bytes(end - start))
    expected = pytest.raises(StorageError, match=f"^disk 0: the {fs_type} file system cannot be mounted: .*damaged")
    with loop_device(image) as device, expected, mounted(device.path, fs_type=fs_type, name="disk 0"):
        pass


def test_busy_device(device: LoopDevice) -> None:
    held = os.open(device.path, os.O_RDWR | os.O_EXCL)
    try:
        with pytest.raises(InUseError, match="held by another process"), mounted(device.path, fs_type="ext4"):
            pass
    finally:
        os.close(held)


def test_who_keeps_it_busy_is_named(device: LoopDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mount, "_UNMOUNT_SECONDS", 0.2)
    with pytest.raises(InUseError) as caught, mounted(device.path, fs_type="ext4") as target:
        sleeper = subprocess.Popen(["sleep", "60"], cwd=target)
    try:
        assert caught.value.errno == errno.EBUSY
        assert f"{device.path}: cannot be unmounted" in str(caught.value)
        assert f"process {sleeper.pid} (sleep 60: working directory {target})" in str(caught.value)
    finally:
        sleeper.kill()
        sleeper.wait()
        for entry in reversed(mounts.mount_entries()):  # leaving has failed; take both down here
            if entry.mount_point == target or (entry.source == "pydiskimg" and target.startswith(entry.mount_point)):
                mounts.unmount(entry.mount_point)


def test_open_file_and_mount_below_are_named(device: LoopDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mount, "_UNMOUNT_SECONDS", 0.1)
    kept: list[int] = []

    def use(target: str) -> str:
        os.mkdir(f"{target}/proc")
        mounts.mount("proc", f"{target}/proc", "proc", 0)
        kept.append(os.open(f"{target}/file", os.O_RDWR | os.O_CREAT))
        return target

    with pytest.raises(InUseError) as caught, mounted(device.path, fs_type="ext4") as where:
        target = use(where)
    os.close(kept.pop())
    mounts.unmount(f"{target}/proc")
    mounts.unmount(target)
    mounts.unmount(os.path.dirname(target))
    assert f"a mount on {target}/proc" in str(caught.value)
    assert f"process {os.getpid()} (" in str(caught.value)


def test_short_use_is_waited_for(device: LoopDevice) -> None:
    with mounted(device.path, fs_type="ext4") as target:
        fd = os.open(target, os.O_RDONLY)
        timer = threading.Timer(0.3, os.close, (fd,))
        timer.start()
    timer.join()
    assert not os.path.exists(target)


def test_error_of_the_body_is_told_and_everything_goes(device: LoopDevice) -> None:
    with pytest.raises(FileNotFoundError), mounted(device.path, fs_type="ext4") as target:
        os.rmdir(f"{target}/missing")
    assert not os.path.exists(target)


def test_what_was_mounted_over_it_is_told(device: LoopDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mount, "_UNMOUNT_SECONDS", 0.1)
    expected = pytest.raises(StorageError, match="another file system was mounted over it")
    with expected, mounted(device.path, fs_type="ext4") as target:
        mounts.mount("over", target, "tmpfs", 0)
    for place in (target, target, os.path.dirname(target)):
        mounts.unmount(place)


def test_full_disk_below_is_an_error(tool: Tool, tmp_path: Path) -> None:
    """The file system has room, what lies below has none: it must not end as a success."""
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run([tool("mount"), "-t", "tmpfs", "-o", "size=8m", "none", small], check=True)
    try:
        image = made(tool, small / "image")
        with (
            pytest.raises(OSError, match=r"stable storage|read-only|Input/output"),
            loop_device(image) as device,
            mounted(device.path, fs_type="ext4") as target,
        ):
            Path(target, "file").write_bytes(os.urandom(12 * MIB))
    finally:
        unmount(small)


def test_no_place_left(monkeypatch: pytest.MonkeyPatch, device: LoopDevice, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(mount, "_DIRECTORIES", (str(tmp_path), str(tmp_path / "file"), "/proc"))
    with pytest.raises(StorageError, match="name a target"), mounted(device.path, fs_type="ext4"):
        pass


def test_one_place_is_enough_for_several(monkeypatch: pytest.MonkeyPatch, tool: Tool, tmp_path: Path) -> None:
    place, images = tmp_path / "place", [made(tool, tmp_path / name) for name in ("one", "other", "third")]
    place.mkdir()
    monkeypatch.setattr(mount, "_DIRECTORIES", (str(place),))
    with ExitStack() as stack:
        devices = [stack.enter_context(loop_device(image)).path for image in images]
        first, second = mounted(devices[0], fs_type="ext4"), mounted(devices[1], fs_type="ext4")
        Path(first.__enter__(), "file").write_text("one")
        Path(second.__enter__(), "file").write_text("other")
        first.__exit__(None, None, None)  # not the one that came last
        with mounted(devices[2], fs_type="ext4") as third:
            assert Path(third).parent == place
            assert not Path(third, "file").exists()
        assert [(Path(at, "file").exists()) for at in sorted(place.iterdir())] == [True]
        second.__exit__(None, None, None)
        assert list(place.iterdir()) == []
        assert not place.is_mount()
        with mounted(devices[1], fs_type="ext4") as again:
            assert Path(again, "file").read_text() == "other"


def test_only_the_main_thread_may_enter(tool: Tool) -> None:
    done = run_child("import threading\nt = threading.Thread(target=enter_private_namespace); t.start(); t.join()\n")
    assert "RuntimeError: enter_private_namespace() must be called in the main thread" in done.stderr


PRELUDE = "import os, sys\nfrom pydiskimg.host.loop import loop_device\nfrom pydiskimg.host.mount import *\n"


# -S: an editable installation may rebuild itself on import, which two children at once cannot do.
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": str(Path(__file__).resolve().parents[2])}


def run_child(script: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-S", "-c", PRELUDE + script, *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, check=False, text=True, cwd="/", env=ENVIRONMENT | environment, umask=0o077
    )


def test_without_the_privilege_there_is_a_sentence() -> None:
    script = (
        "os.setgid(65534); os.setuid(65534)\ntry: enter_private_namespace()\nexcept OSError as error: print(error)\n"
    )
    done = run_child(script)
    assert "cannot make a private mount namespace: Operation not permitted; mounting needs root" in done.stdout


@pytest.mark.parametrize("environment", [{"LC_ALL": "C"}, {"LC_ALL": "POSIX", "PYTHONUTF8": "0"}, {}])
def test_bare_environment(image: Path, environment: dict[str, str]) -> None:
    script = (
        "os.umask(0o077)\n"
        "with loop_device(sys.argv[1]) as d, mounted(d.path, fs_type='ext4') as t:\n"
        "    from pydiskimg.files.mounted_tree import open_mounted_tree\n"
        "    with open_mounted_tree(t) as tree: tree.write('/gr\\xfc\\xdfe', b'x'); print(ascii(tree.list('/')))\n"
    )
    done = run_child(script, image, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "gr\\xfc\\xdfe" in done.stdout
    with loop_device(image) as device, mounted(device.path, fs_type="ext4") as target:
        name = os.fsencode(target) + "/grüße".encode()
        assert os.stat(name).st_mode & 0o7777 == 0o644


BUSY = (
    "print('ready', flush=True)\n"
    "while True:\n"
    "    with loop_device(sys.argv[1]) as d, mounted(d.path, fs_type='ext4') as t:\n"
    "        with open(t + '/file', 'wb') as f: f.write(b'x' * 100000)\n"
)


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def test_killed_at_any_instant_leaves_nothing(image: Path, tool: Tool) -> None:
    places = {place: os.listdir(place) for place in mount._DIRECTORIES if os.path.isdir(place)}
    files = sorted(os.listdir(image.parent))
    rng = random.Random(0)
    for _ in range(15):
        # Two at once, on one image and on a copy of it.
        copy = image.with_name("copy")
        subprocess.run(["cp", "--sparse=always", image, copy], check=True)
        children = [
            subprocess.Popen(
                [sys.executable, "-S", "-c", PRELUDE + BUSY, path], stdout=subprocess.PIPE, env=ENVIRONMENT, umask=0o077
            )
            for path in (image, copy)
        ]
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == b"ready\n"
        time.sleep(rng.random() * 0.05)
        for child in children:
            assert child.poll() is None
            child.send_signal(signal.SIGKILL)
            child.communicate()
        assert wait_until(lambda: str(image.parent) not in attached_files())
        copy.unlink()
    assert str(image.parent) not in Path("/proc/1/mountinfo").read_text()
    assert sorted(os.listdir(image.parent)) == files
    assert {place: os.listdir(place) for place in places} == places
    with loop_device(image) as device, mounted(device.path, fs_type="ext4"):
        pass
    subprocess.run([tool("e2fsck"), "-fn", image], check=True, capture_output=True)


def test_tree_of_a_mounted_guest(image: Path) -> None:
    """Owner, mode, ACL, label and file capabilities survive; a FIFO and a device do no harm; /boot is reached."""
    acl = bytes.fromhex("02000000 01000600ffffffff 02000400e8030000 04000400ffffffff 10000400ffffffff 20000400ffffffff")
    with loop_device(image) as device, mounted(device.path, fs_type="ext4") as target:
        os.mkdir(f"{target}/etc")
        os.mkdir(f"{target}/boot")
        name = f"{target}/etc/file"
        Path(name).write_bytes(b"old")
        os.chown(name, 1000, 2000)
        os.chmod(name, 0o644)
        attributes = {
            "security.selinux": b"system_u:object_r:etc_t:s0\0",
            "system.posix_acl_access": acl,
            "user.note": b"kept",
            "security.capability": bytes.fromhex("0100000200040000000000000000000000000000"),
        }
        for attribute, value in attributes.items():
            os.setxattr(name, attribute, value)
        os.mknod(f"{target}/etc/device", 0o020600, os.makedev(1, 3))
        before = os.stat(name)
        mounts.mount("boot", f"{target}/boot", "tmpfs", 0, "size=1m")
        with open_mounted_tree(target) as tree:
            tree.replace("/etc/file", b"new")
            tree.write("/boot/grub", b"menu")
            assert tree.read("/boot/grub") == b"menu"
            assert "/boot/grub" not in [path for path, _ in tree.walk()]
            assert [path for path, _ in tree.walk("/boot")] == ["/boot/grub"]
            with pytest.raises(StorageError, match="it is not a regular file"):
                tree.read("/etc/device")
        mounts.unmount(f"{target}/boot")
        after = os.stat(name)
        assert Path(name).read_bytes() == b"new"
        assert (after.st_uid, after.st_gid, after.st_mode) == (1000, 2000, before.st_mode)
        assert {key: os.getxattr(name, key) for key in os.listxattr(name)} == attributes


def test_inherited_acl_is_not_kept(image: Path) -> None:
    default = bytes.fromhex(
        "02000000 01000700ffffffff 04000500ffffffff 02000600e8030000 10000700ffffffff 20000000ffffffff"
    )
    ordered = default[:4] + default[4:12] + default[20:28] + default[12:20] + default[28:]
    with loop_device(image) as device, mounted(device.path, fs_type="ext4") as target:
        Path(f"{target}/file").write_bytes(b"old")
        os.setxattr(target, "system.posix_acl_default", ordered)
        with open_mounted_tree(target) as tree:
            tree.replace("/file", b"new")
        assert os.listxattr(f"{target}/file") == []
