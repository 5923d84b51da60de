# SPDX-License-Identifier: MIT
"""A test that does not end, or that ends its process, is reported by name as failed, and the others continue."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import tomllib
from collections import Counter
from pathlib import Path

from tests.fixtures.chroots import ROOT
from tests.fuzz.hanging import Watch, processor_seconds

TESTS = """
import os, signal, threading

def test_that_hangs():
    threading.Event().wait()

def test_that_hangs_in_c():
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
    threading.Event().wait()

def test_that_kills_its_process():
    os.kill(os.getpid(), signal.SIGKILL)

def test_that_passes():
    pass
"""


def test_a_test_with_a_longer_limit_has_it() -> None:
    """The process of a test is ended later than the test."""
    options = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    marks = [
        int(seconds)
        for path in (ROOT / "tests").rglob("test_*.py")
        for seconds in re.findall(r"pytest\.mark\.timeout\((\d+)\)", path.read_text())
    ]
    assert max(options["timeout"], *marks) < options["faulthandler_timeout"]


def test_hangs_and_crashes_have_names(tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(TESTS)
    options = ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path), "-p", "no:cacheprovider"]
    options += ["-p", "tests.conftest", "-n", "2", "--dist=loadfile"]
    limits = ["--timeout=1", "-o", "faulthandler_timeout=4"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment["PYTHONPATH"] = str(ROOT)
    command = [sys.executable, "-m", "pytest", *options, *limits, str(tmp_path / "test_some.py")]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert "FAILED test_some.py::test_that_hangs - Failed: Timeout" in done.stdout, done.stdout
    for name in ("test_that_hangs_in_c", "test_that_kills_its_process"):
        assert f"crashed while running 'test_some.py::{name}'" in done.stdout, done.stdout
    assert "3 failed, 1 passed in" in done.stdout, done.stdout
    assert done.returncode == 1


def test_a_process_of_the_fuzzer_that_gets_little_of_the_processor_does_not_hang() -> None:
    watch = Watch()
    assert not any(watch.hangs("1", seconds / 20, seconds) for seconds in range(0, 590, 2))
    assert not any(watch.hangs("2", 30 + seconds / 20, 590 + seconds) for seconds in range(0, 590, 2))
    assert watch.hangs("2", 61, 1200)


def test_a_process_of_the_fuzzer_that_waits_for_ever_hangs() -> None:
    watch = Watch()
    assert not watch.hangs("1", 5, 100)
    assert not watch.hangs("1", 5, 350)
    assert watch.hangs("1", 5, 401)


def test_the_processor_time_of_a_process() -> None:
    before, start = processor_seconds(os.getpid()), time.process_time()
    while time.process_time() - start < 0.05:
        pass
    assert processor_seconds(os.getpid()) > before


def test_files_of_tests_have_names_of_their_own() -> None:
    """Pytest imports a test file by its name alone, and stops at the second one of a name."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, number in names.items() if number > 1] == []
