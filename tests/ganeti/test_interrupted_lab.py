# SPDX-License-Identifier: MIT
"""The lab itself leaves nothing when the tests are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import need
from tests.fixtures.ganeti_lab import ROOT

pytestmark = pytest.mark.ganeti

PROGRAM = """
import sys, time
from pathlib import Path
from tests.fixtures.ganeti_lab import namespaces
with namespaces(Path(sys.argv[1])) as lab:
    provider = "/srv/ganeti/extstorage/loopfile"
    volume = "export VOL_NAME=volume VOL_SIZE=8"
    lab.succeed("sh", "-c", f"{volume}; {provider}/create && {provider}/attach && mount -t tmpfs none /srv")
    print(lab.init, flush=True)
    time.sleep(300)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_nothing_is_left_of_a_lab_whose_tests_are_ended(tmp_path: Path, number: int) -> None:
    need(os.geteuid() == 0, "needs root")
    state = tmp_path / "lab"
    state.mkdir()
    keys = Path("/root/.ssh")
    before = sorted(keys.iterdir()) if keys.exists() else []
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, state], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as tests:
        assert tests.stdout is not None
        init = int(tests.stdout.readline())
        volume = (state / "srv/volumes/volume").stat()
        assert _over(volume.st_ino)
        tests.send_signal(number)
    for _ in range(100):
        if not Path(f"/proc/{init}").exists() and not _over(volume.st_ino):
            break
        time.sleep(0.05)
    assert not Path(f"/proc/{init}").exists()
    assert not _over(volume.st_ino)
    assert str(state) not in Path("/proc/self/mountinfo").read_text()
    assert (sorted(keys.iterdir()) if keys.exists() else []) == before


def _over(inode: int) -> list[str]:
    """The loop devices over the volume."""
    listed = subprocess.run(
        ["losetup", "--list", "--noheadings", "--output", "NAME,BACK-INO,BACK-FILE"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    lines = (line.split() for line in listed.splitlines())
    return [fields[0] for fields in lines if fields[1] == str(inode) and fields[2].endswith("/volume")]
