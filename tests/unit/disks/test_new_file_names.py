# SPDX-License-Identifier: MIT
"""Names under which no new file is made: those of directories and of devices that do not exist."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from pydiskimg.cli import main

MAKERS = [
    ["create", "NAME", "1M"],
    ["create", "-f", "qcow2", "NAME", "1M"],
    ["create", "-f", "qcow2", "-b", "BASE", "-F", "raw", "NAME"],
    ["create", "-f", "qcow2", "-u", "-b", "x", "-F", "raw", "NAME", "1M"],
    ["convert", "source", "NAME"],
    ["convert", "-O", "qcow2", "source", "NAME"],
    ["convert", "--verify", "source", "NAME"],
    ["mkfs", "--create", "16M", "NAME"],
    ["mkfs", "--force", "--create", "16M", "NAME"],
    ["mkswap", "--create", "16M", "NAME"],
]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pydiskimg.cli.signals.end_as_interrupted", lambda: None)
    (tmp_path / "source").write_bytes(bytes(1 << 20))
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there")
    return tmp_path


def filled(words: list[str], name: str | Path) -> list[str]:
    places = {"NAME": str(name), "BASE": os.path.abspath("source")}
    return [places.get(word, word) for word in words]


def contents(path: Path) -> list[Path]:
    return sorted(path.rglob("*"))


def refusal(capsys: pytest.CaptureFixture[str], words: list[str], name: str) -> str:
    assert main(filled(words, name)) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    return err


@pytest.mark.parametrize("words", MAKERS, ids=" ".join)
@pytest.mark.parametrize(
    "name", ["missing/", "missing//", "missing/.", "there/", "there/.", "there/..", "link/", ".", "..", "source/", "/"]
)
def test_the_name_of_a_directory(capsys: pytest.CaptureFixture[str], place: Path, words: list[str], name: str) -> None:
    before = contents(place)
    said = refusal(capsys, words, name)
    assert said == f"pydiskimg: {name}: names a directory; expected the name of a file\n"
    assert contents(place) == before


@pytest.mark.parametrize("words", MAKERS, ids=" ".join)
@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("there", "exists and is not a regular file; expected a file, or a block device"),
        ("link", "exists and is not a regular file; expected a file, or a block device"),
        ("missing/file", "cannot create: No such file or directory"),
        ("missing/../file", "cannot create: No such file or directory"),
        ("source/file", "cannot create: Not a directory"),
        ("/proc/pydiskimg", "cannot create: No such file or directory"),
        ("/dev/null", "exists and is not a regular file; expected a file, or a block device"),
    ],
)
def test_other_names(capsys: pytest.CaptureFixture[str], place: Path, words: list[str], name: str, end: str) -> None:
    before = contents(place)
    assert refusal(capsys, words, name) == f"pydiskimg: {name}: {end}\n"
    assert contents(place) == before


@pytest.fixture
def no_device() -> Iterator[Path]:
    path = Path("/dev/pydiskimg-no-such-device")
    yield path
    with suppress(OSError):
        path.unlink()


@pytest.mark.parametrize("words", MAKERS, ids=" ".join)
def test_a_device_that_does_not_exist(
    capsys: pytest.CaptureFixture[str], place: Path, no_device: Path, words: list[str]
) -> None:
    (place / "to-a-device").symlink_to(no_device)
    for name in (str(no_device), "to-a-device"):
        said = refusal(capsys, words, name)
        assert said == f"pydiskimg: {no_device}: is not a device, and no file is made among the devices of /dev; " + (
            "check the name\n"
        )
        assert not no_device.exists()


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="there is no /dev/shm")
@pytest.mark.parametrize("words", MAKERS, ids=" ".join)
def test_shared_memory_is_below_dev_and_holds_files(place: Path, words: list[str]) -> None:
    path = Path(f"/dev/shm/pydiskimg-{os.getpid()}")
    try:
        assert main(filled(words, path)) == 0
        assert path.is_file()
    finally:
        path.unlink(missing_ok=True)


@pytest.mark.parametrize("words", MAKERS, ids=" ".join)
def test_a_symlink_to_nothing_gets_its_file(place: Path, words: list[str]) -> None:
    (place / "dangling").symlink_to("there/new")
    assert main(filled(words, "dangling")) == 0
    assert (place / "there" / "new").is_file()
    assert (place / "dangling").is_symlink()
