# SPDX-License-Identifier: MIT
"""update-grub inside a system that was built: this machine's own GRUB, in a root with that system's /etc and /boot."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from pydiskimg.files.mounted_tree import open_mounted_tree
from pydiskimg.system.boot.config import configure_boot
from pydiskimg.system.boot.volumes import BootVolumes
from tests.conftest import need

pytestmark = [pytest.mark.root, pytest.mark.timeout(1800)]
UUID = "c0ffee00-2222-4333-8444-0123456789ab"
VERSION = "6.1.0-28-amd64"

# The mounts are gone with the shell, and the loop device with them. 10_linux writes nothing for a root on a loop device
# whose file is not a device; a losetup of the root's own says that it is. A name of udev's lets it take the UUID.
_SCRIPT = r"""
loop=$(losetup --show -f "$1")
mount "$loop" "$2" || { losetup -d "$loop"; exit 1; }
losetup -d "$loop"
cd "$2"
for name in usr bin sbin lib lib64; do
  if [ -L /$name ]; then
    cp -a /$name $name
  elif [ -d /$name ]; then
    mkdir -p $name
    mount --rbind -o ro /$name $name
  fi
done
mkdir -p dev proc sys tmp var own
mount -t tmpfs tmpfs dev
cp -a "$loop" dev/
mknod dev/null c 1 3
mkdir -p dev/disk/by-uuid
ln -s "../../${loop##*/}" dev/disk/by-uuid/$3
mount -t proc proc proc
printf '#!/bin/sh\necho "$1: []: ($1)"\n' >own/losetup
chmod +x own/losetup
env -i PATH=/own:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 chroot . grub-mkconfig -o /boot/grub/grub.cfg
cat boot/grub/grub.cfg >"$4"
"""


@pytest.mark.parametrize("has_settings", [True, False])
def test_a_config_of_update_grub_has_the_arguments_and_the_root(tmp_path: Path, has_settings: bool) -> None:
    for program in ("grub-mkconfig", "grub-script-check", "mke2fs", "unshare"):
        need(shutil.which(program) is not None, f"{program} is missing")
    tree = tmp_path / "tree"
    (tree / "boot/grub").mkdir(parents=True)
    shutil.copytree("/etc/grub.d", tree / "etc/grub.d")
    (tree / "etc/debian_version").write_text("12.8\n")
    (tree / "boot" / f"vmlinuz-{VERSION}").write_text("a kernel")
    (tree / "boot" / f"initrd.img-{VERSION}").write_text("an initial RAM disk")
    if has_settings:
        (tree / "etc/default").mkdir()
        (tree / "etc/default/grub").write_text('GRUB_CMDLINE_LINUX_DEFAULT="quiet"\nGRUB_CMDLINE_LINUX=""\n')
    else:  # the package grub-pc, which makes them, is not installed
        (tree / "usr/sbin").mkdir(parents=True)
        (tree / "usr/sbin/grub-mkconfig").touch()
    with open_mounted_tree(tree) as guest:
        assert configure_boot(
            guest, BootVolumes(root_uuid=UUID), kernel_args='net.ifnames=0 a="x y" b=$(id)', serial_console=True
        )
    shutil.rmtree(tree / "usr", ignore_errors=True)
    ours = _starts((tree / "boot/grub/grub.cfg").read_text())
    written = tmp_path / "grub.cfg"
    _update_grub(tmp_path, tree, written)
    theirs = _starts(written.read_text())
    assert subprocess.run(["grub-script-check", written], check=False).returncode == 0
    assert sorted(theirs[0][0]) == sorted(ours[0][0])
    assert theirs[0][1] == ours[0][1]
    assert f"root=UUID={UUID}" in theirs[0][0]
    assert "'b=$(id)'" in theirs[0][0]
    assert "terminal_output console serial" in written.read_text()
    with open_mounted_tree(tree) as guest:  # and what it wrote is understood, too
        (tree / "boot/grub/grub.cfg").write_text(re.sub("(?m)^.*loop0.*$", "", written.read_text()))
        configure_boot(
            guest, BootVolumes(root_uuid="1111-2222", boot_uuid="3333-4444"), kernel_args="", serial_console=False
        )
    updated = (tree / "boot/grub/grub.cfg").read_text()
    assert not updated.startswith("# Written")
    assert updated.count("--set=root 3333-4444") == written.read_text().count(f"--set=root {UUID}") > 0
    assert f"/vmlinuz-{VERSION} root=UUID=1111-2222 ro" in updated


def _update_grub(work: Path, tree: Path, written: Path) -> None:
    disk, mounted = work / "disk", work / "mounted"
    mounted.mkdir()
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-U", UUID, "-d", tree, disk, "32M"], check=True)
    command: list[str | Path] = [
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-euc",
        _SCRIPT,
        "sh",
        disk,
        mounted,
        UUID,
        written,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _starts(config: str) -> list[tuple[list[str], list[str]]]:
    """Return the words after linux and after initrd, of each entry."""
    linux = re.findall(r"^\s*linux\s+(.*)$", config, re.MULTILINE)
    initrd = re.findall(r"^\s*initrd\s+(.*)$", config, re.MULTILINE)
    return [(one.split(), other.split()) for one, other in zip(linux, initrd, strict=True)]
