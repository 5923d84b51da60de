# SPDX-License-Identifier: MIT
"""The administrator's customisation scripts: the only programs that are started, and only from here.

They run as root in the private mount namespace, so they are refused if users other than root can write to them.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

from ganeti_os.settings.root_owned import distrust
from ganeti_os.settings.table import SETTINGS
from pydiskimg.errors import DiskImageError, storage_error
from pydiskimg.linux.mount_users import Holder, holders
from pydiskimg.linux.processes import die_with
from pydiskimg.text import quoted

log = logging.getLogger(__name__)

_GUEST = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "guest")
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# The command by which a script reads and writes a guest's files; it runs with this process's interpreter.
GUEST_FILE = os.path.join(_GUEST, "guest-file")
# The command that runs one of create's own steps for a script.
GUEST_STEP = os.path.join(_GUEST, "guest-step")
GRACE_SECONDS = 5.0  # between SIGTERM and SIGKILL
HOLDER_SECONDS = 2.0  # a pipeline's last process may end a moment after the script

_RUN_PARTS_NAME = re.compile(r"[A-Za-z0-9_-]+")
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_STANDARD_ERROR = 2
# OS parameters that scripts do not get.
_SECRETS = frozenset(f"OSP_{setting.name}" for setting in SETTINGS if setting.secret)


class ScriptError(DiskImageError):
    """A customisation script must not run, failed, or left processes behind. script is its path."""

    def __init__(self, message: str, *, script: str) -> None:
        super().__init__(message)
        self.script = script


class ScriptHoldsError(ScriptError):
    """A script ended and left processes that use the guest's file system; they are not killed."""

    def __init__(self, message: str, *, script: str, found: Sequence[Holder]) -> None:
        super().__init__(message, script=script)
        self.holders = tuple(found)


class _Interrupted(BaseException):
    """A signal arrived while a script was running."""


def enabled(directory: str) -> list[str]:
    """Return the paths of the scripts that run-parts(8) would run, in C order; empty if the directory does not exist.

    All but executable files with a valid name are skipped. Raises ScriptError for a directory or script that is
    world-writable or belongs to another user, StorageError when the directory cannot be read.
    """
    try:
        names = sorted(os.listdir(directory), key=os.fsencode)
        status = os.stat(directory)
    except FileNotFoundError:
        log.debug("%s does not exist; no customisation scripts", directory)
        _note_predecessor(directory, "does not exist")
        return []
    except OSError as error:
        raise storage_error(error, directory, "cannot list the customisation scripts") from error
    scripts = [path for path in (os.path.join(directory, name) for name in names) if _is_script(path)]
    if scripts:
        _check_trusted(directory, status)
    else:
        _note_predecessor(directory, "has no executable script")
    for script in scripts:
        _check_trusted(script, os.stat(script))
    return scripts


def _note_predecessor(directory: str, what: str) -> None:
    """Warn of scripts in ganeti-instance-image's directory, besides our own default: an administrator enabled them.

    what says why none of the own scripts runs.
    """
    if os.path.basename(directory) != "instance-image.d":
        return
    theirs = os.path.join(directory.removesuffix(".d"), "hooks")
    try:
        scripts = [name for name in os.listdir(theirs) if not _reason_to_skip(os.path.join(theirs, name))]
    except OSError:
        return
    if scripts:
        log.warning(
            "%s %s, and the scripts in %s are not run (%s); move them, set CUSTOMIZE_DIR=%s, or make them not "
            "executable",
            *(directory, what, theirs, ", ".join(sorted(scripts)), theirs),
        )


def _is_script(path: str) -> bool:
    reason = _reason_to_skip(path)
    if reason:
        log.debug("%s is skipped: %s", path, reason)
    return not reason


def _reason_to_skip(path: str) -> str:
    if not _RUN_PARTS_NAME.fullmatch(os.path.basename(path)):
        return "the name has other characters than letters, digits, underscores and hyphens"
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        return f"it cannot be examined ({os.strerror(error.errno or 0)})"
    if not stat.S_ISREG(mode):
        return "it is not a regular file"
    return "" if mode & 0o111 else "it is not executable"


def _check_trusted(path: str, status: os.stat_result) -> None:
    problem = distrust(path, status, "would run as root")
    if problem:
        raise ScriptError(problem, script=path)


def script_environment(
    ganeti: Mapping[str, str],
    settings: Mapping[str, str],
    *,
    target: str,
    blockdev: str,
    root_dev: str,
    boot_dev: str | None,
) -> dict[str, str]:
    """Return the environment of a script: Ganeti's own variables, a PATH, settings, and the variables made for it.

    OS parameters that are secret are left out.
    settings are by name, from Settings.for_scripts(). target is where the guest's root is mounted; boot_dev is None if
    there is no separate /boot (BOOT_DEV is then empty).
    """
    made = {"TARGET": target, "BLOCKDEV": blockdev, "ROOT_DEV": root_dev, "BOOT_DEV": boot_dev or ""}
    made |= {"GUEST_FILE": GUEST_FILE, "GUEST_FILE_PYTHON": sys.executable, "GUEST_STEP": GUEST_STEP}
    known = {name: value for name, value in ganeti.items() if name not in _SECRETS}
    return {"PATH": DEFAULT_PATH} | known | dict(settings) | made


def run(scripts: Sequence[str], environment: Mapping[str, str], *, target: str) -> None:
    """Run the scripts one after the other, and check after each whether it left a process that uses target.

    Raises ScriptError for the first that cannot be started, fails or is ended by a signal, and ScriptHoldsError for
    processes left behind.
    """
    for script in scripts:
        log.info("running %s", script)
        started = time.monotonic()
        run_script(script, environment)
        log.debug("%s took %.1f s", script, time.monotonic() - started)
        check_holders(script, target)


def check_holders(script: str, target: str) -> None:
    """Raise ScriptHoldsError if processes use target, at the latest HOLDER_SECONDS after the script."""
    deadline = time.monotonic() + HOLDER_SECONDS
    while found := holders(target):
        if time.monotonic() >= deadline:
            names = ", ".join(map(str, found[:5]))
            raise ScriptHoldsError(
                f"{script}: ended, but left processes that use {target}: {names}; the script must end the processes "
                "that it starts",
                script=script,
                found=found,
            )
        time.sleep(0.05)


def run_script(script: str, environment: Mapping[str, str]) -> None:
    """Run one script to its end, its output on standard error. Raises ScriptError.

    While it runs, SIGTERM, SIGINT and SIGHUP first end its process group and then take effect here (main thread only).
    If this process is killed, the kernel kills the script.
    """
    with _deferred_signals() as signals:
        process = _start(script, environment)
        try:
            signals.raise_from_now_on()
            status = process.wait()
            signals.stop_raising()
        except BaseException as error:
            _end_group(process)
            if not isinstance(error, _Interrupted):
                raise
            status = process.poll() or -signal.SIGKILL
    if status:
        raise ScriptError(f"{script}: {_ending(status)}", script=script)


def _start(script: str, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    parent = os.getpid()

    try:
        return subprocess.Popen(  # noqa: S603 - the administrator's own script, checked by enabled()
            [script],
            stdin=subprocess.DEVNULL,
            stdout=_STANDARD_ERROR,
            stderr=_STANDARD_ERROR,
            cwd="/",
            env=dict(environment),
            umask=0o022,
            start_new_session=True,
            preexec_fn=lambda: die_with(parent),  # noqa: PLW1509 - one system call; no thread of ours holds a lock here
        )
    except OSError as error:
        raise ScriptError(f"{script}: cannot be started: {_why_not(script, error)}", script=script) from error


def _why_not(script: str, error: OSError) -> str:
    if error.errno == errno.ENOEXEC:
        return "it is not a program and has no #! line to name its interpreter"
    if error.errno in (errno.ENOENT, errno.EACCES, errno.ENOTDIR, errno.ELOOP):
        try:
            with open(script, "rb") as file:
                first = file.readline(256)
        except OSError:
            first = b""
        if first.startswith(b"#!"):
            interpreter = first[2:].rstrip(b"\n").lstrip(b" \t").split(b" ")[0]
            return f"its interpreter {quoted(interpreter)} (in its first line) gives: {os.strerror(error.errno)}"
    return os.strerror(error.errno or 0)


def _ending(status: int) -> str:
    if status > 0:
        return f"exited with status {status}"
    try:
        name = f" ({signal.Signals(-status).name})"
    except ValueError:  # a real-time signal
        name = ""
    return f"was killed by signal {-status}{name}"


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Terminate the script's process group, kill it after GRACE_SECONDS, and collect the script's status."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        try:
            process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            continue


class _Signals:
    """Records the signals that arrive; raises _Interrupted for them only between two calls."""

    def __init__(self) -> None:
        self.arrived: list[int] = []
        self._raising = False

    def handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the signature of a handler
        self.arrived.append(number)
        if self._raising:
            self._raising = False
            raise _Interrupted

    def raise_from_now_on(self) -> None:
        self._raising = True
        if self.arrived:
            self._raising = False
            raise _Interrupted

    def stop_raising(self) -> None:
        self._raising = False


@contextmanager
def _deferred_signals() -> Iterator[_Signals]:
    """Collect signals in the block and let them take their usual effect after it."""
    signals = _Signals()
    old = {}
    if threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                old[number] = signal.signal(number, signals.handle)
    try:
        yield signals
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
        for arrived in signals.arrived[:1]:
            signal.raise_signal(arrived)
