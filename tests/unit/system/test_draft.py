# SPDX-License-Identifier: MIT
"""Draft: what is computed, and that nothing is written before write()."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from pydiskimg.files.mounted_tree import open_mounted_tree
from pydiskimg.files.tree import Tree
from pydiskimg.system.edits.draft import Draft, GuestError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/motd").write_text("old\n")
    return tmp_path


@pytest.fixture
def draft(root: Path) -> Iterator[Draft]:
    with open_mounted_tree(root) as tree:
        yield Draft(tree)


def written(draft: Draft) -> int:
    return draft.write(lambda path: 0)


def test_a_new_file_gets_its_mode_and_the_directories_above_it(draft: Draft, root: Path) -> None:
    draft.change("/etc/a/b/key", b"secret", "a key", mode=0o600)
    assert draft.read("/etc/a/b/key") == b"secret"
    assert draft.is_file("/etc/a/b/key")
    assert draft.files("/etc/a/b", "*") == ["/etc/a/b/key"]
    assert not (root / "etc/a").exists()
    before = os.umask(0o077)
    try:
        assert written(draft) == 1
    finally:
        os.umask(before)
    assert (root / "etc/a/b/key").stat().st_mode & 0o7777 == 0o600
    assert (root / "etc/a").stat().st_mode & 0o7777 == 0o755


def test_what_is_removed_is_not_there_for_what_follows(draft: Draft, root: Path) -> None:
    draft.remove("/etc/motd", "removed")
    assert draft.read("/etc/motd") is None
    assert not draft.exists("/etc/motd")
    assert not draft.is_file("/etc/motd")
    assert draft.files("/etc", "m*") == []
    assert (root / "etc/motd").exists()
    assert written(draft) == 1
    assert not (root / "etc/motd").exists()


def test_what_is_removed_can_be_made_again(draft: Draft, root: Path) -> None:
    draft.remove("/etc/motd", "removed")
    draft.change("/etc/motd", b"new\n", "made", mode=0o600)
    assert written(draft) == 1
    assert (root / "etc/motd").read_text() == "new\n"


def test_what_was_to_be_made_and_is_removed_never_was(draft: Draft, root: Path) -> None:
    draft.change("/etc/new", b"", "made")
    draft.remove("/etc/new", "removed")
    draft.remove("/etc/nothing", "removed")
    assert written(draft) == 0
    assert os.listdir(root / "etc") == ["motd"]


def test_a_link_is_made_where_nothing_is(draft: Draft, root: Path) -> None:
    draft.symlink("/etc/init.d/net.eth0", "/etc/motd", "a link")
    draft.symlink("/etc/motd", "/etc/other", "a link")
    assert draft.read("/etc/init.d/net.eth0") == b"old\n"
    assert written(draft) == 1
    assert (root / "etc/init.d/net.eth0").readlink() == Path("/etc/motd")
    assert (root / "etc/motd").read_text() == "old\n"


def test_a_symlink_itself_is_removed(draft: Draft, root: Path) -> None:
    (root / "etc/link").symlink_to("motd")
    draft.remove("/etc/link", "removed")
    written(draft)
    assert sorted(os.listdir(root / "etc")) == ["motd"]


def test_a_directory_in_the_place_of_a_file_is_named(draft: Draft, root: Path) -> None:
    (root / "etc/dir").mkdir()
    draft.change("/etc/motd", b"new\n", "x")
    with pytest.raises(GuestError, match=r"^/etc/dir in the guest: is a directory; expected a file or symlink"):
        draft.remove("/etc/dir", "removed")
    assert (root / "etc/motd").read_text() == "old\n"


def test_too_many_files_are_refused(draft: Draft, root: Path) -> None:
    for number in range(300):
        (root / f"etc/f{number}").touch()
    with pytest.raises(GuestError, match="300 names match"):
        draft.files("/etc", "f*")


def test_a_directory_of_very_many_names_is_listed_once_and_refused() -> None:
    class ManyNames:
        calls = 0

        def list(self, _path: str) -> list[str]:
            self.calls += 1
            return [f"{number}.conf" for number in range(1 << 17)]

    tree = ManyNames()
    draft = Draft(cast(Tree, tree))
    for pattern in ("*", "a", "*.network"):
        with pytest.raises(GuestError, match=r"^/etc: contains 131072 names; at most 65536 are read"):
            draft.files("/etc", pattern)
    assert tree.calls == 1
