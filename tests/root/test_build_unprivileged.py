# SPDX-License-Identifier: MIT
"""build takes no privilege at all: it runs in an empty user namespace, without loop devices and without mount(2)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.checkout import ROOT
from tests.fixtures.programs import Tool, run
from tests.fixtures.small_system import system_tarball, system_tree
from tests.fixtures.unprivileged import unprivileged

pytestmark = pytest.mark.root


def test_nobody_builds_a_disk_with_owners_and_devices(tmp_path: Path, tool: Tool) -> None:
    tree = system_tree(tmp_path / "tree")
    (tree / "etc/shadow").write_text("secret")
    run(tool("chown"), "1:42", tree / "etc/shadow")
    run(tool("mknod"), tree / "null", "c", "1", "3")
    tarball, disk = system_tarball(tmp_path / "tarball", tree), tmp_path / "disk.qcow2"
    build = (sys.executable, "-m", "pydiskimg", "build", str(tarball), str(disk), "-O", "qcow2", "--size", "64M")
    check = 'test "$(id -u)" = 65534 && ! test -e /dev/loop-control && grep -q "^CapEff:.0*$" /proc/self/status && "$@"'
    script = (tool("sh"), "-euc", check, "sh", *build, "--boot", "8M", "--swap", "1M", "--hostname", "new")
    run(*unprivileged(tool, *script), cwd=ROOT)
    listing = run(sys.executable, "-m", "pydiskimg", "stat", "--partition", "3", disk, "/etc/shadow", "/null", cwd=ROOT)
    assert "42" in listing
    raw = tmp_path / "raw"
    run(tool("qemu-img"), "convert", "-O", "raw", disk, raw)
    root = tmp_path / "root"
    with raw.open("rb") as file:
        file.seek(10 << 20)
        root.write_bytes(file.read())
    run(tool("e2fsck"), "-fn", root)
    assert "Device major/minor number: 01:03" in run(tool("debugfs"), "-R", "stat /null", root)
    assert "User:     1   Group:    42" in run(tool("debugfs"), "-R", "stat /etc/shadow", root)


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path, tool: Tool) -> None:
    tree = system_tree(tmp_path / "tree")
    (tree / "etc/shadow").write_text("secret")
    (tree / "etc/shadow").chmod(0)
    build = (sys.executable, "-m", "pydiskimg", "build", str(tree), str(tmp_path / "disk"), "--size", "64M")
    done = subprocess.run(unprivileged(tool, *build), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"pydiskimg: {tree}/etc/shadow: cannot be read to be copied: Permission denied\n"
    assert not (tmp_path / "disk").exists()
