# SPDX-License-Identifier: MIT
"""A new identity on a file system: immutable files, SELinux labels as the kernel keeps them, and what is in no log."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ganeti_os.guest.access import give_access
from ganeti_os.guest.machine_ids import make_machine_ids
from ganeti_os.guest.ssh.host_keys import make_host_keys
from ganeti_os.guest.ssh.key_pairs import KeyMaker
from ganeti_os.install.overlay import copy_overlay
from ganeti_os.log import Messages
from ganeti_os.settings.settings import Layer, Settings
from pydiskimg.errors import StorageError
from pydiskimg.files.mounted_tree import open_mounted_tree
from pydiskimg.system import fstab
from pydiskimg.system.edits.draft import Draft
from tests.fixtures.block_devices import filled_file
from tests.fixtures.mounted_ext4 import mounted_ext4
from tests.fixtures.node import ROOT, Node, last_line

pytestmark = pytest.mark.root
MIB = 1 << 20
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA== me@example.org"
FILES = "etc/selinux/targeted/contexts/files"


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A guest's root on an ext4 of its own."""
    with mounted_ext4(tmp_path / "image") as made:
        for path, text in {
            "usr/sbin/sshd": "",
            "usr/lib/systemd/systemd": "",
            "etc/machine-id": "0123456789abcdef0123456789abcdef\n",
            "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
            "etc/shadow": "root:*:1:0:99999:7:::\n",
            "etc/ssh/ssh_host_ed25519_key": "old",
            "root/.bashrc": "",
        }.items():
            (made / path).parent.mkdir(parents=True, exist_ok=True)
            (made / path).write_text(text)
        yield made


def become(root: Path) -> None:
    settings = Settings.from_layers([Layer("test", {"ROOT_PASSWORD_HASH": "*", "AUTHORIZED_KEYS": KEY})])
    with open_mounted_tree(root) as tree:
        draft = Draft(tree)
        make_machine_ids(draft)
        make_host_keys(draft, "root@inst1", KeyMaker())
        give_access(draft, settings)
        draft.write(lambda _: 0)


@pytest.mark.parametrize("path", ["etc/machine-id", "etc/ssh/ssh_host_ed25519_key", "etc/shadow", "root"])
def test_an_immutable_file_is_named(root: Path, path: str) -> None:
    subprocess.run(["chattr", "+i", root / path], check=True)
    try:
        with pytest.raises(StorageError) as error:
            become(root)
    finally:
        subprocess.run(["chattr", "-i", root / path], check=True)
    assert re.match(rf"/{path}\S* in the guest's tree ", str(error.value))
    assert "Operation not permitted" in str(error.value)


@pytest.fixture
def enforcing(root: Path) -> Path:
    (root / FILES).mkdir(parents=True)
    (root / "etc/selinux/config").write_text("SELINUX=enforcing\nSELINUXTYPE=targeted\n")
    (root / f"{FILES}/file_contexts").write_text(
        "/etc(/.*)? system_u:object_r:etc_t:s0\n/etc/ssh/ssh_host_.*_key -- system_u:object_r:sshd_key_t:s0\n"
        "/etc/motd -l system_u:object_r:link_t:s0\n"
    )
    return root


def label(path: Path) -> str | None:
    try:
        found = os.getxattr(path, "security.selinux", follow_symlinks=False)
    except OSError:
        return None
    assert found.endswith(b":s0\0")
    return found.decode().split(":")[2]


def test_new_files_have_the_labels_of_the_guests_policy(enforcing: Path) -> None:
    root = enforcing
    home = r"/root/\.ssh(/.*)? system_u:object_r:ssh_home_t:s0"
    (root / f"{FILES}/file_contexts.homedirs").write_text(f"{home}\n")
    os.setxattr(root / "etc/machine-id", "security.selinux", b"system_u:object_r:machineid_t:s0\0")
    become(root)
    assert {
        "etc/ssh/ssh_host_ed25519_key": "sshd_key_t",
        "etc/ssh/ssh_host_ed25519_key.pub": "etc_t",
        "root/.ssh": "ssh_home_t",
        "root/.ssh/authorized_keys": "ssh_home_t",
        "etc/machine-id": "machineid_t",  # edited: it has what it had
        "etc/shadow": None,
    }.items() <= {str(path.relative_to(root)): label(path) for path in root.rglob("*")}.items()


def test_the_overlay_gets_labels_too(enforcing: Path, tmp_path: Path) -> None:
    os.setxattr(enforcing / "etc/ssh", "security.selinux", b"system_u:object_r:its_own_t:s0\0")
    overlay = tmp_path / "overlay"
    (overlay / "etc/ssh").mkdir(parents=True)
    (overlay / "etc/new").mkdir()
    (overlay / "etc/new/file").touch()
    (overlay / "etc/labelled").touch()
    os.setxattr(overlay / "etc/labelled", "security.selinux", b"system_u:object_r:chosen_t:s0\0")
    (overlay / "etc/ssh/ssh_host_rsa_key").touch()
    (overlay / "etc/motd").symlink_to("/run/motd")
    (overlay / "srv").mkdir()
    copy_overlay(str(overlay), str(enforcing), Messages(os_name="image", verb="create"))
    names = ("etc", "etc/ssh", "etc/new", "etc/new/file", "etc/labelled", "etc/ssh/ssh_host_rsa_key", "etc/motd", "srv")
    assert [label(enforcing / name) for name in names] == [
        *(None, "its_own_t", "etc_t", "etc_t", "chosen_t", "sshd_key_t", "link_t", None)
    ]


def test_what_scripts_write_and_a_new_fstab_get_labels_too(enforcing: Path) -> None:
    command = [sys.executable, "-m", "ganeti_os.guest.file_command", "write", "/etc/new"]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "TARGET": str(enforcing)}, input=b"text", check=True)
    with open_mounted_tree(enforcing) as tree:
        fstab.write_entries(tree, [])
    assert (label(enforcing / "etc/new"), label(enforcing / "etc/fstab")) == ("etc_t", "etc_t")


def test_files_of_a_new_identity(root: Path) -> None:
    become(root)
    modes = {"etc/ssh/ssh_host_ed25519_key": 0o600, "root/.ssh": 0o700, "root/.ssh/authorized_keys": 0o600}
    for path, mode in modes.items():
        status = (root / path).stat()
        assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (mode, 0, 0)
    assert (root / "etc/machine-id").read_bytes() == b""


def test_wrong_keys_are_refused_before_an_import_touches_the_disk(tmp_path: Path) -> None:
    node = Node.make(tmp_path / "node", AUTHORIZED_KEYS_FILE=f"{tmp_path}/none", IMPORT_IDENTITY="new")
    disk, backup = filled_file(tmp_path / "disk", MIB), filled_file(tmp_path / "backup", MIB)
    before = disk.read_bytes()
    done = node.restore(disk, backup)
    assert done.returncode == 1
    assert f"{tmp_path}/none: cannot read the authorised keys: No such file or directory" in last_line(done)
    assert disk.read_bytes() == before
