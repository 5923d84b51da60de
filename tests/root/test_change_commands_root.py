# SPDX-License-Identifier: MIT
"""copy-in and tar-in beside cp -a and GNU tar on a mounted copy, as the kernel shows both; what is mounted is kept."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pydiskimg.cli import main
from pydiskimg.units import MIB
from tests.archive_trees import differences, odd_tree, sparse_tree
from tests.fixtures.ext_files import made_ext
from tests.fixtures.growing import loop, mounted_at
from tests.fixtures.programs import Tool, run

pytestmark = pytest.mark.root

SIZE = 96 * MIB


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Everything odd, with devices, owners, ACLs and capabilities."""
    top = tmp_path_factory.mktemp("odd") / "tree"
    odd_tree(top)
    sparse_tree(top / "sparse")
    (top / "sparse" / "beyond-8-gib").unlink()
    os.mknod(top / "character-device", 0o020620, os.makedev(4, 64))
    os.mknod(top / "block-device", 0o060660, os.makedev(259, 70000))
    (top / "owned").write_bytes(b"owned")
    os.chown(top / "owned", 4_000_000_000, 70_000)
    os.setxattr(top / "owned", "user.note", b"n" * 200)
    os.setxattr(top / "owned", "security.capability", bytes.fromhex("0100000202000000000000000000000000000000"))
    acl = bytes.fromhex("02000000 01000600ffffffff 0200040031d40000 04000400ffffffff 10000400ffffffff 20000000ffffffff")
    os.setxattr(top / "text", "system.posix_acl_access", acl)
    os.setxattr(top / "set-group", "system.posix_acl_default", acl)
    yield top
    shutil.rmtree(top)


@contextmanager
def shown(path: Path) -> Iterator[Path]:
    with loop(path, 0, SIZE) as device, mounted_at(device, path.with_name(f"{path.name}.d")) as point:
        yield point


@pytest.mark.parametrize(
    ("options", "command"), [("-t ext4 -b 1024", "copy-in"), ("-t ext4", "tar-in"), ("-t ext2", "copy-in")]
)
def test_the_kernel_shows_what_cp_and_tar_would_have_made(
    tool: Tool, tmp_path: Path, local: Path, options: str, command: str
) -> None:
    ours = made_ext(tool, tmp_path / "ours", options, SIZE)
    with shown(ours) as point:  # what is in the way, and what is kept
        (point / "srv" / "tree" / "directory").mkdir(parents=True)
        (point / "srv" / "tree" / "directory" / "kept").write_bytes(b"kept")
        (point / "srv" / "tree" / "text").write_bytes(b"in the way")
        (point / "srv" / "tree" / "fifo").write_bytes(b"in the way, as something else")
        os.link(point / "srv" / "tree" / "text", point / "srv" / "another name")
    theirs = tmp_path / "theirs"
    run("cp", "--sparse=always", ours, theirs)
    archive = tmp_path / "tree.tar"
    run("tar", "--xattrs", "--xattrs-include=*", "--acls", "--sparse", "-cf", archive, "-C", local.parent, "tree")
    assert main([command, str(ours), str(local if command == "copy-in" else archive), "/srv"]) == 0
    run(tool("e2fsck"), "-fn", ours)
    with shown(theirs) as point:
        if command == "copy-in":
            run("cp", "-a", "--remove-destination", local, point / "srv")
        else:
            run("tar", "--xattrs", "--xattrs-include=*", "--acls", "-xpf", archive, "-C", point / "srv")
        with shown(ours) as ours_shown:
            assert differences(ours_shown / "srv" / "tree", point / "srv" / "tree") == []
            assert (ours_shown / "srv" / "another name").read_bytes() == b"in the way"
            run("rm", "-r", ours_shown / "srv")
    run(tool("e2fsck"), "-fn", ours)


def test_what_is_mounted_or_attached_is_not_changed(
    tool: Tool, tmp_path: Path, local: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    image = made_ext(tool, tmp_path / "image", "-t ext4", SIZE)
    with loop(image, 0, SIZE) as device:
        for command in (["copy-in", str(image), str(local), "/"], ["rm", "-r", str(image), "/lost+found"]):
            assert main(command) == 1
            assert "in use" in capfd.readouterr().err
        assert main(["mkdir", device, "/made"]) == 0
        with mounted_at(device, tmp_path / "point") as point:
            assert main(["mkdir", device, "/not made"]) == 1
            assert "in use (mounted on" in capfd.readouterr().err
            assert sorted(os.listdir(point)) == ["lost+found", "made"]
    run(tool("e2fsck"), "-fn", image)
