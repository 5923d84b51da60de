# SPDX-License-Identifier: MIT
"""Guards and the leak check: a test that needs a privilege tries it; in CI a skip is a failure. Tests run side by side
in several workers, whose mounts are apart (ADR 0071).
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from pydiskimg.errors import StorageError
from pydiskimg.host.mount import enter_private_namespace
from tests.fixtures.checkout import ROOT
from tests.fixtures.debian_system import DebianSystem, debian_system

if TYPE_CHECKING:
    from tests.fixtures.image_server import ImageServer

# An example may take any time on a slow machine; Hypothesis itself omits the deadline only in CI.
settings.register_profile("without deadlines", parent=settings(), deadline=None)
# Failing examples are kept in the checkout, which may be another user's.
settings.register_profile("without a database", parent=settings.get_profile("without deadlines"), database=None)
settings.load_profile("without deadlines" if os.access(ROOT, os.W_OK) else "without a database")

# A background job of a script's ignores SIGINT, one of nohup's SIGHUP, and commands inherit that: the tests have to
# interrupt them. What has a handler here is the default again in a command; we ourselves survive SIGHUP as before.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Let --dist=loadfile know that there is only one Ganeti lab."""
    if config.getoption("dist") != "loadfile":
        return None
    from tests.fixtures.side_by_side import ByFile

    return ByFile(config, log)


@pytest.fixture(scope="session", autouse=True)
def _own_mounts() -> None:
    """Where mounts are not shared, a verb that another worker starts would copy ours and keep them busy."""
    if os.geteuid() == 0:
        with suppress(StorageError):  # root without privileges; the tests that need them say so
            enter_private_namespace()


def others_directories(own: Path) -> tuple[str, ...]:
    """Where other test runs, and other workers of this one, have their files; own is this worker's directory."""
    beside = (f"{own.parent}/",) if "PYTEST_XDIST_WORKER" in os.environ else ()
    return ("/tmp/", "/dev/shm/", *beside)


def loop_devices() -> set[str]:
    """Attached loop devices with their backing files; without those over instances' disks, of a node or of a lab."""
    found = set()
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            file = path.read_text().strip()
        except OSError:  # detached between the glob and the read
            continue
        if not file.startswith("/srv/ganeti/"):
            found.add(f"{path.parts[3]} {file}")
    return found


def mounts() -> set[str]:
    """Device, root, mount point and type of each mount; the ids before them change with the namespace."""
    lines = (line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return {" ".join([*fields[2:5], fields[fields.index("-") + 1]]) for fields in lines}


def descriptors() -> set[str]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{name} {os.readlink(f'/proc/self/fd/{name}')}")
        except OSError:
            continue
    return found


def need(condition: bool, reason: str) -> None:
    """Skip on a developer's machine, fail in CI, where everything a test needs is installed."""
    if condition:
        return
    if os.environ.get("CI"):
        pytest.fail(f"skipped in CI: {reason}")
    pytest.skip(reason)


def left_attached(before: set[str], own: Path) -> set[str]:
    """Loop devices that came since; the kernel detaches one a moment after its last user has gone.

    Those over files in temporary directories other than own are somebody else's.
    """
    others = others_directories(own)
    for _ in range(60):
        left = {
            item
            for item in loop_devices() - before
            if str(own) in item or not item.partition(" ")[2].startswith(others)
        }
        if not left:
            break
        time.sleep(0.05)
    return left


def left_mounted(before: set[str], own: Path) -> set[str]:
    """Mounts that came since, but those in other test runs' temporary directories than own."""
    return {
        item for item in mounts() - before if str(own) in item or not item.split(" ")[2].startswith("/tmp/pytest-of-")
    }


@pytest.fixture(autouse=True)
def _guard_and_leak_check(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    if not request.node.get_closest_marker("root"):
        yield
        return
    need(os.geteuid() == 0 and os.access("/dev/loop-control", os.R_OK | os.W_OK), "needs root and loop devices")
    before = loop_devices(), mounts(), descriptors()
    yield
    own = tmp_path_factory.getbasetemp()
    assert not left_attached(before[0], own), "loop devices left attached"
    assert not left_mounted(before[1], own), "mounts left behind"
    assert {item for item in descriptors() - before[2] if "/proc" not in item} == set(), "descriptors left open"


@pytest.fixture(scope="session")
def tool() -> object:
    """Return a function that finds a program of the system and skips (fails in CI) when it is missing."""

    def find(name: str) -> str:
        path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
        need(path is not None, f"{name} is not installed")
        assert path is not None
        return path

    return find


@pytest.fixture(scope="session")
def debian() -> DebianSystem:
    """The small Debian system that the demo uses too, made once and kept in .demo/."""
    work = Path(__file__).resolve().parent.parent / ".demo"
    work.mkdir(exist_ok=True)
    return debian_system(work)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ImageServer]:
    """A web server for images; failed requests are repeated without a pause, and no proxy is used."""
    from tests.fixtures.fetching import at_once
    from tests.fixtures.image_server import image_server

    at_once(monkeypatch)
    with image_server() as found:
        yield found
