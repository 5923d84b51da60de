# SPDX-License-Identifier: MIT
"""How a command sets its interpreter."""

from __future__ import annotations

import subprocess
import sys


def test_only_a_command_changes_the_interpreter() -> None:
    code = (
        "import gc, sys\n"
        "had = gc.get_threshold(), sys.getswitchinterval()\n"
        "import pydiskimg.cli, ganeti_os.main\n"
        "from pydiskimg.linux.stdio import begin_process\n"
        "assert (gc.get_threshold(), sys.getswitchinterval()) == had\n"
        "begin_process()\n"
        "print(gc.get_threshold()[0] > had[0][0], sys.getswitchinterval() < had[1])\n"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "True True\n"
    )
