# SPDX-License-Identifier: MIT
"""The child that calls mount(2): after a signal it does not continue with its parent's work, and no child remains."""

from __future__ import annotations

import subprocess
import sys

FORKING = """
import ctypes, functools, os, resource, signal, sys, time
from pydiskimg.host import mount_child as mounting

def raise_it(*_):
    raise KeyboardInterrupt

signal.signal(signal.SIGTERM, raise_it)
parent = os.getpid()
"""
# libc's raise(3): os.kill() would run the handler at once, in the hook, where what it raises is lost.
SIGNALLED = """
os.register_at_fork(after_in_child=functools.partial(ctypes.CDLL(None)["raise"], int(signal.SIGTERM)))
try:
    mounting.mount_in_time("/none", "/none", "ext4", 0, "")
except FileNotFoundError as error:
    print(error)
finally:
    os.write(1, b"the parent\\n" if os.getpid() == parent else b"the child\\n")
"""
WITHOUT_DESCRIPTORS = """
os.register_at_fork(after_in_child=functools.partial(time.sleep, 100))
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
try:
    mounting.mount_in_time("/none", "/none", "ext4", 0, "")
except OSError as error:
    print(error)
print(os.waitstatus_to_exitcode(os.wait()[1]))
"""
FAILING = """
try:
    mounting.mount_in_time("\\ud800", "/none", "ext4", 0, "")
except OSError as error:
    print(error)
"""


def said_by(script: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-u", "-c", FORKING + script], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_a_signal_that_comes_just_after_the_fork() -> None:
    assert said_by(SIGNALLED) == ["[Errno 2] No such file or directory", "the parent"]


def test_a_child_that_cannot_be_watched_is_killed() -> None:
    assert said_by(WITHOUT_DESCRIPTORS) == ["[Errno 24] Too many open files", "-9"]


def test_a_child_that_fails_by_itself() -> None:
    assert said_by(FAILING) == ["[Errno 0] the process that was to mount it failed"]
