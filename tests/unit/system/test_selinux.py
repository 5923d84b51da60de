# SPDX-License-Identifier: MIT
"""SELinux labels of new files: which line of a policy decides, and policies that are hostile."""

from __future__ import annotations

import errno
import logging
import os
import re
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from pydiskimg.errors import StorageError
from pydiskimg.files.mounted_tree import MountedTree, open_mounted_tree
from pydiskimg.system.edits.draft import Draft
from pydiskimg.system.edits.selinux import ATTRIBUTE, DIRECTORY, FILE, SYMLINK, Labels
from tests.fixtures.odd_files import put_odd_file

FILES = "etc/selinux/targeted/contexts/files"
LINES = """\
# a comment that has three words
/.*\t\tsystem_u:object_r:default_t:s0
/etc(/.*)?\tsystem_u:object_r:etc_t:s0
/etc/ssh/ssh_host.*_key\t--\tsystem_u:object_r:sshd_key_t:s0
/etc/hostname\t--\tsystem_u:object_r:hostname_t:s0
/etc/host.*\tsystem_u:object_r:late_t:s0
/etc/link -l system_u:object_r:link_t:s0
/etc/nothing(/.*)? <<none>>
/usr/lib/systemd/system(/.*)? system_u:object_r:unit_t:s0
"""


class Guest:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.write("etc/selinux/config", "# as installed\nSELINUX=enforcing\nSELINUXTYPE=targeted\n")
        self.write(f"{FILES}/file_contexts", LINES)

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def label(self, path: str, kind: str = FILE) -> str | None:
        with open_mounted_tree(self.root) as tree:
            return text(Labels(tree).attributes(path, kind))


def text(attributes: dict[str, bytes]) -> str | None:
    if not attributes:
        return None
    ((name, value),) = attributes.items()
    assert name == ATTRIBUTE
    assert value.endswith(b"\0")
    return value[:-1].decode().split(":")[2]


@pytest.fixture
def guest(tmp_path: Path) -> Guest:
    return Guest(tmp_path)


@pytest.mark.parametrize(
    ("path", "kind", "label"),
    [
        ("/srv/x", FILE, "default_t"),
        ("/etc/x", FILE, "etc_t"),
        ("/etc/x", DIRECTORY, "etc_t"),
        ("/etc/ssh/ssh_host_rsa_key", FILE, "sshd_key_t"),
        ("/etc/ssh/ssh_host_rsa_key", SYMLINK, "etc_t"),
        ("/etc/ssh/ssh_host_rsa_key.pub", FILE, "etc_t"),
        ("/etc/hostname", FILE, "hostname_t"),  # without a wildcard it counts more than the later line
        ("/etc/hosts", FILE, "late_t"),
        ("/etc/link", SYMLINK, "link_t"),
        ("/etc/nothing/x", FILE, None),
    ],
)
def test_the_last_line_that_matches_decides(guest: Guest, path: str, kind: str, label: str | None) -> None:
    assert guest.label(path, kind) == label


def test_local_and_home_directories_and_aliases(guest: Guest) -> None:
    guest.write(f"{FILES}/file_contexts.homedirs", "/root/\\.ssh(/.*)? system_u:object_r:ssh_home_t:s0\n")
    assert guest.label("/root/.ssh/authorized_keys") == "ssh_home_t"
    guest.write(f"{FILES}/file_contexts.local", "/root/.* system_u:object_r:local_t:s0\n")
    assert guest.label("/root/.ssh/authorized_keys") == "local_t"
    guest.write(f"{FILES}/file_contexts.subs_dist", "# x\n/etc/systemd/system /usr/lib/systemd/system\n/run /usr/lib\n")
    guest.write(f"{FILES}/file_contexts.subs", "/elsewhere /etc\n/all /\n")
    assert guest.label("/etc/systemd/system/x.service") == "unit_t"
    assert guest.label("/run/systemd/system/x.service") == "unit_t"
    assert guest.label("/elsewhere/systemd/system") == "unit_t"  # both, one after the other
    assert guest.label("/all/etc/hosts") == "late_t"
    assert guest.label("/elsewheres") == "default_t"


@pytest.mark.parametrize(
    ("config", "label"),
    [
        ("SELINUX=enforcing\n", "etc_t"),
        ("SELINUX = permissive\nSELINUXTYPE=targeted\n", "etc_t"),
        ("SELINUX=Enforcing\r\n", "etc_t"),
        ("SELINUX=disabled\nSELINUXTYPE=targeted\n", None),
        ("#SELINUX=enforcing\n", None),
        ("SELINUX=enforcing\nSELINUXTYPE=mls\n", None),
        ("SELINUX=enforcing\nSELINUXTYPE=../../tmp\n", None),
        ("", None),
    ],
)
def test_only_where_the_guest_uses_it(guest: Guest, config: str, label: str | None) -> None:
    guest.write("etc/selinux/config", config)
    assert guest.label("/etc/x") == label


def test_a_guest_without_it_has_no_labels(tmp_path: Path) -> None:
    with open_mounted_tree(tmp_path) as tree:
        assert Labels(tree).attributes("/etc/x", FILE) == {}


@pytest.mark.parametrize("what", ["fifo", "directory", "large", "loop"])
@pytest.mark.parametrize("path", ["etc/selinux/config", f"{FILES}/file_contexts", f"{FILES}/file_contexts.subs"])
def test_files_that_are_none_are_told_and_give_no_label(
    guest: Guest, what: str, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = guest.root / path
    file.unlink(missing_ok=True)
    put_odd_file(file, what, link=file.name)
    assert guest.label("/etc/x") is None
    assert f"/{path}" in caplog.text
    assert "/etc/x gets no SELinux label" in caplog.text


def test_patterns_that_are_not_understood_are_named(guest: Guest, caplog: pytest.LogCaptureFixture) -> None:
    guest.write(f"{FILES}/file_contexts", "/etc/(a)\\1 x:y:z:s0\n/etc/[a x:y:z:s0\n")
    assert guest.label("/etc/x") is None
    assert f"/{FILES}/file_contexts:2 has a [ without ], which is not supported here" in caplog.text


@pytest.mark.parametrize("line", ["/(a*)*b x:y:z:s0", "/.*.*.*.*x x:y:z:s0", "/" + "a?" * 500 + "b x:y:z:s0"])
def test_a_hostile_policy_takes_no_time(guest: Guest, line: str, caplog: pytest.LogCaptureFixture) -> None:
    guest.write(f"{FILES}/file_contexts", f"{line}\n" * min(40_000, (3 << 20) // (len(line) + 1)))
    started = time.monotonic()
    with open_mounted_tree(guest.root) as tree:
        labels = Labels(tree)
        for _ in range(20):
            assert labels.attributes("/" + "a" * 60, FILE) == {}
    assert time.monotonic() - started < 30
    assert "too many steps" in caplog.text


# As many lines as a file may have bytes for, and lines as long as it may be.
_LARGE = {
    "many": b"/etc/x.* x:y:z:s0\n",
    "many stems": b"".join(b"/%x/a x:y:z:s0\n" % number for number in range(200_000)),
    "any": b"/.*q x:y:z:s0\n",
    "long": b"/etc/x" + b"\\." * 1_500_000 + b" x:y:z:s0\n",
    "groups": b"/etc/x" + b"()" * 500_000 + b" x:y:z:s0\n",
}


@pytest.mark.parametrize("line", _LARGE.values(), ids=_LARGE)
def test_a_policy_of_too_many_lines_or_bytes_is_not_read(
    guest: Guest, line: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("file_contexts", "file_contexts.homedirs", "file_contexts.local"):
        (guest.root / FILES / name).write_bytes(line * ((4 << 20) // len(line)))
    tracemalloc.start()
    started = time.monotonic()
    try:
        assert guest.label("/etc/x") is None
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()
    assert time.monotonic() - started < 20
    assert re.search(r"more than 40000 lines|a pattern of \d+ bytes; at most 8192 are read", caplog.text)


@pytest.mark.parametrize("name", ["file_contexts.subs", "file_contexts.subs_dist"])
def test_aliases_without_end_are_not_read(guest: Guest, name: str, caplog: pytest.LogCaptureFixture) -> None:
    guest.write(f"{FILES}/{name}", "/a /b\n" * 600_000)
    assert guest.label("/etc/x") is None
    assert f"/{FILES}/{name}: has more than 40000 lines" in caplog.text


class Recorder:
    """A Tree that notes the attributes of what is made; the file system of a test need not take them."""

    def __init__(self, tree: MountedTree, made: dict[str, str | None]) -> None:
        self._tree, self._made = tree, made

    def __getattr__(self, name: str) -> object:
        method = getattr(self._tree, name)
        if name not in ("write", "make_directory", "symlink"):
            return method

        def noted(path: str, *arguments: object, attributes: dict[str, bytes], **options: object) -> object:
            self._made[path] = text(attributes)
            return method(path, *arguments, **options)

        return noted


@pytest.fixture
def made() -> dict[str, str | None]:
    return {}


@pytest.fixture
def draft(guest: Guest, made: dict[str, str | None]) -> Iterator[Draft]:
    with open_mounted_tree(guest.root) as tree:
        yield Draft(Recorder(tree, made))  # type: ignore[arg-type]


def test_what_is_new_in_a_draft_gets_its_label(draft: Draft, guest: Guest, made: dict[str, str | None]) -> None:
    guest.write("etc/hosts", "old\n")
    draft.change("/etc/hosts", b"new\n", "edited: it keeps its label")
    draft.change("/etc/ssh/ssh_host_rsa_key", b"key", "new", mode=0o600)
    draft.symlink("/etc/link", "/etc/hosts", "new")
    draft.make_directory("/usr/lib/systemd/system", "new", mode=0o700)
    draft.write(lambda _: 0)
    assert made == {
        "/etc/ssh": "etc_t",
        "/etc/ssh/ssh_host_rsa_key": "sshd_key_t",
        "/etc/link": "link_t",
        "/usr": "default_t",
        "/usr/lib": "default_t",
        "/usr/lib/systemd": "default_t",
        "/usr/lib/systemd/system": "unit_t",
    }
    assert (guest.root / "usr/lib/systemd/system").stat().st_mode & 0o777 == 0o700


def test_the_policy_is_read_once(draft: Draft, guest: Guest, caplog: pytest.LogCaptureFixture) -> None:
    (guest.root / FILES / "file_contexts").unlink()
    with caplog.at_level(logging.WARNING):
        for number in range(5):
            draft.change(f"/etc/{number}", b"", "new")
        draft.write(lambda _: 0)
    assert len(re.findall("has no lines", caplog.text)) == 1


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM])
def test_what_takes_no_label_is_made_without(
    draft: Draft, guest: Guest, number: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Recorder, "__getattr__", lambda self, name: getattr(self._tree, name))
    monkeypatch.setattr(os, "setxattr", refuse)
    draft.change("/etc/ssh/key", b"key", "new", mode=0o600)
    draft.symlink("/etc/link", "/etc/hosts", "new")
    if number == errno.EPERM:
        with pytest.raises(StorageError, match=r"/etc/(link|ssh) in the guest's tree"):
            draft.write(lambda _: 0)
        return
    draft.write(lambda _: 0)
    assert (guest.root / "etc/ssh/key").read_bytes() == b"key"
    assert (guest.root / "etc/link").is_symlink()
    for path in ("/etc/ssh", "/etc/ssh/key", "/etc/link"):
        assert f"{path} gets no SELinux label: {path} in the guest's tree" in caplog.text
