# SPDX-License-Identifier: MIT
"""Mounts in a private mount namespace, which the kernel removes with the process."""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

from pydiskimg.errors import DiskImageError, FileSystemError, InUseError, StorageError, storage_error
from pydiskimg.host.before_mount import require_mountable
from pydiskimg.host.mount_child import MountTimeoutError, mount_in_time
from pydiskimg.host.teardown import patience, teardown
from pydiskimg.linux import mounts, namespaces
from pydiskimg.linux.mount_users import holders
from pydiskimg.linux.procfs import require_proc

# Options that each type is always mounted with, and those added when nothing may be written. Read-only alone still
# replays a journal. noinit_itable: a fresh file system is not zeroed in the background while it is filled. nouuid: two
# guests made from one image have the same UUID. skip_balance: the kernel would resume a balance that the guest began,
# and nothing grows during one. umask: vfat would take the process's.
_OPTIONS = {
    "ext2": ("errors=remount-ro", ""),
    "ext3": ("errors=remount-ro", "noload"),
    "ext4": ("errors=remount-ro,noinit_itable", "noload"),
    "xfs": ("nouuid", "norecovery"),
    "btrfs": ("skip_balance", "rescue=nologreplay"),
    "vfat": ("umask=0022", ""),
}

# Directories that every system has and seldom uses; a private tmpfs hides one of them from this process only (ADR
# 0050).
_DIRECTORIES = ("/mnt", "/media", "/srv", "/opt", "/var/opt", "/var/local")
_TMPFS_OPTIONS = "mode=0755,size=64k,nr_inodes=64"

# udev and indexers close new mounts and devices again on their own; a process that a script left running does not.
_UNMOUNT_SECONDS = 10.0

_ours: set[str] = set()


def enter_private_namespace() -> None:
    """Give this process a private mount namespace, once; further calls do nothing.

    In Linux a mount namespace belongs to a thread and is inherited by the threads and processes that it starts. Call
    this in the main thread before other threads are started: existing threads stay in the system's namespace. Mounts
    made on the system appear here too, and can be unmounted there at any time; mounts made here never appear there (ADR
    0050). In a chroot whose "/" is not a mount point the process is outside of the chroot for an instant (ADR 0070).

    Raises StorageError without CAP_SYS_ADMIN, in a user namespace and where /proc is not mounted, RuntimeError in a
    thread other than the main one.
    """
    require_proc()
    if namespaces.mount_namespace() in _ours:
        return
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("enter_private_namespace() must be called in the main thread before others are started")
    if namespaces.in_user_namespace():
        text = "no disk can be mounted in a user namespace; mounting needs root (CAP_SYS_ADMIN)"
        raise StorageError(text, errno=errno.EPERM, filename=None)
    try:
        namespaces.unshare(namespaces.CLONE_NEWNS)
        _let_nothing_out()
    except OSError as error:
        text = f"cannot make a private mount namespace: {os.strerror(error.errno or 0)}"
        hint = "; mounting needs root (CAP_SYS_ADMIN)" if error.errno == errno.EPERM else ""
        raise StorageError(text + hint, errno=error.errno, filename=None) from error
    _ours.add(namespaces.mount_namespace())


def _let_nothing_out() -> None:
    """Make every mount of the private namespace a slave: mounts made here do not appear in the system's."""
    try:
        mounts.mount(None, "/", None, mounts.MS_REC | mounts.MS_SLAVE)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        with namespaces.at_root_of_namespace():  # "/" is not a mount point, and the mount that contains it is outside
            mounts.mount(None, "/", None, mounts.MS_REC | mounts.MS_SLAVE)


@dataclass(frozen=True, slots=True)
class _Mount:
    device: str
    fs_type: str
    target: str
    flags: int
    options: str
    name: str

    @property
    def read_only(self) -> bool:
        return bool(self.flags & mounts.MS_RDONLY)


@contextmanager
def mounted(
    device_path: str,
    *,
    fs_type: str,
    target: str | None = None,
    read_only: bool = False,
    programs: bool = False,
    options: str = "",
    name: str | None = None,
) -> Iterator[str]:
    """Mount the file system on a block device while the context lasts, and yield the mount point.

    fs_type is the type that probe() found: ext2, ext3, ext4, xfs, btrfs or vfat; the kernel never guesses. target is an
    existing directory; None gives a private one that leaves no trace. With read_only nothing is written to the device
    and no journal is replayed, so changes that were only in the journal when the guest stopped are missing. options are
    added to those that the type always gets. The mount is always nosuid and nodev, and noexec unless programs is set:
    scripts that enter the guest run its programs. name is the device's name in messages; None means its path, and the
    target if one was given.

    The mount exists in this process's private namespace only (enter_private_namespace() is called). Leaving the context
    writes everything to stable storage and unmounts completely, never lazily; an error of the body is never hidden.

    Raises FileSystemError for a type that is not mounted here, for a file system that require_mountable() refuses (the
    kernel would open another device, or wait), and when mounting takes longer than MOUNT_SECONDS; InUseError when the
    device is busy, or on leaving when a process still uses the mount (the message names it); StorageError for all other
    failures.
    """
    if name is None:
        name = f"{device_path} on {target}" if target is not None else device_path
    if fs_type not in _OPTIONS:
        known = ", ".join(_OPTIONS)
        raise FileSystemError(f"{name}: {fs_type!r} cannot be mounted; expected one of {known}")
    flags = mounts.MS_RDONLY if read_only else 0
    flags |= mounts.MS_NOSUID | mounts.MS_NODEV | (0 if programs else mounts.MS_NOEXEC)
    always, when_read_only = _OPTIONS[fs_type]
    given = ",".join(part for part in (always, when_read_only if read_only else "", options) if part)
    enter_private_namespace()
    with ExitStack() as stack:
        where = target if target is not None else stack.enter_context(_private_directory())
        yield stack.enter_context(_mounted(_Mount(device_path, fs_type, where, flags, given, name)))


@contextmanager
def _mounted(wanted: _Mount) -> Iterator[str]:
    device_fd = _open_device(wanted.device)
    with ExitStack() as stack:
        stack.callback(os.close, device_fd)
        require_mountable(device_fd, wanted.fs_type, read_only=wanted.read_only, name=wanted.name)
        _mount(wanted)
        patience.renew()
        mount_id = _uppermost(wanted.target)
        stack.enter_context(
            teardown(
                lambda: _unmount(wanted.target, mount_id, wanted.name),
                lambda: _sync(os.fsync, device_fd, wanted),  # umount2() reports no error of its last writes
            )
        )
        # Opened at the start, so that syncfs() reports every error since.
        root_fd = _open_root(wanted.target, wanted.name)
        stack.enter_context(
            teardown(
                lambda: _sync(mounts.sync_file_system, root_fd, wanted),
                lambda: _check_still_writable(root_fd, wanted),
                lambda: os.close(root_fd),
            )
        )
        yield wanted.target


def _mount(wanted: _Mount) -> None:
    try:
        with _undone_on_failure(wanted.target):
            mount_in_time(wanted.device, wanted.target, wanted.fs_type, wanted.flags, wanted.options)
    except OSError as error:
        raise _refused(error, wanted) from error
    except MountTimeoutError as error:
        ends = "it was stopped" if error.stopped else "it cannot be stopped, and holds the device until it ends"
        text = f"the kernel had not finished mounting it after {error.seconds:.0f} seconds"
        raise FileSystemError(f"{wanted.name}: the {wanted.fs_type} file system: {text}; {ends}") from error


@contextmanager
def _undone_on_failure(target: str) -> Iterator[None]:
    """Unmount the file system from target when the block raises: the mount may come before the child is stopped."""
    before = _uppermost(target)
    try:
        yield
    except BaseException:
        with suppress(OSError):  # the error of the block is the one to report
            if _uppermost(target) != before:
                mounts.unmount(target)
        raise


def _open_device(path: str) -> int:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise storage_error(error, path, "cannot be opened to be mounted") from error
    if not stat.S_ISBLK(os.fstat(fd).st_mode):
        os.close(fd)
        raise StorageError(f"{path}: only a block device can be mounted", errno=errno.ENOTBLK, filename=path)
    return fd


def _refused(error: OSError, wanted: _Mount) -> DiskImageError:
    number = error.errno
    start = f"{wanted.name}: the {wanted.fs_type} file system cannot be mounted"
    reasons = {
        errno.EINVAL: f"the kernel finds no valid one there, or refuses the options {wanted.options!r}; see dmesg",
        errno.EUCLEAN: "it is damaged; check it (fsck) and see dmesg",
        errno.EBADMSG: "it is damaged (a checksum is wrong); check it (fsck) and see dmesg",
        errno.EIO: "it cannot be read, or is damaged; check it (fsck) and see dmesg",
        errno.EROFS: "it must be written to first (its journal replayed), and the device is read-only",
        errno.EACCES: "the device is read-only",
        errno.ENODEV: "this kernel does not know that type; its module is missing",
        errno.EEXIST: "a file system with the same UUID is mounted from another device",
        errno.EPERM: "mounting needs root (CAP_SYS_ADMIN)",
        errno.EBUSY: "the device is mounted elsewhere or held by another process",
    }
    text = f"{start}: {reasons.get(number or 0, error.strerror)}"
    kind = InUseError if number == errno.EBUSY else StorageError
    return kind(text, errno=number, filename=wanted.device)


def _open_root(target: str, name: str) -> int:
    try:
        return os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise storage_error(error, name, "its root directory cannot be opened") from error


def _sync(sync: Callable[[int], object], fd: int, wanted: _Mount) -> None:
    if wanted.read_only:
        return
    try:
        sync(fd)
    except OSError as error:
        raise storage_error(error, wanted.name, "written data did not reach stable storage") from error


def _check_still_writable(root_fd: int, wanted: _Mount) -> None:
    if not wanted.read_only and os.fstatvfs(root_fd).f_flag & os.ST_RDONLY:
        text = "the kernel found errors in the file system and made it read-only; not all data was written; see dmesg"
        raise StorageError(f"{wanted.name}: {text}", errno=errno.EROFS, filename=wanted.device)


def _uppermost(target: str) -> int | None:
    """The id of the mount at target; None when target is not a mount point."""
    directory = os.path.realpath(target)
    return next((entry.mount_id for entry in reversed(mounts.mount_entries()) if entry.mount_point == directory), None)


def _unmount(target: str, mount_id: int | None, name: str) -> None:
    seconds = patience.seconds(_UNMOUNT_SECONDS)
    deadline = time.monotonic() + seconds
    pause = 0.001
    while True:
        if _uppermost(target) != mount_id:
            text = "another process unmounted it, or another file system was mounted over it and not unmounted"
            raise StorageError(f"{name}: {text}", errno=errno.EINVAL, filename=target)
        try:
            mounts.unmount(target)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise storage_error(error, name, "cannot be unmounted") from error
            if time.monotonic() > deadline:
                patience.lose()
                raise _still_used(target, name, seconds) from error
        else:
            return
        time.sleep(pause)
        pause = min(pause * 2, 0.1)


def _still_used(target: str, name: str, seconds: float) -> InUseError:
    directory = os.path.realpath(target)
    below = [entry.mount_point for entry in mounts.mount_entries() if entry.mount_point.startswith(directory + "/")]
    users = [f"a mount on {point}" for point in below]
    users += [str(holder) for holder in holders(directory, ourselves=True)]
    who = ", ".join(users[:10]) or "a user that /proc does not show"
    text = f"cannot be unmounted, still in use after {seconds:.0f} seconds by {who}"
    return InUseError(f"{name}: {text}", errno=errno.EBUSY, filename=target)


@contextmanager
def _private_directory() -> Iterator[str]:
    """Yield an empty directory that other processes do not see and that disappears with this one."""
    namespace = namespaces.mount_namespace()
    tmpfs = _private.get(namespace) or _cover(namespace)
    tmpfs.users += 1
    target = f"{tmpfs.directory}/target{tmpfs.directories or ''}"
    tmpfs.directories += 1
    with teardown(lambda: tmpfs.let_go(namespace, target)):
        os.mkdir(target)
        yield target


@dataclass(slots=True)
class _PrivateTmpfs:
    """A tmpfs that hides an empty directory from this process only; mounts that exist together share it."""

    directory: str
    mount_id: int | None
    users: int = 0
    directories: int = 0

    def let_go(self, namespace: str, target: str) -> None:
        with suppress(OSError):  # a process keeps writing there; its files are lost with the tmpfs
            os.rmdir(target)
        self.users -= 1
        if not self.users:
            del _private[namespace]
            _unmount(self.directory, self.mount_id, f"the private tmpfs on {self.directory}")


# One for each mount namespace.
_private: dict[str, _PrivateTmpfs] = {}


def _cover(namespace: str) -> _PrivateTmpfs:
    directory = next(filter(_is_free, _DIRECTORIES), None)
    if directory is None:
        text = (
            f"no directory to mount on: none of {', '.join(_DIRECTORIES)} is an empty directory that is not a mount "
            "point"
        )
        raise StorageError(f"{text}; empty one of them or name a target", errno=errno.ENOENT, filename=_DIRECTORIES[0])
    try:
        mounts.mount(
            "pydiskimg", directory, "tmpfs", mounts.MS_NOSUID | mounts.MS_NODEV | mounts.MS_NOEXEC, _TMPFS_OPTIONS
        )
    except OSError as error:
        raise storage_error(error, directory, "cannot mount a private tmpfs there") from error
    tmpfs = _private[namespace] = _PrivateTmpfs(directory, _uppermost(directory))
    return tmpfs


def _is_free(directory: str) -> bool:
    try:
        return (
            stat.S_ISDIR(os.lstat(directory).st_mode) and not os.path.ismount(directory) and not os.listdir(directory)
        )
    except OSError:
        return False
