# SPDX-License-Identifier: MIT
"""No file is made among devices, also where their file system is mounted a second time, as in a chroot."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pydiskimg.cli import main

pytestmark = pytest.mark.root


def test_the_devices_of_a_chroot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    devices = tmp_path / "dev"
    devices.mkdir()
    subprocess.run(["mount", "--bind", "/dev", devices], check=True)
    try:
        assert main(["create", str(devices / "pydiskimg-no-such-device"), "1M"]) == 1
        made = (devices / "pydiskimg-no-such-device").exists()
        (devices / "pydiskimg-no-such-device").unlink(missing_ok=True)
    finally:
        subprocess.run(["umount", devices], check=True)
    assert not made
    assert f"no file is made among the devices of {devices}; check the name" in capsys.readouterr().err
