# SPDX-License-Identifier: MIT
"""Boot menus that are written or changed, as GRUB's own parser reads them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import need
from tests.unit.test_guest_boot import DEBIAN_MENU, KERNELS, RHEL_8_MENU, configured, tree_of

pytestmark = pytest.mark.oracle


@pytest.mark.parametrize("menu", ["", DEBIAN_MENU, RHEL_8_MENU])
@pytest.mark.parametrize("system", ["debian", "red hat", "arch", "genkernel", "no initrd"])
@pytest.mark.parametrize("separate", [True, False])
def test_grub_can_read_the_menu(tmp_path: Path, menu: str, system: str, separate: bool) -> None:
    need(shutil.which("grub-script-check") is not None, "grub-script-check is not installed")
    files = {f"boot/{name}": "" for name in KERNELS[system][0]}
    files["etc/os-release"] = "PRETTY_NAME=\"It's $HOME's (own) \\`system\\`\"\n"
    tree_of(tmp_path, {**files, **({"boot/grub/grub.cfg": menu} if menu else {})})
    configured(tmp_path, "quiet a=b,c init=/bin/sh", serial=True, separate=separate)
    path = tmp_path / "boot/grub/grub.cfg"
    done = subprocess.run(["grub-script-check", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + path.read_text()
