# SPDX-License-Identifier: MIT
"""GRUB's own grub-script-check judges every grub.cfg that is written or changed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pydiskimg.files.mounted_tree import open_mounted_tree
from pydiskimg.system.boot.config import add_kernel_arguments, configure_boot
from pydiskimg.system.boot.volumes import BootVolumes
from pydiskimg.system.edits.draft import Draft
from tests.conftest import need
from tests.fixtures.boot_layouts import LAYOUTS, NEW_BOOT, NEW_ROOT, Layout

pytestmark = pytest.mark.oracle
# Words that are commands to a shell, or end a word of GRUB's.
ARGUMENTS = 'quiet a="b c" d=\'e f=$(id) g=`id` ; } { # \\ h=\\" i=" $j ${k} &| <x>'


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_grub_reads_every_config(tmp_path: Path, layout: Layout) -> None:
    need(shutil.which("grub-script-check") is not None, "grub-script-check is missing")
    for name, text in layout.files.items():
        path = Path(f"{tmp_path}{name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    config = tmp_path / f"boot/{layout.home}/grub.cfg"
    with open_mounted_tree(tmp_path) as tree:
        if config.exists():
            draft = Draft(tree)
            add_kernel_arguments(draft, kernel_args=ARGUMENTS, serial_console=True)
            draft.write(len)
            _check(config)
        configure_boot(
            tree, BootVolumes(root_uuid=NEW_ROOT, boot_uuid=NEW_BOOT), kernel_args=ARGUMENTS, serial_console=True
        )
    _check(config)
    _check_settings(tmp_path)


def _check(config: Path) -> None:
    done = subprocess.run(["grub-script-check", config], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), config.read_text()


def _check_settings(root: Path) -> None:
    """A shell reads the settings of update-grub, and nothing in them is a command."""
    script = "lsb_release() { :; }; sed() { :; }; id() { echo ran; }; "
    script += "".join(f". {path}; " for path in sorted((root / "etc/default").rglob("*")) if path.is_file())
    done = subprocess.run(
        ["sh", "-ec", script + 'printf %s "$GRUB_CMDLINE_LINUX"'], capture_output=True, text=True, check=False
    )
    if (root / "etc/default").exists():
        assert (done.returncode, done.stderr) == (0, "")
        assert "'f=$(id)' 'g=`id`'" in done.stdout
        assert "ran" not in done.stdout
