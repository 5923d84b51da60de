# SPDX-License-Identifier: MIT
"""The commands that change the files of an image: e2fsck judges afterwards, and what is read is what was copied."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import random
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pydiskimg import open_disk, open_image, open_tree
from pydiskimg.cli import main
from pydiskimg.errors import InUseError
from pydiskimg.units import MIB, format_size
from tests.fixtures.ext_files import made_ext, sized
from tests.fixtures.programs import Tool, run

pytestmark = pytest.mark.oracle

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr("pydiskimg.cli.signals.end_as_interrupted", lambda: None)

    def call(*words: object) -> tuple[int, str]:
        status = main([str(word) for word in words])
        return status, capfd.readouterr().err

    return call


@pytest.fixture
def image(tool: Tool, tmp_path: Path) -> Path:
    return made_ext(tool, tmp_path / "image", "-t ext4", 16 * MIB)


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """A directory with a file of holes, a link, a symlink, an attribute, and times and modes of their own."""
    top = tmp_path / "local"
    (top / "a" / "empty").mkdir(parents=True)
    (top / "a" / "file").write_bytes(b"contents" * 1000)
    sized(top / "a" / "sparse", 3 * MIB)
    os.link(top / "a" / "file", top / "b")
    (top / "link").symlink_to("/absolute/target")
    os.mkfifo(top / "fifo")
    os.setxattr(top / "b", b"user.note", b"noted")
    (top / "a" / "empty").chmod(0o700)
    for number, name in enumerate(("b", "a/sparse", "a/empty", "a", "fifo", "")):
        os.utime(top / name, ns=(1_500_000_000_000_000_001 + number, 1_600_000_000_123_456_789 + number))
    return top


def checked(tool: Tool, image: Path) -> None:
    run(tool("e2fsck"), "-fn", image)


def same(image: Path, path: str, local: Path) -> None:
    """Compare what is below path of the image with what is below local."""
    with open_tree(image) as tree:
        found = {name.removeprefix(path): status for name, status in tree.walk(path)} | {"": tree.stat(path)}
        expected = {str(below)[len(str(local)) :]: below.lstat() for below in [local, *local.rglob("*")]}
        assert found.keys() == expected.keys()
        for name, status in expected.items():
            ours, is_folder = found[name], (local / name.lstrip("/")).is_dir()
            assert ours.st_mode == status.st_mode, name
            assert (ours.st_uid, ours.st_gid, ours.st_nlink) == (status.st_uid, status.st_gid, status.st_nlink), name
            if not name.endswith("link"):
                assert ours.st_mtime_ns == status.st_mtime_ns, name
            assert is_folder or ours.st_size == status.st_size, name
        assert tree.read(f"{path}/a/file") == (local / "a" / "file").read_bytes()
        assert tree.stat(f"{path}/a/sparse").st_blocks == 0
        assert tree.stat(f"{path}/a/file").st_ino == tree.stat(f"{path}/b").st_ino
        assert tree.attributes(f"{path}/b") == {"user.note": b"noted"}
        assert tree.readlink(f"{path}/link") == "/absolute/target"


def test_copy_in(tool: Tool, image: Path, local: Path, call: Run) -> None:
    assert call("mkdir", "-p", image, "/srv/deep") == (0, "")
    for _ in range(2):
        assert call("copy-in", image, local, local / "a" / "file", f"{local}/a/", "/srv/deep") == (0, "")
        checked(tool, image)
        same(image, "/srv/deep/local", local)
    assert call("copy-in", image, f"{local}/.", "srv/deep/a/empty") == (0, "")
    same(image, "/srv/deep/local", local)
    with open_tree(image) as tree:
        assert tree.list("/srv/deep") == ["a", "file", "local"]
        assert "fifo" in tree.list("/srv/deep/a/empty")
    for words, text in (
        ((local / "none", "/srv"), f"{local}/none: cannot be read to be copied: No such file or directory"),
        ((local, "/none"), f"{image}, the whole disk, /none: does not exist"),
        (
            (local, "/srv/deep/file"),
            f"{image}, the whole disk, /srv/deep/file: is not a directory; files are copied into one, under their own "
            "names",
        ),
    ):
        assert call("copy-in", image, *words) == (1, f"pydiskimg: {text}\n")
    checked(tool, image)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_tar_in(tool: Tool, image: Path, local: Path, tmp_path: Path, call: Run, mode: Any) -> None:
    with tarfile.open(tmp_path / "files.tar", mode, format=tarfile.PAX_FORMAT) as tar:
        for path in [local, *sorted(local.rglob("*"))]:
            member = tar.gettarinfo(path, f"./{str(path)[len(str(local)) + 1 :]}".rstrip("/"))
            member.pax_headers = {"mtime": f"{path.lstat().st_mtime_ns // 10**9}.{path.lstat().st_mtime_ns % 10**9:09}"}
            if path.name == "b" or member.name == "./a/file":
                member.pax_headers["SCHILY.xattr.user.note"] = "noted"
            tar.addfile(member, io.BytesIO(path.read_bytes()) if member.isreg() else None)
    assert call("mkdir", image, "/t") == (0, "")
    assert call("tar-in", image, tmp_path / "files.tar", "/t") == (0, "")
    checked(tool, image)
    with open_tree(image, writable=True) as tree:  # tarfile has written the zeros of the hole
        tree.truncate("/t/a/sparse", 0)
        tree.truncate("/t/a/sparse", 3 * MIB)
        status = (local / "a" / "sparse").stat()
        tree.utime("/t/a/sparse", atime_ns=status.st_atime_ns, mtime_ns=status.st_mtime_ns)
    same(image, "/t", local)


def test_tar_in_refuses_a_hostile_archive_and_stays_sound(tool: Tool, image: Path, tmp_path: Path, call: Run) -> None:
    path = tmp_path / "hostile.tar"
    for name, link, text in (
        ("../etc/passwd", None, 'its path has ".." in it'),
        ("out/file", "/", "its path leads through an entry's symlink out of the target directory"),
        ("lost/x/y", "lost", "its path leads through more than 40 symlinks"),
    ):
        with tarfile.open(path, "w") as tar:
            if link is not None:
                member = tarfile.TarInfo(name.partition("/")[0])
                member.type, member.linkname = tarfile.SYMTYPE, link
                tar.addfile(member)
            tar.addfile(tarfile.TarInfo(name))
        call("mkdir", "-p", image, "/srv")
        status, message = call("tar-in", image, path, "/srv")
        assert (status, message) == (1, f"pydiskimg: {path}: entry {name}: {text}\n")
        checked(tool, image)
    path.write_bytes(b"not an archive")
    assert call("tar-in", image, path, "/")[0] == 1
    with open_tree(image) as tree:
        assert tree.list("/") == ["lost+found", "srv"]


def test_rm_and_mkdir(tool: Tool, image: Path, local: Path, call: Run) -> None:
    where = f"pydiskimg: {image}, the whole disk, "
    free = free_blocks(tool, image)
    assert call("mkdir", "-m", "1777", image, "tmp", "/x") == (0, "")
    assert call("mkdir", image, "/x") == (1, f"{where}/x: already exists; -p accepts a directory that exists\n")
    assert call("mkdir", image, "/none/x")[0] == 1
    assert call("mkdir", "-p", "-m", "700", image, "/x/y/z", "/x") == (0, "")
    assert call("copy-in", image, local, "/x/y") == (0, "")
    with open_tree(image) as tree:
        assert [tree.stat(path).st_mode & 0o7777 for path in ("/tmp", "/x/y", "/x/y/z")] == [0o1777, 0o755, 0o700]
    assert call("rm", image, "/x") == (1, f"{where}/x: is a directory; -r removes directories\n")
    assert call("rm", image, "/none") == (1, f"{where}/none: does not exist\n")
    assert call("rm", "-f", image, "/none", "/x/y/local/link") == (0, "")
    assert call("rm", "-rf", image, "/none", "/x") == (0, "")
    for words in (["rm", "-r", image, "/"], ["rm", image, "/"]):
        assert call(*words) == (1, f"{where}/: is the root directory, which cannot be moved or removed\n")
    assert call("mkdir", image, "/") == (1, f"{where}/: already exists; -p accepts a directory that exists\n")
    assert call("rm", "-r", image, "/etc/.") == (
        1,
        f"{where}/etc/.: ends in . or ..; name the directory by its own name\n",
    )
    assert call("rm", "-r", image, "/tmp") == (0, "")
    checked(tool, image)
    with open_tree(image) as tree:
        assert tree.list("/") == ["lost+found"]
    assert free_blocks(tool, image) == free


def free_blocks(tool: Tool, image: Path) -> str:
    found = run(tool("dumpe2fs"), "-h", image)
    return next(line for line in found.splitlines() if line.startswith("Free blocks:"))


def test_copy_in_of_two_files_of_one_name(image: Path, tmp_path: Path, call: Run) -> None:
    """As cp refuses them; directories of one name are joined."""
    for number in "12":
        (tmp_path / number / "d").mkdir(parents=True)
        (tmp_path / number / "file").write_text(number)
        (tmp_path / number / "d" / number).write_text(number)
        (tmp_path / number / "d" / "both").write_text(number)
    status, text = call("copy-in", image, tmp_path / "1" / "file", tmp_path / "2" / "file", "/")
    assert status == 1
    assert f"{tmp_path}/2/file: has the same name as {tmp_path}/1/file" in text
    assert call("copy-in", image, tmp_path / "1" / "d", tmp_path / "2" / "d", "/") == (0, "")
    with open_tree(image) as tree:
        assert "file" not in tree.list("/")
        assert tree.list("/d") == ["1", "2", "both"]
        assert tree.read("/d/both") == b"2", "the later one is kept, as by virt-copy-in"
    assert call("copy-in", image, tmp_path / "2" / "d", tmp_path / "1" / "d", "/") == (0, "")
    with open_tree(image) as tree:
        assert tree.read("/d/both") == b"1"


def test_the_help_says_which_file_of_two_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    for command, words in (
        ("copy-in", "where two of them have the same file, the later one is kept"),
        ("tar-in", "is replaced, also by a later one of TARBALL"),
    ):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        assert words in " ".join(capsys.readouterr().out.split())


def test_tar_in_of_two_files_of_one_name(image: Path, tmp_path: Path, call: Run) -> None:
    with tarfile.open(tmp_path / "two.tar", "w") as tar:
        for contents in (b"early", b"late"):
            member = tarfile.TarInfo("file")
            member.size = len(contents)
            tar.addfile(member, io.BytesIO(contents))
    assert call("tar-in", image, tmp_path / "two.tar", "/") == (0, "")
    with open_tree(image) as tree:
        assert tree.read("/file") == b"late"


def test_modes_that_are_none(call: Run) -> None:
    for mode in ("9", "10000", "-1", "0o7", ""):
        with pytest.raises(SystemExit):
            call("mkdir", f"--mode={mode}", "image", "/x")


def test_a_qcow2_is_changed_in_its_clusters(tool: Tool, image: Path, local: Path, tmp_path: Path, call: Run) -> None:
    qcow2 = tmp_path / "disk.qcow2"
    assert call("convert", "-O", "qcow2", image, qcow2) == (0, "")
    assert call("copy-in", qcow2, local, "/") == (0, "")
    assert call("rm", "-r", qcow2, "/lost+found") == (0, "")
    assert call("mkdir", qcow2, "/lost+found") == (0, "")
    assert call("check", qcow2) == (0, "")
    same(qcow2, "/local", local)
    image.unlink()
    assert call("convert", "-O", "raw", qcow2, image) == (0, "")
    checked(tool, image)


def test_an_image_is_not_copied_into_itself(image: Path, local: Path, tmp_path: Path, call: Run) -> None:
    """Also not as a backing file, by another name, in a directory, or from standard input."""
    layer, other = tmp_path / "layer.qcow2", tmp_path / "other"
    assert call("create", "-q", "-f", "qcow2", "-b", image, "-F", "raw", "-u", layer, "16M") == (0, "")
    other.hardlink_to(image)
    (local / "below").hardlink_to(layer)
    before = image.read_bytes()
    allowed = ("--allow-references", tmp_path)
    for command, where, found in (
        (("copy-in", image, local / "b", image, "/"), image, "the image itself"),
        (("copy-in", image, local / "b", other, "/"), other, "the image itself"),
        (("tar-in", image, other, "/"), other, "the image itself"),
        (("copy-in", *allowed, layer, image, "/"), image, f"a backing file of {layer}"),
        (("tar-in", *allowed, layer, image, "/"), image, f"a backing file of {layer}"),
        (("copy-in", *allowed, layer, local, "/"), local / "below", "the image itself"),
    ):
        text = f"pydiskimg: {where}: is {found}, and cannot be copied into it\n"
        assert call(*command) == (1, text)
    assert image.read_bytes() == before


def test_progress_of_copying(image: Path, local: Path, tmp_path: Path, call: Run) -> None:
    with tarfile.open(tmp_path / "files.tar", "w") as tar:
        tar.add(local, "local")
    size = (tmp_path / "files.tar").stat().st_size
    status, text = call("copy-in", "-p", image, local, local / "b", "/")
    assert status == 0
    first, second = text.splitlines()
    assert first.startswith("local: 100%, 7.81 KiB in ")  # its file of 3 MiB is a hole
    assert second.startswith("b: 100%, 7.81 KiB in ")
    status, text = call("tar-in", "-p", image, tmp_path / "files.tar", "/")
    assert status == 0
    assert f"files.tar: 100%, {format_size(size)} in " in text


def test_what_is_held_is_not_changed(image: Path, local: Path, call: Run) -> None:
    before = image.read_bytes()
    with image.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        status, message = call("copy-in", image, local, "/")
        assert (status, "is in use" in message or "locked" in message) == (1, True), message
        with pytest.raises(InUseError):
            open_tree(image, writable=True)
    assert image.read_bytes() == before


def test_an_open_disk_is_changed_and_stays_open(image: Path) -> None:
    with open_disk(image, writable=True) as disk:
        with open_tree(disk, writable=True) as tree:
            tree.write("/new", b"new")
        with open_tree(disk) as tree:
            assert tree.read("/new") == b"new"
    with open_image(image) as source, pytest.raises(ValueError, match="only a Disk can be changed"):
        open_tree(source, writable=True)  # type: ignore[call-overload]


@pytest.mark.parametrize("packed", ["w:", "w:gz", "w:xz"])
def test_tar_in_reads_a_pipe(tool: Tool, image: Path, call: Run, monkeypatch: pytest.MonkeyPatch, packed: Any) -> None:
    archive = io.BytesIO()
    with tarfile.open(mode=packed, fileobj=archive) as tar:
        for number in range(40):
            member = tarfile.TarInfo(str(number))
            member.size = number * 1000
            tar.addfile(member, io.BytesIO(random.Random(number).randbytes(member.size)))
    whole = archive.getvalue()
    for data, expected in ((whole, (0, "")), (whole[: len(whole) // 2], None), (b"", None)):
        ours, theirs = os.pipe()
        writer = threading.Thread(target=write_all, args=(theirs, data))
        writer.start()
        name = f"/dev/fd/{ours}"
        try:
            found = call("tar-in", image, name, "/")
        finally:
            os.close(ours)
            writer.join()
        if expected is None:
            assert (found[0], found[1].startswith(f"pydiskimg: {name}: ")) == (1, True)
        else:
            assert found == expected
        checked(tool, image)
    with open_tree(image) as tree:
        assert all(tree.read(f"/{number}") == random.Random(number).randbytes(number * 1000) for number in range(40))


def write_all(fd: int, data: bytes) -> None:
    with contextlib.suppress(BrokenPipeError), open(fd, "wb") as file:
        for start in range(0, len(data), 3000):
            file.write(data[start : start + 3000])
            file.flush()
