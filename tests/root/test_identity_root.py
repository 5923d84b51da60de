# SPDX-License-Identifier: MIT
"""A new identity on a file system: immutable files, SELinux labels as the kernel keeps them, and what is in no log."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ganeti_os.guest.access import give_access
from ganeti_os.guest.draft import Draft
from ganeti_os.guest.machine_ids import make_machine_ids
from ganeti_os.guest.ssh.host_keys import make_host_keys
from ganeti_os.guest.ssh.key_pairs import KeyMaker
from ganeti_os.settings import Layer, Settings
from pydiskimg.disk import open_disk
from pydiskimg.errors import StorageError
from pydiskimg.fs.ext4.make import make_ext
from pydiskimg.loop import loop_device
from pydiskimg.mount import mounted
from pydiskimg.tree import open_tree

pytestmark = pytest.mark.root
MIB = 1 << 20
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA== me@example.org"
FILES = "etc/selinux/targeted/contexts/files"


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A guest's root on an ext4 of its own."""
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(64 * MIB)
    with open_disk(image, writable=True) as disk:
        make_ext(disk, kind="ext4")
        disk.flush()
        with loop_device(disk.fd) as loop, mounted(loop.path, fs_type="ext4") as target:
            made = Path(target)
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
    with open_tree(root) as tree:
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


def test_new_files_have_the_labels_of_the_guests_policy(root: Path) -> None:
    (root / FILES).mkdir(parents=True)
    (root / "etc/selinux/config").write_text("SELINUX=enforcing\nSELINUXTYPE=targeted\n")
    (root / f"{FILES}/file_contexts").write_text(
        "/etc/.* system_u:object_r:etc_t:s0\n/etc/ssh/ssh_host_.*_key -- system_u:object_r:sshd_key_t:s0\n"
    )
    home = r"/root/\.ssh(/.*)? system_u:object_r:ssh_home_t:s0"
    (root / f"{FILES}/file_contexts.homedirs").write_text(f"{home}\n")
    os.setxattr(root / "etc/machine-id", "security.selinux", b"system_u:object_r:machineid_t:s0\0")
    become(root)
    labels = {
        "etc/ssh/ssh_host_ed25519_key": "sshd_key_t",
        "etc/ssh/ssh_host_ed25519_key.pub": "etc_t",
        "root/.ssh": "ssh_home_t",
        "root/.ssh/authorized_keys": "ssh_home_t",
        "etc/machine-id": "machineid_t",
    }
    for path, label in labels.items():
        found = os.getxattr(root / path, "security.selinux")
        assert found.endswith(f":object_r:{label}:s0\0".encode()), path
    with pytest.raises(OSError, match="No data available"):
        os.getxattr(root / "etc/shadow", "security.selinux")  # edited: it has what it had


def test_files_of_a_new_identity(root: Path) -> None:
    become(root)
    modes = {"etc/ssh/ssh_host_ed25519_key": 0o600, "root/.ssh": 0o700, "root/.ssh/authorized_keys": 0o600}
    for path, mode in modes.items():
        status = (root / path).stat()
        assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (mode, 0, 0)
    assert (root / "etc/machine-id").read_bytes() == b""
