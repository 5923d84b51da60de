# SPDX-License-Identifier: MIT
"""Files that mke2fs puts into file systems of all features and sizes, read back without a mount."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from pydiskimg import open_tree
from pydiskimg.cli import main
from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.errors import DiskImageError
from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.make import make_ext
from pydiskimg.units import MIB
from tests.fixtures.ext_files import made_ext
from tests.fixtures.ext_trees import all_kinds, files_in, files_of, in_seconds
from tests.fixtures.journals import JournalWriter
from tests.fixtures.programs import Tool, run

pytestmark = pytest.mark.oracle

FEATURES = (
    "-t ext2 -b 1024",
    "-t ext2 -r 0",
    "-t ext2 -O ^filetype,^sparse_super,^resize_inode -b 2048",
    "-t ext3 -b 1024 -O ^dir_index",
    "-t ext3 -b 4096",
    "-t ext4 -b 1024",
    "-t ext4 -b 4096",
    "-t ext4 -b 65536",
    "-t ext4 -I 128",
    "-t ext4 -I 1024 -b 4096",
    "-t ext4 -O ^64bit,^flex_bg,^metadata_csum,uninit_bg -b 1024",
    "-t ext4 -O ^extent,^64bit",
    "-t ext4 -O meta_bg,^resize_inode -b 1024",
    "-t ext4 -O bigalloc -b 4096 -C 65536",
    "-t ext4 -O bigalloc -b 1024 -C 16384",
    "-t ext4 -E num_backup_sb=1 -O sparse_super2 -b 1024",
    "-t ext4 -O metadata_csum_seed,orphan_file,quota,project,mmp -E quotatype=usrquota:grpquota:prjquota",
    "-t ext4 -O ea_inode,large_dir,casefold,encrypt,verity",
)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return all_kinds(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def expected(source: Path) -> dict[str, dict[str, Any]]:
    return in_seconds(files_of(source))


@pytest.mark.parametrize("options", FEATURES)
def test_all_that_mke2fs_copies_is_read_back(
    source: Path, expected: dict[str, dict[str, Any]], tool: Tool, tmp_path: Path, options: str
) -> None:
    image = made_ext(tool, tmp_path / "image", options, 48 * MIB, source)
    with open_tree(image) as tree:
        found = in_seconds(files_in(tree))
        assert found.keys() == expected.keys()
        for path, facts in expected.items():
            assert found[path] == facts, path
        assert tree.list("/usr/../up/bin") == ["tool"]
        assert tree.read("/absolute") == tree.read("//bin/./tool") == b"tool\n"
        assert not tree.exists("/loop")
        assert not tree.exists("/hard link/below")
        sparse = list(tree.open("/sparse").extents())
        assert len(sparse) > 10
        assert sum(extent.length for extent in sparse) == 13 << 20


def test_inline_data_is_read(source: Path, expected: dict[str, dict[str, Any]], tool: Tool, tmp_path: Path) -> None:
    image = made_ext(tool, tmp_path / "image", "-t ext4 -O inline_data -I 256", 48 * MIB, source)
    with open_tree(image) as tree:
        found = in_seconds(files_in(tree))
    for path, facts in expected.items():
        if path != "/sparse":  # mke2fs 1.47.0 cuts off a hole at the end with inline_data
            assert found[path] == facts, path


def test_debugfs_reads_the_same(source: Path, tool: Tool, tmp_path: Path) -> None:
    image = made_ext(tool, tmp_path / "image", "-t ext4 -b 1024", 48 * MIB, source)
    words = [str(tool("debugfs")), "-R", 'cat "/700000 bytes"', str(image)]
    with open_tree(image) as tree:
        done = subprocess.run(words, capture_output=True, check=True)
        assert tree.read("/700000 bytes") == done.stdout
        status = tree.stat("/usr/bin/tool")
        said = run(tool("debugfs"), "-R", "stat /usr/bin/tool", image)
    assert f"Inode: {status.st_ino} " in said
    assert "Mode:  04755" in said
    assert f"Links: {status.st_nlink} " in said


def test_times_beyond_2038_and_large_devices(tool: Tool, tmp_path: Path) -> None:
    image = made_ext(tool, tmp_path / "image", "-t ext4", 8 * MIB)
    commands = "mknod old c 4 5\nmknod new b 259 99\nwrite /dev/null file\n"
    for field, value in (
        ("mtime", "0xffffffff"),
        ("mtime_extra", f"{999_999_999 << 2 | 2:#x}"),
        ("crtime", "0x80000000"),
        ("uid", "70001"),
        ("gid", "4000000000"),
        ("generation", "77"),
    ):
        commands += f"set_inode_field file {field} {value}\n"
    run(tool("debugfs"), "-w", "-f", "-", image, given=commands)
    with open_tree(image) as tree:
        status = tree.stat("/file")
        assert status.st_mtime_ns == (2 * 2**32 - 1) * 10**9 + 999_999_999
        assert (status.st_uid, status.st_gid) == (70001, 4_000_000_000)
        for name, device in (("/old", (4, 5)), ("/new", (259, 99))):
            number = tree.stat(name).st_rdev
            assert (os.major(number), os.minor(number)) == device


def test_what_is_encrypted_is_refused_and_the_rest_is_read(tool: Tool, tmp_path: Path) -> None:
    image = made_ext(tool, tmp_path / "image", "-t ext4 -O encrypt", 8 * MIB)
    commands = "mkdir closed\nwrite /etc/passwd file\nset_inode_field closed flags 0x80800\n"
    commands += "set_inode_field file flags 0x80800\nwrite /etc/passwd open\n"
    run(tool("debugfs"), "-w", "-f", "-", image, given=commands)
    with open_tree(image) as tree:
        assert tree.list("/") == ["closed", "file", "lost+found", "open"]
        assert tree.read("/open") == Path("/etc/passwd").read_bytes()
        with pytest.raises(OSError, match="/file: is encrypted"):
            tree.read("/file")
        with pytest.raises(OSError, match="/closed: is encrypted"):
            tree.list("/closed")


def test_the_commands(source: Path, tool: Tool, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    image = str(made_ext(tool, tmp_path / "image", "-t ext4", 48 * MIB, source))
    assert main(["ls", image, "usr/bin", "/sixty"]) == 0
    assert main(["ls", "-R", image, "/usr"]) == 0
    assert main(["cat", image, "/absolute", "1 bytes"]) == 0
    one = (source / "1 bytes").read_bytes()
    assert capfdbinary.readouterr().out == b"tool\n/sixty\n/usr/bin\n/usr/bin/tool\ntool\n" + one
    out = tmp_path / "out"
    out.mkdir()
    assert main(["copy-out", image, "/usr", "/sparse", str(out)]) == 0
    assert (out / "sparse").read_bytes() == (source / "sparse").read_bytes()
    assert (out / "sparse").stat().st_blocks < 1 << 12
    assert (out / "usr" / "bin" / "tool").stat().st_mode == (source / "usr" / "bin" / "tool").stat().st_mode
    assert main(["tar-out", image, "/", str(tmp_path / "all.tar")]) == 0
    with tarfile.open(tmp_path / "all.tar") as tar:
        members = {member.name.removeprefix("."): member for member in tar}
        assert members.keys() - {"", "/lost+found"} == files_of(source).keys()
        sparse = tar.extractfile(members["/sparse"])
        assert sparse is not None
        assert sparse.read() == (source / "sparse").read_bytes()
    assert (tmp_path / "all.tar").stat().st_size < 4 * MIB
    for words, text in (
        (["cat", image, "/nothing"], b"/nothing: does not exist"),
        (["cat", image, "/usr"], b"/usr: is not a regular file"),
        (["ls", "--partition", "2", image], b"has no partition 2"),
    ):
        capfdbinary.readouterr()
        assert main(words) == 1
        assert text in capfdbinary.readouterr().err


def test_long_listings_are_those_of_ls(
    source: Path, tool: Tool, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    sizes = [0, 1, 1023, 1024, 1025, 10188, 10189, 10240, 10241, 1023 << 10, (1023 << 10) + 1, (1 << 20) - 1, 99 << 20]
    for number, size in enumerate(sizes):
        with (source / f"sized{number}").open("wb") as file:
            file.truncate(size)
    image = str(made_ext(tool, tmp_path / "image", "-t ext4", 48 * MIB, source))
    assert main(["ls", "-lh", image]) == 0
    ours = capfdbinary.readouterr().out.decode().splitlines()
    theirs = run(tool("ls"), "-lhn", source).splitlines()
    sized = [{line.split()[-1]: line.split()[4] for line in lines if " sized" in line} for lines in (ours, theirs)]
    assert sized[0] == sized[1]
    assert len(sized[0]) == len(sizes)
    assert main(["ls", "--times", "--extra-stats", image, "/sized2"]) == 0
    inode, blocks, *_, path = capfdbinary.readouterr().out.split()
    with open_tree(image) as tree:
        status = tree.stat("/sized2")
    assert (int(inode), int(blocks), path) == (status.st_ino, status.st_blocks, b"/sized2")
    assert main(["ls", "--times", "--extra-stats", "--output", "json", image, "/sized2"]) == 0
    assert main(["stat", "--output", "json", image, "/sized2"]) == 0
    one, two = map(json.loads, capfdbinary.readouterr().out.decode().replace("]\n[", "]\0[").split("\0"))
    assert one[0] == {name: value for name, value in two[0].items() if name != "attributes"}


@pytest.fixture
def dirty(tool: Tool, tmp_path: Path) -> tuple[JournalWriter, MemoryDisk]:
    """A file system whose new files are all in its journal, and another one that has them in their places."""
    before = MemoryDisk(8 * MIB, name="disk")
    make_ext(before, kind="ext4", block_size=1024)
    path = tmp_path / "after"
    path.write_bytes(before.data)
    commands = "mkdir made\nwrite /etc/passwd made/passwd\nsymlink link made/passwd\nmknod fifo p\n"
    run(tool("debugfs"), "-w", "-f", "-", path, given=commands)
    after = MemoryDisk(0, name="disk")
    after.data = bytearray(path.read_bytes())
    writer = JournalWriter(before, layout.JOURNAL_CSUM_V3 | layout.JOURNAL_64BIT | layout.JOURNAL_HAS_REVOKE)
    starts = range(0, len(after.data), 1024)
    changed = {at // 1024: bytes(after.data[at : at + 1024]) for at in starts}
    blocks = {block: data for block, data in changed.items() if data != before.data[block * 1024 :][:1024]}
    writer.write(blocks)
    writer.commit()
    return writer, after


def test_what_is_in_the_journal_alone_is_read(dirty: tuple[JournalWriter, MemoryDisk]) -> None:
    writer, after = dirty
    writer.close()
    stored = bytes(writer.disk.data)
    with open_tree(writer.disk) as tree:
        found = files_in(tree)
        assert tree.read("/link") == Path("/etc/passwd").read_bytes()
    with open_tree(after) as tree:
        assert found == files_in(tree)
    assert found.keys() == {"/made", "/made/passwd", "/link", "/fifo"}
    assert writer.disk.data == stored, "nothing was written"


def test_fast_commits_with_content_are_refused_and_empty_ones_are_not(
    dirty: tuple[JournalWriter, MemoryDisk],
) -> None:
    writer, _ = dirty
    writer.close(s_feature_incompat=writer.incompat | layout.JOURNAL_FAST_COMMIT, s_num_fc_blocks=256)
    with open_tree(writer.disk) as tree:
        assert tree.exists("/made/passwd")
    at = writer.at(1024 - 256 + 1)
    head = (9).to_bytes(2, "little") + (8).to_bytes(2, "little") + bytes(4)
    writer.disk.data[at : at + 12] = head + writer.sequence.to_bytes(4, "little")
    with pytest.raises(DiskImageError, match=r"no file system can be read: .* fast commits, which are not read here"):
        open_tree(writer.disk)
    writer.disk.data[at + 8 : at + 12] = bytes(4)  # of an older transaction
    with open_tree(writer.disk) as tree:
        assert tree.exists("/made/passwd")


def test_a_journal_elsewhere_is_refused_where_it_is_needed(tool: Tool, tmp_path: Path) -> None:
    path = made_ext(tool, tmp_path / "disk", "-t ext4 -O ^has_journal", 8 * MIB)
    for command in ("feature has_journal", "set_super_value journal_dev 0x700"):
        run(tool("debugfs"), "-w", "-R", command, path)
    with open_tree(path) as tree:
        assert tree.list("/") == ["lost+found"]
    run(tool("debugfs"), "-w", "-R", "feature needs_recovery", path)
    with pytest.raises(DiskImageError, match="needs recovery by a journal that is not in it"):
        open_tree(path)
