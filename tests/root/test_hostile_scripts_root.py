# SPDX-License-Identifier: MIT
"""Customisation scripts over a tree that an attacker made: the sample in docs/ganeti.md leaves the node as it was."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fixtures.block_devices import filled_file
from tests.fixtures.ext_files import made_ext
from tests.fixtures.growing import loop, mounted_at
from tests.fixtures.node import ROOT, Node, create_environment, last_line

pytestmark = pytest.mark.root
Tool = Callable[[str], str]
MIB = 1 << 20


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node.make(tmp_path / "node", IMAGE_NAME="hostile", IMAGE_TYPE="qemu", IDENTITY="no")


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """Stand for the node's /etc."""
    directory = tmp_path / "host"
    directory.mkdir()
    (directory / "motd").write_text("node1\n")
    return directory


def documented_sample(node: Node) -> None:
    """Make the script as docs/ganeti.md says."""
    lines = (ROOT / "docs/ganeti.md").read_text().splitlines()
    (command,) = [line.strip() for line in lines if line.strip().startswith("printf '%s\\n' '#!/bin/sh'")]
    subprocess.run(["sh", "-e", "-c", command], cwd=node.scripts, check=True)


def image(tool: Tool, node: Node, tmp_path: Path, etc: Callable[[Path], object]) -> None:
    """Make a raw disk image whose root has the /etc that etc() makes; the directory it gets does not exist yet."""
    root = tmp_path / "guest"
    (root / "bin").mkdir(parents=True)
    (root / "bin/sh").write_text("")
    (root / "usr").mkdir()
    etc(root / "etc")
    if not (root / "etc").is_symlink():
        (root / "etc/os-release").write_text("ID=hostile\n")
    made_ext(tool, node.images / f"hostile-{os.uname().machine}.img", "-t ext4", 24 * MIB, root)


def directory(etc: Path) -> Path:
    etc.mkdir()
    return etc


def hard_linked(etc: Path) -> None:
    (directory(etc) / "other").write_text("of the guest\n")
    os.link(etc / "other", etc / "motd")


TREES: dict[str, Callable[[Path, Path], object]] = {
    "ordinary": lambda etc, _: (directory(etc) / "motd").write_text("old\n"),
    "none yet": lambda etc, _: directory(etc),
    "etc is a link to the node's": lambda etc, host: etc.symlink_to(host),
    "etc is a link upwards": lambda etc, host: etc.symlink_to("../../../../../../../.." + str(host)),
    "motd is a link to the node's": lambda etc, host: (directory(etc) / "motd").symlink_to(host / "motd"),
    "motd is a link to what is not there": lambda etc, host: (directory(etc) / "motd").symlink_to(host / "new"),
    "motd is a link through /proc": lambda etc, host: (directory(etc) / "motd").symlink_to(f"/proc/1/root{host}/motd"),
    "motd is a hard link": lambda etc, _: hard_linked(etc),
    "motd is a FIFO": lambda etc, _: os.mkfifo(directory(etc) / "motd"),
    "motd is a device": lambda etc, _: os.mknod(directory(etc) / "motd", 0o20666, os.makedev(1, 3)),
    "motd is a directory": lambda etc, _: (directory(etc) / "motd").mkdir(),
}
WRITTEN = {"ordinary", "none yet", "motd is a hard link"}


@pytest.mark.parametrize("tree", TREES)
def test_the_sample_of_the_readme_stays_in_the_guest(
    node: Node, tool: Tool, host: Path, tmp_path: Path, tree: str
) -> None:
    image(tool, node, tmp_path, lambda etc: TREES[tree](etc, host))
    documented_sample(node)
    disk = filled_file(tmp_path / "disk", 24 * MIB)
    process = node.start("create", **create_environment(disk))
    _, err = process.communicate(timeout=60)
    assert sorted(os.listdir(host)) == ["motd"], "a file was made on the node"
    assert (host / "motd").read_text() == "node1\n", "a file of the node was written"
    if tree in WRITTEN:
        assert process.returncode == 0, err
        with loop(disk, 0, 24 * MIB, read_only=True) as device, mounted_at(device, tmp_path / "judge", "-r") as root:
            assert (root / "etc/motd").read_text() == "This is inst1.example.org.\n"
            if tree == "motd is a hard link":
                assert (root / "etc/other").read_text() == "of the guest\n"
    else:
        assert process.returncode == 1
        assert "/etc/motd in the guest" in err, "the helper says which file it is"
        assert "motd: exited with status 1" in err.splitlines()[-1]


FLAGS = '#!/bin/sh\nset -e\ngrep " $TARGET" /proc/self/mountinfo >"{log}"\n'


def test_a_device_node_of_the_guest_is_inert_and_set_user_id_too(node: Node, tool: Tool, tmp_path: Path) -> None:
    image(tool, node, tmp_path, directory)
    node.add_script("10-flags", FLAGS.format(log=tmp_path / "flags"))
    node.add_script(
        "20-device",
        '#!/bin/sh\nmknod "$TARGET/null" c 1 3\nif (echo x >"$TARGET/null") 2>/dev/null; then exit 3; fi\n',
    )
    done = node.create(filled_file(tmp_path / "disk", 24 * MIB))
    assert done.returncode == 0, last_line(done)
    flags = [line.split()[5].split(",") for line in (tmp_path / "flags").read_text().splitlines()]
    assert flags
    assert all({"nosuid", "nodev"} <= set(found) and "noexec" not in found for found in flags)


@pytest.mark.parametrize("kind", ["directory", "link"])
def test_dev_is_bound_as_settings_md_says(node: Node, tool: Tool, host: Path, tmp_path: Path, kind: str) -> None:
    def made(etc: Path) -> None:
        directory(etc)
        (etc.parent / "dev").symlink_to(host) if kind == "link" else (etc.parent / "dev").mkdir()

    image(tool, node, tmp_path, made)
    page = (ROOT / "docs/settings.md").read_text()
    begin = page.index('    [ -L "$TARGET/dev" ]')
    lines = [line.strip() for line in page[begin:].split("\n\n")[0].splitlines()]
    sample = [line for line in lines if not line.startswith("chroot")]
    assert len(sample) == len(lines) - 1
    sample.insert(-1, f'echo x >"$TARGET/dev/null"; touch "{tmp_path}/bound"')
    node.add_script("10-dev", "#!/bin/sh\nset -e\n" + "\n".join(sample) + "\n")
    done = node.create(filled_file(tmp_path / "disk", 24 * MIB))
    assert done.returncode == (kind == "link"), last_line(done)
    assert (tmp_path / "bound").exists() == (kind == "directory")
    assert sorted(os.listdir(host)) == ["motd"]
