# SPDX-License-Identifier: MIT
"""A directory copied over a guest's tree: what is replaced, what stays, and that nothing outside is reached."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pydiskimg.errors import ArchiveError, StorageError
from pydiskimg.files.copy import copy_directory
from tests.archive_trees import differences, odd_tree, picture, sparse_tree

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "overlay").mkdir()
    return tmp_path / "overlay"


@pytest.fixture
def guest(tmp_path: Path) -> Path:
    (tmp_path / "guest").mkdir()
    return tmp_path / "guest"


def put(root: Path, path: str, text: str = "new") -> Path:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_everything_is_copied_as_it_is(source: Path, guest: Path, umask: int) -> None:
    odd_tree(source)
    sparse_tree(source / "sparse")
    calls: list[tuple[int, int]] = []
    before = os.umask(umask)
    try:
        copied = copy_directory(str(source), str(guest), progress=lambda done, total: calls.append((done, total)))
    finally:
        os.umask(before)
    different = differences(guest, source)
    assert [line for line in different if not line.startswith("b'': ")] == []
    assert copied.entries == len(picture(source)) - 1
    assert calls == sorted(calls)
    assert calls[-1][0] <= calls[-1][1] < 64 << 20 < copied.bytes, "holes count"
    stored = sum(path.stat().st_blocks for path in (guest / "sparse").iterdir()) * 512
    assert stored < 64 << 20, "holes were filled"


def test_the_root_of_the_guest_keeps_what_it_has(source: Path, guest: Path) -> None:
    source.chmod(0o700)
    guest.chmod(0o755)
    os.utime(guest, ns=(1, 2))
    copy_directory(str(source), str(guest))
    assert guest.stat().st_mode & 0o7777 == 0o755
    assert guest.stat().st_mtime_ns == 2


def test_what_is_in_its_place_is_replaced(source: Path, guest: Path, tmp_path: Path) -> None:
    outside = put(tmp_path, "outside", "alive")
    put(source, "etc/file")
    put(source, "etc/was-a-symlink")
    put(source, "etc/was-a-fifo")
    (source / "etc/was-a-file").symlink_to("file")
    put(guest, "etc/file", "old").chmod(0o600)
    put(guest, "etc/other", "old")
    (guest / "etc/was-a-symlink").symlink_to(outside)
    os.mkfifo(guest / "etc/was-a-fifo")
    put(guest, "etc/was-a-file", "old")
    copy_directory(str(source), str(guest))
    for name in ("file", "was-a-symlink", "was-a-fifo", "was-a-file"):
        assert (guest / "etc" / name).read_text() == "new"
    assert (guest / "etc/was-a-file").readlink() == Path("file")
    assert (guest / "etc/other").read_text() == "old"
    assert outside.read_text() == "alive"


def test_a_file_of_several_names_keeps_its_contents_under_the_others(source: Path, guest: Path) -> None:
    put(guest, "a", "old")
    os.link(guest / "a", guest / "b")
    put(source, "a")
    copy_directory(str(source), str(guest))
    assert ((guest / "a").read_text(), (guest / "b").read_text()) == ("new", "old")


@pytest.mark.parametrize("link", ["usr/lib", "/usr/lib", "./usr/../usr/lib", "../../../usr/lib"])
def test_a_symlink_to_a_directory_stays(source: Path, guest: Path, link: str) -> None:
    (guest / "usr/lib").mkdir(parents=True)
    (guest / "usr/lib").chmod(0o711)
    (guest / "lib").symlink_to(link)
    put(source, "lib/modules/x")
    copy_directory(str(source), str(guest))
    assert os.readlink(guest / "lib") == link
    assert (guest / "usr/lib/modules/x").read_text() == "new"
    assert (guest / "usr/lib").stat().st_mode & 0o7777 == 0o711


@pytest.mark.parametrize("link", ["{outside}", "../outside", "/proc/self/root{outside}", "nowhere", "lib", "file"])
def test_a_symlink_that_leads_to_no_directory_of_the_guest_is_replaced(
    source: Path, guest: Path, tmp_path: Path, link: str
) -> None:
    outside = tmp_path / "outside"
    put(outside, "x", "alive")
    put(guest, "file", "old")
    (guest / "lib").symlink_to(link.format(outside=outside))
    put(source, "lib/x")
    before = picture(outside)
    copy_directory(str(source), str(guest))
    assert (guest / "lib").is_dir()
    assert not (guest / "lib").is_symlink()
    assert (guest / "lib/x").read_text() == "new"
    assert picture(outside) == before


def test_symlinks_of_the_overlay_are_not_followed(source: Path, guest: Path, tmp_path: Path) -> None:
    put(tmp_path, "secret/file")
    (source / "file").symlink_to(tmp_path / "secret/file")
    (source / "directory").symlink_to(tmp_path / "secret")
    copy_directory(str(source), str(guest))
    assert (guest / "file").is_symlink()
    assert (guest / "directory").is_symlink()
    assert sorted(os.listdir(guest)) == ["directory", "file"]


def test_an_overlay_that_is_a_symlink(source: Path, guest: Path, tmp_path: Path) -> None:
    put(source, "x")
    (tmp_path / "link").symlink_to("overlay")
    assert copy_directory(str(tmp_path / "link"), str(guest)).entries == 1
    assert (guest / "x").read_text() == "new"


def test_a_full_directory_in_the_place_of_a_file_is_refused(source: Path, guest: Path) -> None:
    put(guest, "etc/x", "old")
    put(source, "etc")
    with pytest.raises(ArchiveError, match=f"{source}: entry etc: it would replace a directory that is not empty"):
        copy_directory(str(source), str(guest))
    assert (guest / "etc/x").read_text() == "old"


def test_a_missing_guest(source: Path, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot open the directory to copy into: No such file"):
        copy_directory(str(source), str(tmp_path / "no"))


def test_names_that_are_no_utf_8(source: Path, guest: Path) -> None:
    path = os.fsencode(source) + b"/d\xff"
    os.mkdir(path)
    with open(path + b"/f\xfe", "wb") as file:
        file.write(b"x")
    copy_directory(str(source), str(guest))
    assert os.listdir(os.fsencode(guest) + b"/d\xff") == [b"f\xfe"]


def test_what_cannot_be_read_is_named(source: Path, guest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(source, "a/b")
    real = os.open

    def refusing(path: object, *words: object, **more: object) -> int:
        if path == b"b" and words == (os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC,):
            raise PermissionError(13, "no")
        return real(path, *words, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refusing)
    with pytest.raises(StorageError, match=f"{source}/a/b: cannot be read to be copied: Permission denied"):
        copy_directory(str(source), str(guest))
