# SPDX-License-Identifier: MIT
"""GNU tar and bsdtar judge: what they pack comes out of extract() as it comes out of GNU tar."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from pydiskimg.errors import ArchiveError
from pydiskimg.files.tar import extract
from tests.archive_trees import differences, odd_tree, plain_tree, sparse_tree, walk
from tests.fixtures.programs import Tool, run

pytestmark = pytest.mark.oracle

EXTRACT = ("--numeric-owner", "--xattrs", "--xattrs-include=*", "--acls", "--atime-preserve")


def pack(tool: Tool, archive: Path, tree: Path, *options: str) -> None:
    run(tool("tar"), "-cf", archive, "--numeric-owner", *options, "-C", tree, ".")


def judge(tool: Tool, archive: Path, scratch: Path) -> Path:
    """Unpack with both, compare, and return our tree."""
    theirs, ours = scratch / "theirs", scratch / "ours"
    theirs.mkdir()
    ours.mkdir()
    run(tool("tar"), "-xpf", archive, *EXTRACT, "-C", theirs)
    extracted = extract(archive, str(ours))
    assert differences(ours, theirs) == []
    # The root has no line of its own in some archives.
    assert extracted.entries >= sum(1 for _ in walk(os.fsencode(ours))) - 1
    return ours


@pytest.mark.parametrize("form", ["v7", "ustar", "oldgnu", "gnu", "pax"])
def test_what_every_format_holds(tool: Tool, tmp_path: Path, form: str) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    plain_tree(tree, fifo=form != "v7")
    pack(tool, tmp_path / "a.tar", tree, f"--format={form}")
    ours = judge(tool, tmp_path / "a.tar", tmp_path)
    assert differences(ours, tree) == []


@pytest.mark.parametrize("form", ["gnu", "pax"])
def test_odd_names_and_times(tool: Tool, tmp_path: Path, form: str) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    odd_tree(tree)
    pack(tool, tmp_path / "a.tar", tree, f"--format={form}")
    ours = judge(tool, tmp_path / "a.tar", tmp_path)
    if form == "pax":  # GNU's format has whole seconds
        assert differences(ours, tree) == []


@pytest.mark.parametrize(
    "options",
    [
        ("--format=oldgnu",),
        ("--format=gnu",),
        ("--format=pax", "--sparse-version=0.0"),
        ("--format=pax", "--sparse-version=0.1"),
        ("--format=pax", "--sparse-version=1.0"),
        ("--format=gnu", "--hole-detection=raw"),
        ("--format=pax", "--sparse-version=1.0", "--hole-detection=raw"),
    ],
)
def test_sparse_files_come_out_byte_for_byte(tool: Tool, tmp_path: Path, options: tuple[str, ...]) -> None:
    tree = tmp_path / "tree"
    sparse_tree(tree)
    if "--hole-detection=raw" in options:  # reads all of it
        (tree / "beyond-8-gib").unlink()
    pack(tool, tmp_path / "a.tar", tree, "--sparse", *options)
    ours = judge(tool, tmp_path / "a.tar", tmp_path)
    for path in walk(os.fsencode(ours)):
        theirs = os.fsencode(tmp_path / "theirs") + path[len(os.fsencode(ours)) :]
        assert os.lstat(path).st_blocks <= os.lstat(theirs).st_blocks + 16, path


@pytest.mark.parametrize("form", ["pax", "gnutar", "ustar", "v7"])
def test_bsdtar_packs(tool: Tool, tmp_path: Path, form: str) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    if form == "pax":
        odd_tree(tree)
        sparse_tree(tree / "sparse")
    else:
        plain_tree(tree, fifo=form != "v7")
    run(tool("bsdtar"), "-cf", tmp_path / "a.tar", "--numeric-owner", f"--format={form}", "-C", tree, ".")
    ours = tmp_path / "ours"
    ours.mkdir()
    extract(tmp_path / "a.tar", str(ours))
    # bsdtar writes -1.5 s as "-2.5": it is what the archive says that comes out, as from GNU tar. GNU tar is no judge
    # here, because it loses the times of directories whose entries bsdtar has put elsewhere.
    assert [line for line in differences(ours, tree) if "before" not in line] == []


@pytest.mark.parametrize("program", ["gzip", "pigz", "bzip2", "xz", "lzma", "zstd", "lz4", "lzip", "compress"])
def test_compressions(tool: Tool, tmp_path: Path, program: str) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    plain_tree(tree)
    pack(tool, tmp_path / "a.tar", tree, "-I", tool(program))
    ours = tmp_path / "ours"
    ours.mkdir()
    seen: list[tuple[int, int]] = []
    extract(tmp_path / "a.tar", str(ours), progress=lambda done, total: seen.append((done, total)))
    assert differences(ours, tree) == []
    size = (tmp_path / "a.tar").stat().st_size
    assert seen[-1] == (size, size)
    assert seen == sorted(seen)


def test_every_truncation_of_every_compression_is_an_error(tool: Tool, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_bytes(os.urandom(3000))
    for program in ("cat", "gzip", "bzip2", "xz", "lzma", "zstd", "lz4", "lzip"):
        pack(tool, tmp_path / "a.tar", tree, "-I", tool(program))
        whole = (tmp_path / "a.tar").read_bytes()
        # Not compressed: two headers, the file's six blocks, and a block of the marker are all that is needed.
        lengths = range(1, 9 * 512) if program == "cat" else range(1, len(whole))
        for length in sorted({*lengths[::97], *lengths[-20:]}):
            (tmp_path / "cut.tar").write_bytes(whole[:length])
            ours = tmp_path / f"{program}-{length}"
            ours.mkdir()
            with pytest.raises(ArchiveError, match=r"cut\.tar"):
                extract(tmp_path / "cut.tar", str(ours))


SCRIPT = """
import os, sys
from pydiskimg.files.tar import extract
from pydiskimg.errors import ArchiveError
os.umask(0o077)
extract(sys.argv[1], sys.argv[2])
"""


@pytest.mark.parametrize("language", ["C", "C.UTF-8", "POSIX"])
def test_locale_and_umask_do_not_matter(tool: Tool, tmp_path: Path, language: str) -> None:
    tree, ours = tmp_path / "tree", tmp_path / "ours"
    tree.mkdir()
    ours.mkdir()
    odd_tree(tree)
    pack(tool, tmp_path / "a.tar.gz", tree, "-z", "--format=pax")
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": language}
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "a.tar.gz"), str(ours)]
    done = subprocess.run(command, env=environment, check=False, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert differences(ours, tree) == []


def test_sparse_members_of_star_are_refused_and_not_collapsed(tool: Tool, tmp_path: Path) -> None:
    """GNU tar reads them; libarchive gives the four bytes that are stored as the whole file, without an error."""
    block = bytearray(tarfile.TarInfo("f").tobuf(tarfile.USTAR_FORMAT))
    block[124:136] = b"%011o\0" % 4
    block[156:157] = b"S"
    block[356:404] = b"%011o %011o " % (4096, 4) + b"%011o %011o " % (9000, 0)
    block[452:464] = b"%011o " % 9000
    block[476:500] = b"%011o %011o " % (1_000_000_000, 1_000_000_000)
    block[508:512] = b"tar\0"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    (tmp_path / "a.tar").write_bytes(bytes(block) + b"data" + bytes(508 + 1024))
    run(tool("tar"), "-xf", tmp_path / "a.tar", "-C", tmp_path)
    assert (tmp_path / "f").stat().st_size == 9000
    (tmp_path / "ours").mkdir()
    with pytest.raises(ArchiveError, match="entry f: it is sparse in a format other than GNU tar's"):
        extract(tmp_path / "a.tar", str(tmp_path / "ours"))


def test_a_real_tree(tool: Tool, tmp_path: Path) -> None:
    tree = Path("/usr/share/doc")
    owner = () if os.geteuid() == 0 else (f"--owner=+{os.getuid()}", f"--group=+{os.getgid()}")
    run(tool("tar"), "-czf", tmp_path / "a.tar.gz", *owner, "-C", tree, "--ignore-failed-read", ".")
    judge(tool, tmp_path / "a.tar.gz", tmp_path)


@pytest.mark.parametrize("options", [("-V", "a label"), ("--pax-option=globexthdr.name=g,comment=seen",)], ids=str)
def test_gnu_tars_own_global_headers(tool: Tool, options: tuple[str, ...], tmp_path: Path) -> None:
    archive, tree, target = (tmp_path / name for name in ("a.tar", "tree", "target"))
    tree.mkdir()
    target.mkdir()
    (tree / "file").write_text("contents")
    pack(tool, archive, tree, "--format=pax", *options)
    assert b"comment=seen" in archive.read_bytes() or b"GNU.volume.label=a label" in archive.read_bytes()
    extract(archive, str(target))
    assert (target / "file").read_text() == "contents"
