# SPDX-License-Identifier: MIT
"""Features, block sizes and inode sizes that the tests of each operation leave out: read, changed, checked, grown and
made smaller, one after the other; e2fsck judges, and the files are compared."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from pydiskimg.errors import FileSystemError, StorageError
from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.change.attributes import with_attributes
from pydiskimg.fs.ext4.change.inodes import changed, store
from pydiskimg.fs.ext4.change.transaction import Transaction
from pydiskimg.fs.ext4.change.tree import open_changed_tree
from pydiskimg.fs.ext4.check import check_ext
from pydiskimg.fs.ext4.grow import plan_ext_growth
from pydiskimg.fs.ext4.inodes import read_inode
from pydiskimg.fs.ext4.shrink import shrink_ext
from pydiskimg.fs.ext4.tree import open_ext_tree
from pydiskimg.images.open_disk import open_disk
from pydiskimg.units import MIB
from tests.fixtures.ext_contents import Found, contents_of
from tests.fixtures.ext_files import made_ext, sized
from tests.fixtures.ext_trees import all_kinds, files_in, files_of, in_seconds
from tests.fixtures.made_entries import everything
from tests.fixtures.programs import Tool, run
from tests.fixtures.random_ext import made_random

pytestmark = pytest.mark.oracle

# The size that mke2fs makes: a journal has 1024 blocks at least.
CASES = {
    "-t ext4 -b 1024 -I 512 -O uninit_bg,^metadata_csum,^64bit -g 4096": 24 * MIB,
    "-t ext4 -b 1024 -I 128 -O large_dir,metadata_csum_seed -g 8192": 24 * MIB,
    "-t ext4 -b 2048 -I 1024 -O casefold,encrypt,verity,project,inline_data -E encoding=utf8 -g 2048": 24 * MIB,
    "-t ext4 -b 2048 -I 512 -O ea_inode,quota,project -E quotatype=usrquota:grpquota:prjquota -g 4096": 24 * MIB,
    "-t ext4 -b 4096 -I 1024 -O ^64bit,large_dir,casefold,^has_journal -E encoding_flags=strict -g 1024": 24 * MIB,
    "-t ext4 -b 16384 -I 256 -O metadata_csum_seed,quota,project -E quotatype=prjquota -g 1024": 48 * MIB,
    "-t ext4 -b 16384 -I 512 -O bigalloc,^has_journal -C 65536 -g 4096": 48 * MIB,
    "-t ext3 -b 16384 -I 128 -g 1024": 48 * MIB,
    "-t ext2 -b 65536 -I 256": 48 * MIB,
    "-t ext4 -b 65536 -I 1024 -J size=64 -O inline_data,metadata_csum_seed,orphan_file -g 2048": 160 * MIB,
}
MORE = 20 * MIB


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return all_kinds(tmp_path_factory.mktemp("source"), names=30)


def judged(tool: Tool, path: Path) -> dict[str, Found]:
    """Have e2fsck and our own check find nothing; return the files."""
    run(tool("e2fsck"), "-fn", path)
    with open_disk(path) as disk:
        report = check_ext(disk)
        assert report.is_clean, report.details
        return contents_of(disk)


@pytest.mark.parametrize("options", CASES)
def test_read_changed_checked_grown_and_shrunk(tool: Tool, tmp_path: Path, source: Path, options: str) -> None:
    all_operations(tool, made_ext(tool, tmp_path / "image", options, CASES[options], source), source, options)


@pytest.mark.parametrize("seed", [*range(int(os.environ.get("PYDISKIMG_EXAMPLES", "6"))), 292])
def test_random_features(tool: Tool, tmp_path: Path, source: Path, seed: int) -> None:
    options = made_random(tool, tmp_path / "image", random.Random(seed), source)
    all_operations(tool, tmp_path / "image", source, options)


def all_operations(tool: Tool, path: Path, source: Path, options: str) -> None:
    """Read a file system that mke2fs has made of the files of source; change it, let it grow and shrink."""
    size = path.stat().st_size
    if "quota" in options:  # mke2fs -d does not count what it copies
        run(tool("e2fsck"), "-fy", path, expect=(0, 1))
    with open_disk(path, writable=True) as disk:
        with open_ext_tree(disk) as tree:
            found, expected = in_seconds(files_in(tree)), in_seconds(files_of(source))
        for name in expected if "inline_data" not in options else expected.keys() - {"/sparse"}:
            assert found[name] == expected[name], name  # mke2fs 1.47.0 cuts off a hole at the end with inline_data
        with open_changed_tree(disk) as changed_tree:
            changed_tree.put(everything())
            changed_tree.write_files("/many", [(f"{'n' * 200}{number}", b"new") for number in range(20)])
            changed_tree.remove_tree("/usr")
            changed_tree.truncate("/700000 bytes", 300_000)
    files = judged(tool, path)
    with open_disk(sized(path, size + MORE), writable=True) as disk:
        plan_ext_growth(disk).write()
    assert judged(tool, path) == files
    with open_disk(path, writable=True) as disk:
        assert shrink_ext(disk) <= size
    assert judged(tool, path) == files


FLAGGED = "-t ext4 -b 1024 -I 256 -O casefold,encrypt,verity -E encoding=utf8 -g 1024 -N 256"
_POLICY = bytes([2, 1, 4, 2, 0, 0, 0, 0]) + b"master key's id!"  # fscrypt_context_v2 without its nonce
_CONTEXT = (9, b"c")


def flagged(tool: Tool, path: Path) -> None:
    """Make a file system with a directory of casefolded names, an encrypted one, and a file under fs-verity."""
    made_ext(tool, path, FLAGGED, 12 * MIB)
    rng = random.Random(1)
    with open_disk(path, writable=True) as disk:
        with open_changed_tree(disk) as tree:
            tree.write_files("/", [(f"filler{number}", b"") for number in range(200)])
            for name in ("folded", "locked"):
                tree.make_directory(f"/{name}")
            tree.write_files("/folded", [(f"Größe {number}", b"of a folded name") for number in range(5)])
            tree.write("/locked/sixteen bytes of", rng.randbytes(4096))
            tree.write("/sealed", rng.randbytes(40_000))
            for number in range(200):
                tree.remove(f"/filler{number}")
        transaction = Transaction(disk)
        with open_ext_tree(disk) as found:
            numbers = [found.stat(name).st_ino for name in ("/locked", "/locked/sixteen bytes of")]
        for number in numbers:
            inode = read_inode(transaction.fs, number)
            context = _POLICY + rng.randbytes(16)
            inode = with_attributes(transaction, inode, {_CONTEXT: context})
            store(transaction, changed(inode, {"i_flags": int(inode.fields["i_flags"]) | layout.ENCRYPT_FLAG}))
        transaction.commit()
        transaction.close()
    # Of a verity file the tree of hashes lies after its end.
    commands = "set_inode_field folded flags 0x40080000\nset_inode_field sealed flags 0x180000\n"
    run(tool("debugfs"), "-w", "-f", "-", path, given=f"{commands}set_inode_field sealed size 30000\n")


def sealed_and_flags(tool: Tool, path: Path) -> tuple[bytes, list[str]]:
    """Return all blocks of the file under fs-verity, and the flags of the four."""
    said = [run(tool("debugfs"), "-R", f"stat {name}", path) for name in ("folded", "locked", "sealed")]
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes())
    run(tool("debugfs"), "-w", "-R", "set_inode_field sealed size 40000", copy)
    run(tool("debugfs"), "-R", f"dump sealed {path.parent}/dumped", copy)
    return (path.parent / "dumped").read_bytes(), [text.split("Flags: ")[1].split()[0] for text in said]


def test_encrypted_casefolded_and_sealed_files_move_with_the_others(tool: Tool, tmp_path: Path) -> None:
    """What they hold stays the same, to the byte, and they are not changed; inodes get other numbers."""
    path = tmp_path / "image"
    flagged(tool, path)
    run(tool("e2fsck"), "-fn", path)
    before = sealed_and_flags(tool, path)
    assert before[1] == ["0x40080000", "0x80800", "0x180000"]
    assert len(before[0]) == 40_000
    with open_disk(path, writable=True) as disk, open_changed_tree(disk) as tree:
        tree.write("/other", b"other" * 1000)
        for name in ("/folded/new", "/locked/new", "/sealed"):
            with pytest.raises(StorageError, match=r"encrypted|casefolded names|fs-verity"):
                tree.write(name, b"")
        assert tree.read("/folded/Größe 3") == b"of a folded name"
        with pytest.raises(StorageError, match="is encrypted"):
            tree.list("/locked")
    with open_disk(sized(path, 30 * MIB), writable=True) as disk:
        plan_ext_growth(disk).write()
        run(tool("e2fsck"), "-fn", path)
        assert check_ext(disk).is_clean
        assert shrink_ext(disk) < 6 * MIB
        assert check_ext(disk).is_clean
        with open_ext_tree(disk) as found:
            assert found.read("/folded/Größe 3") == b"of a folded name"
            assert found.stat("/folded").st_ino < 100
    run(tool("e2fsck"), "-fn", path)
    assert sealed_and_flags(tool, path) == before


def test_multiple_mount_protection_that_says_clean(tool: Tool, tmp_path: Path, source: Path) -> None:
    """It is read, changed and checked; in use it is read only (test_ext4_change_oracle.py)."""
    path = made_ext(tool, tmp_path / "image", "-t ext4 -b 4096 -O mmp", 24 * MIB, source)
    with open_disk(path, writable=True) as disk, open_changed_tree(disk) as tree:
        tree.put(everything())
        tree.remove_tree("/many")
    files = judged(tool, path)
    assert (files["/etc/second"].links, "/many" in files) == (2, False)


@pytest.mark.parametrize("field", ["orphan_file_inum", "prj_quota_inum"])
def test_a_file_of_the_file_system_itself_without_its_feature(tool: Tool, tmp_path: Path, field: str) -> None:
    """e2fsck takes the inode for one in use, or for one that is to be cleared, once others after it are in use."""
    path = made_ext(tool, tmp_path / "image", "-t ext4 -b 1024 -O ^orphan_file", 4 * MIB)
    run(tool("debugfs"), "-w", "-R", f"set_super_value {field} 16", path)
    with open_disk(path, writable=True) as disk:
        with pytest.raises(FileSystemError, match=rf"inode 16 in s_{field}, without.*set_super_value {field} 0"):
            open_changed_tree(disk)
        with pytest.raises(FileSystemError, match="inode 16"):
            shrink_ext(disk)
        run(tool("debugfs"), "-w", "-R", f"set_super_value {field} 0", path)
        with open_changed_tree(disk) as tree:
            tree.write_files("/", [(f"{number}", b"new") for number in range(20)])
    run(tool("e2fsck"), "-fn", path)
