# SPDX-License-Identifier: MIT
"""fstab: what is read, what is kept, what is written."""

from __future__ import annotations

from pathlib import Path

from pydiskimg.files.mounted_tree import open_mounted_tree
from pydiskimg.system import fstab

OLD = """\
# a comment
UUID=aaaa / ext3 defaults 0 1
/dev/sda2 none swap sw 0 0
LABEL=data /data xfs defaults 0 2
  # another comment
tmpfs\t/tmp  tmpfs nosuid,size=1G
server:/export /home nfs ro 0 0
/swapfile none swap sw 0 0
short line
"""


def test_lines_are_read() -> None:
    entries = list(fstab.parse(OLD))
    assert [entry.mount_point for entry in entries] == ["/", "none", "/data", "/tmp", "/home", "none"]
    assert entries[0] == fstab.FstabLine("UUID=aaaa", "/", "ext3", "defaults", 0, 1)
    assert entries[3].options == "nosuid,size=1G"


def test_devices_of_the_old_system_go_and_the_rest_stays(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/fstab").write_text(OLD)
    with open_mounted_tree(tmp_path) as tree:
        fstab.write_entries(tree, [fstab.FstabLine("UUID=new", "/", "ext4", "errors=remount-ro", 0, 1)])
        entries = fstab.read_entries(tree)
    assert [(entry.spec, entry.mount_point) for entry in entries] == [
        ("UUID=new", "/"),
        ("tmpfs", "/tmp"),
        ("server:/export", "/home"),
    ]


def test_a_system_without_fstab_gets_one(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    with open_mounted_tree(tmp_path) as tree:
        assert fstab.read_entries(tree) == []
        fstab.write_entries(tree, [fstab.FstabLine("UUID=new", "none", "swap", "sw")])
    lines = (tmp_path / "etc/fstab").read_text().splitlines()
    assert lines[-1] == "UUID=new none swap sw 0 0"


def test_bytes_that_are_not_text_survive(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/fstab").write_bytes(b"tmpfs /caf\xe9 tmpfs defaults 0 0\n")
    with open_mounted_tree(tmp_path) as tree:
        fstab.write_entries(tree, [])
    assert b"/caf\xe9" in (tmp_path / "etc/fstab").read_bytes()
