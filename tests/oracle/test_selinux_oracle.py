# SPDX-License-Identifier: MIT
"""Labels from Debian's own policy, compared with libselinux's selabel_lookup(3)."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from pydiskimg.files.mounted_tree import open_mounted_tree
from pydiskimg.system.edits.path_pattern import Budget
from pydiskimg.system.edits.selinux import ATTRIBUTE, DIRECTORY, FILE, SYMLINK, Labels
from tests.fixtures.selinux_policy import Libselinux, file_contexts

pytestmark = pytest.mark.oracle
KINDS = {FILE: stat.S_IFREG, DIRECTORY: stat.S_IFDIR, SYMLINK: stat.S_IFLNK}
# What an instance gets, where a machine that runs tests has no such file.
NEW = (
    "/etc/ssh/ssh_host_rsa_key",
    "/etc/ssh/ssh_host_ed25519_key.pub",
    "/etc/hostname",
    "/etc/machine-id",
    "/root/.ssh",
    "/root/.ssh/authorized_keys",
    "/etc/systemd/system/getty.target.wants/serial-getty@ttyS0.service",
    "/etc/NetworkManager/system-connections/eth0.nmconnection",
    "/etc/netplan/50-instance.yaml",
    "/var/lib/cloud/seed/nocloud/meta-data",
    "/var/run/sshd.pid",
    "/boot/grub/grub.cfg",
    "/lib64/x",
)


@pytest.fixture(scope="module")
def contexts() -> Path:
    work = Path(__file__).resolve().parents[2] / ".demo"
    work.mkdir(exist_ok=True)
    return file_contexts(work)


def names() -> Iterator[str]:
    yield from NEW
    for top in ("/etc", "/usr/lib/systemd", "/var/lib", "/usr/sbin"):
        yield from islice((os.path.join(at, name) for at, _, files in os.walk(top) for name in files), 30)


def test_labels_are_those_of_libselinux(contexts: Path, tmp_path: Path) -> None:
    files = tmp_path / "etc/selinux/default/contexts/files"
    files.mkdir(parents=True)
    for file in contexts.parent.glob("file_contexts*"):
        shutil.copy(file, files)
    (tmp_path / "etc/selinux/config").write_text("SELINUX=enforcing\nSELINUXTYPE=default\n")
    library = Libselinux(contexts)
    found = set()
    with open_mounted_tree(tmp_path) as tree:
        labels = Labels(tree)
        labels._budget = Budget(1 << 40)
        for name in names():
            for kind, mode in KINDS.items():
                expected = library.label(name, mode)
                wanted = {} if expected is None else {ATTRIBUTE: expected.encode() + b"\0"}
                assert labels.attributes(name, kind) == wanted, (name, kind)
                found.add(expected)
    assert len(found) > 20
