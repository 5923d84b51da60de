# SPDX-License-Identifier: MIT
"""What keeps a mounted file system busy, seen on real mounts; scripts of other users."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from ganeti_os.install.scripts import ScriptError, enabled
from pydiskimg.linux.mount_users import holders

pytestmark = pytest.mark.root
T = TypeVar("T")


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs, with another one and a bind mount of /dev below it."""
    target = tmp_path / "with blank"
    target.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", target], check=True)
    try:
        for name in ("boot", "dev"):
            (target / name).mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", target / "boot"], check=True)
        subprocess.run(["mount", "--bind", "/dev", target / "dev"], check=True)
        yield target
    finally:
        subprocess.run(["umount", "-R", target], check=True)


@pytest.fixture
def start() -> Iterator[Callable[[str, Path], int]]:
    started: list[subprocess.Popen[bytes]] = []

    def run(command: str, cwd: Path) -> int:
        started.append(subprocess.Popen(["/bin/sh", "-c", command], cwd=cwd, start_new_session=True))
        return started[-1].pid

    yield run
    for process in started:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for(look: Callable[[], T], expected: object) -> T:
    """Look until what is expected is seen, for a minute at most, and return what was seen last."""
    end = time.monotonic() + 60
    while (seen := look()) != expected and time.monotonic() < end:
        time.sleep(0.02)
    return seen


@pytest.mark.parametrize(
    ("command", "use"),
    [
        ("cd '{0}'; exec sleep 60", "working directory {0}"),
        ("cd '{0}/boot'; exec sleep 60", "working directory {0}/boot"),
        ("exec 3>'{0}/x'; rm '{0}/x'; exec sleep 60", "open file {0}/x (deleted)"),
        ("exec 3<'{0}/dev/null'; exec sleep 60", "open file {0}/dev/null"),
        ("cp /bin/sleep '{0}/nap'; exec '{0}/nap' 60", "program {0}/nap"),
        ("exec unshare -m sh -c 'sleep 60; :'", "mount namespace of its own with {0}"),
    ],
)
def test_uses(mounted: Path, start: Callable[[str, Path], int], command: str, use: str) -> None:
    pid = start(command.format(mounted), Path("/"))
    expected = use.format(mounted)
    assert wait_for(lambda: {holder.pid: holder.use for holder in holders(str(mounted))}.get(pid), expected) == expected


def test_mapped_files(mounted: Path, start: Callable[[str, Path], int]) -> None:
    (mounted / "data").write_bytes(bytes(8192))
    program = (
        f"import mmap,time; f=open({str(mounted / 'data')!r},'rb'); m=mmap.mmap(f.fileno(),0,prot=mmap.PROT_READ)\n"
        "import os; f.close(); os.closerange(3, 20); time.sleep(60)"
    )
    (mounted / "program.py").write_text(program)
    pid = start(f"exec python3 '{mounted}/program.py'", Path("/"))
    expected = {pid: f"mapped file {mounted}/data"}
    assert wait_for(lambda: {holder.pid: holder.use for holder in holders(str(mounted))}, expected) == expected


def test_nobody_and_those_of_dev_itself(mounted: Path, start: Callable[[str, Path], int]) -> None:
    pid = start("exec 3</dev/null; exec sleep 60", Path("/"))
    assert wait_for(Path(f"/proc/{pid}/comm").read_text, "sleep\n") == "sleep\n"
    assert holders(str(mounted)) == []


def test_scripts_of_others_are_refused(tmp_path: Path) -> None:
    directory = tmp_path / "scripts"
    directory.mkdir()
    path = directory / "a"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    os.chown(path, 12345, 0)
    with pytest.raises(ScriptError, match="/a: belongs to user 12345"):
        enabled(str(directory))
    os.chown(path, 0, 0)
    os.chown(directory, 12345, 0)
    with pytest.raises(ScriptError, match="scripts: belongs to user 12345"):
        enabled(str(directory))
