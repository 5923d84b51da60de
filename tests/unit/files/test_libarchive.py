# SPDX-License-Identifier: MIT
"""How libarchive is reached."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CODE = """
import ctypes.util, os, sys
search = ctypes.util.find_library
started = []
sys.addaudithook(lambda event, _: started.append(event) if event in {"subprocess.Popen", "os.posix_spawn", "os.fork"}
    or event.startswith("os.exec") else None)
before = dict(os.environ)
from pydiskimg.files.tar import libarchive
assert libarchive.inflate_any
print(started, ctypes.util.find_library is search, dict(os.environ) == before)
"""


def test_no_program_looks_for_the_library_and_the_environment_is_as_before() -> None:
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run([sys.executable, "-c", CODE], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "[] True True\n"
