# SPDX-License-Identifier: MIT
"""Keys whose generation starts early: a process that ends before they are made ends as it would without them."""

from __future__ import annotations

import subprocess
import sys

import pytest

ENDING = """
import sys, time
from ganeti_os.guest.ssh.key_pairs import KeyMaker
maker = KeyMaker()
maker.start()
time.sleep({seconds})
sys.exit(1)
"""


@pytest.mark.parametrize("seconds", [0, 0.02, 0.05, 0.1])
def test_a_process_that_fails_meanwhile_is_not_aborted(seconds: float) -> None:
    done = subprocess.run([sys.executable, "-c", ENDING.format(seconds=seconds)], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (1, b"")
