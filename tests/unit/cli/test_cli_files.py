# SPDX-License-Identifier: MIT
"""What the commands that change and copy files of an image print about a path that they cannot use."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pydiskimg.cli import main
from pydiskimg.images.create import new_overlay
from pydiskimg.units import MIB
from tests.fixtures.checkout import ROOT
from tests.fixtures.made_entries import filled, folder, regular, symlink

ODD = "no\n\x1b[2Jname\udcff"
SHOWN = r"no\n\x1b[2Jname\xff"
# The command, and what it says after the image's name and "the whole disk"; a path in it is shown as it was given.
REFUSED: list[tuple[list[str], str]] = [
    (["ls", "image", f"/{ODD}"], f"/{SHOWN}: does not exist"),
    (["cat", "image", f"/etc/{ODD}"], f"/etc/{SHOWN}: does not exist"),
    (["stat", "image", f"/file/{ODD}"], f"/file/{SHOWN}: does not exist: a part of its path is not a directory"),
    (["copy-in", "image", "file", f"/{ODD}"], f"/{SHOWN}: does not exist"),
    (["copy-out", "image", f"/{ODD}", "out"], f"/{SHOWN}: does not exist"),
    (["tar-in", "image", "t.tar", f"/{ODD}"], f"/{SHOWN}: does not exist"),
    (["tar-out", "image", f"/{ODD}", "new"], f"/{SHOWN}: does not exist"),
    (["rm", "image", f"/{ODD}"], f"/{SHOWN}: does not exist"),
    (["mkdir", "image", f"/{ODD}/below"], f"/{SHOWN}: does not exist; -p makes it, too"),
    (["cat", "image", "/etc"], "/etc: is not a regular file"),
    (
        ["tar-out", "image", "/file", "new"],
        "/file: is not a directory; copy-out copies a single file, and cat shows one",
    ),
    (["tar-in", "image", "t.tar", "/file"], "/file: is not a directory; an archive is unpacked into one"),
    (
        ["copy-in", "image", "file", "/file"],
        "/file: is not a directory; files are copied into one, under their own names",
    ),
    (["copy-out", "image", "/etc", "/missing", "out"], "/missing: does not exist"),
    (
        ["copy-out", "image", "/file", "/etc/file", "out"],
        "/etc/file: would replace the copy of /file, which has the same name; copy it elsewhere",
    ),
    (["rm", "image", "/etc"], "/etc: is a directory; -r removes directories"),
    (["rm", "image", "/"], "/: is the root directory, which cannot be moved or removed"),
    (["rm", "-r", "image", "/"], "/: is the root directory, which cannot be moved or removed"),
    (["rm", "-r", "image", "/etc/.."], "/etc/..: ends in . or ..; name the directory by its own name"),
    (["mkdir", "image", "/etc"], "/etc: already exists; -p accepts a directory that exists"),
    (["mkdir", "image", "/"], "/: already exists; -p accepts a directory that exists"),
    (["mkdir", "image", "/file"], "/file: already exists; -p accepts a directory that exists"),
    (["mkdir", "-p", "image", "/file"], "/file: is not a directory; remove or rename it first"),
    (["mkdir", "image", "/a/b"], "/a: does not exist; -p makes it, too"),
    (["mkdir", "image", "/file/b"], "/file/b: does not exist: a part of its path is not a directory"),
]
# Those about files of the system that the command runs on, or about IMAGE.
LOCAL = [
    (["copy-in", "image", ODD, "/"], f"{SHOWN}: cannot be read to be copied: No such file or directory"),
    (["copy-out", "image", "/etc", ODD], f"{SHOWN}: cannot open the directory to copy into: No such file or directory"),
    (["copy-out", "image", "/etc", "file"], "file: cannot open the directory to copy into: Not a directory"),
    (["tar-in", "image", ODD, "/"], f"{SHOWN}: cannot open the archive: No such file or directory"),
    (["tar-out", "image", "/etc", f"{ODD}/new"], f"{SHOWN}/new: cannot create: No such file or directory"),
    (["ls", ODD, "/"], f"{SHOWN}: cannot open the image: No such file or directory"),
    (["rm", ODD, "/file"], f"{SHOWN}: cannot open the image: No such file or directory"),
]


@pytest.fixture(scope="module")
def made() -> bytes:
    entries = [folder("etc"), folder("etc/empty"), regular("etc/file", b"2"), regular("file", b"1")]
    return bytes(filled([*entries, symlink("to", "etc")], size=8 * MIB).data)


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: bytes) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "image").write_bytes(made)
    (tmp_path / "file").write_bytes(b"local")
    (tmp_path / "out").mkdir()
    tarfile.open("t.tar", "w").close()
    return tmp_path / "image"


def refused(image: Path, words: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    before, files = image.read_bytes(), sorted(os.listdir())
    assert main(words) == 1
    assert capsys.readouterr() == ("", f"pydiskimg: {text}\n")
    assert (image.read_bytes(), sorted(os.listdir()), os.listdir("out")) == (before, files, [])


@pytest.mark.parametrize(("words", "text"), REFUSED)
def test_a_path_that_is_not_for_the_command(
    image: Path, words: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(image, words, f"image, the whole disk, {text}", capsys)


@pytest.mark.parametrize(("words", "text"), LOCAL)
def test_a_local_file_that_is_not_for_the_command(
    image: Path, words: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(image, words, text, capsys)


@pytest.mark.parametrize(
    "words",
    [
        ["bmap", "-o", "image", "image"],
        ["bmap", "-o", "other", "./image"],
        ["show", "-o", "other", "image"],
        ["show", "-o", "image", "image"],
        ["tar-out", "image", "/etc", "other"],
        ["tar-out", "image", "/etc", "image"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_the_image_is_not_replaced_by_the_result(
    image: Path, words: list[str], link: Callable[[str, str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    link("image", "other")
    named = words[3] if words[0] == "tar-out" else words[2]
    refused(image, words, f"{named}: is both source and destination; nothing was written", capsys)


def test_the_image_is_not_replaced_by_a_copy_of_the_same_name(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.rename("image", "file")
    before = Path("file").read_bytes()
    capsys.readouterr()
    assert main(["copy-out", "file", "/file", "."]) == 1
    text = "pydiskimg: ./file: is the image itself, which a copy of /file would replace; copy it elsewhere\n"
    assert capsys.readouterr().err == text
    assert Path("file").read_bytes() == before
    assert main(["copy-out", "file", "/file", "out"]) == 0


@pytest.mark.parametrize("below", ["etc/file", "linked"])
def test_the_image_is_not_replaced_below_the_directory(
    image: Path, below: str, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkdir("out/etc")
    os.rename("image", "out/etc/file" if below == "etc/file" else "out/linked")
    if below == "linked":
        os.link("out/linked", "out/etc/file")
    before = Path("out", below).read_bytes()
    capsys.readouterr()
    assert main(["copy-out", f"out/{below}", "/", "out"]) == 1
    text = "entry etc/file: it would replace a file that the copy is read from; copy it elsewhere\n"
    assert capsys.readouterr().err.endswith(text)
    assert Path("out", below).read_bytes() == before
    assert os.stat(f"out/{below}").st_nlink == (1 if below == "etc/file" else 2)


def test_a_backing_file_is_not_replaced_below_the_directory(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkdir("out/etc")
    os.rename("image", "out/etc/file")
    before = Path("out/etc/file").read_bytes()
    new_overlay("top", len(before), backing_file=b"out/etc/file", backing_format=b"raw")
    assert main(["copy-out", "--allow-references", ".", "top", "/", "out"]) == 1
    assert "it would replace a file that the copy is read from" in capsys.readouterr().err
    assert Path("out/etc/file").read_bytes() == before


def test_an_archive_does_not_go_into_its_image(image: Path) -> None:
    before = image.read_bytes()
    with image.open("r+b") as output:
        words = [sys.executable, "-m", "pydiskimg", "tar-out", "image", "/", "-"]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(words, stdout=output, stderr=subprocess.PIPE, env=environment, check=False)
    assert done.stderr == b"pydiskimg: -: is both source and destination; nothing was written\n"
    assert (done.returncode, image.read_bytes()) == (1, before)


@pytest.mark.parametrize(
    "words",
    [
        *(["ls", "image", ""], ["ls", "image", "-l", ""], ["cat", "image", ""], ["stat", "image", ""]),
        ["rm", "-rf", "image", ""],
        *(["mkdir", "-p", "image", ""], ["copy-in", "image", "file", ""], ["copy-out", "image", "", "out"]),
        *(["tar-in", "image", "t.tar", ""], ["tar-out", "image", "", "new"]),
    ],
    ids=" ".join,
)
def test_an_empty_path_is_not_the_root(image: Path, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    before, files = image.read_bytes(), sorted(os.listdir())
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert "the path is empty; / is the root directory" in capsys.readouterr().err
    assert (image.read_bytes(), sorted(os.listdir()), os.listdir("out")) == (before, files, [])


def test_what_is_close_to_that_and_done(image: Path) -> None:
    assert main(["mkdir", "-p", "image", "/", "/etc", "/etc/more/below"]) == 0
    assert main(["rm", "-f", "image", "/missing"]) == 0
    assert main(["copy-out", "image", "/etc", "/to", "/etc", "out"]) == 0
    assert sorted(os.listdir("out")) == ["etc", "to"]
    assert sorted(os.listdir("out/etc")) == ["empty", "file", "more"]
    assert main(["tar-out", "image", "/to", "new"]) == 0
    with tarfile.open("new") as archive:
        assert archive.getnames() == [".", "./empty", "./file", "./more", "./more/below"]
