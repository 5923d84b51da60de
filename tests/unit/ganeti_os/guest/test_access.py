# SPDX-License-Identifier: MIT
"""root's password and authorised keys: where they are written in each kind of system, and that no hash is shown."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ganeti_os.guest.access import give_access
from ganeti_os.guest.accounts import with_password
from ganeti_os.install import scripts
from ganeti_os.settings.authorized_keys import keys_of_settings, parse_keys
from ganeti_os.settings.parameters import read_parameters
from ganeti_os.settings.settings import Layer, Paths, Settings, read_settings
from ganeti_os.settings.shellfile import SettingsError
from ganeti_os.settings.table import SETTINGS
from pydiskimg.errors import DiskImageError, StorageError
from pydiskimg.files.mounted_tree import open_mounted_tree
from pydiskimg.system.edits.draft import Draft, GuestError
from tests.fixtures.node import Node, last_line
from tests.fixtures.odd_files import put_odd_file

HASH = "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$X3DX6M94c7o.9agCG9G317fhZg9SqC.5i5rd.RhAtQ7"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA== me@example.org"
OTHER = 'command="echo a b",no-pty ssh-rsa AAAAB3NzaC1yc2EAAAADAQAB'
PASSWD = "daemon:x:1:1::/usr/sbin:/bin/false\nroot:x:0:0:root:/root:/bin/bash\ntoor:x:0:0::/root:\n"
SHADOW = "daemon:*:19000:0:99999:7:::\nroot:$6$old$old:19000:0:99999:7:::\n"


class Guest:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.write("etc/passwd", PASSWD)
        self.write("etc/shadow", SHADOW)
        (root / "root").mkdir()

    def write(self, path: str, text: str) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def give(self, *, password: str = "", keys: str = "", file: str = "") -> None:
        settings = Settings.from_layers([])
        settings = replace(settings, root_password_hash=password, authorized_keys=keys, authorized_keys_file=file)
        with open_mounted_tree(self.root) as tree:
            draft = Draft(tree)
            give_access(draft, settings)
            draft.write(lambda _: 0)

    def read(self, path: str) -> str:
        return (self.root / path).read_text()


@pytest.fixture
def guest(tmp_path: Path) -> Guest:
    return Guest(tmp_path / "guest")


@pytest.fixture
def umask() -> Iterator[Callable[[int], int]]:
    old = os.umask(0o077)
    yield os.umask
    os.umask(old)


def today() -> int:
    return int(time.time()) // 86400


def test_nothing_given_is_nothing_changed(guest: Guest) -> None:
    guest.give()
    assert (guest.read("etc/passwd"), guest.read("etc/shadow")) == (PASSWD, SHADOW)
    assert not (guest.root / "root/.ssh").exists()


def test_the_password_in_shadow(guest: Guest, caplog: pytest.LogCaptureFixture) -> None:
    (guest.root / "etc/shadow").chmod(0o640)
    with caplog.at_level(logging.DEBUG):
        guest.give(password=HASH)
    assert guest.read("etc/passwd") == PASSWD
    assert guest.read("etc/shadow") == f"daemon:*:19000:0:99999:7:::\nroot:{HASH}:{today()}:0:99999:7:::\n"
    assert (guest.root / "etc/shadow").stat().st_mode & 0o777 == 0o640
    assert "/etc/shadow: root's password" in caplog.text
    assert HASH not in caplog.text


@pytest.mark.parametrize(
    ("shadow", "expected"),
    [
        ("", "root:{}:{}:0:99999:7:::\n"),
        ("daemon:*:1::::::", "daemon:*:1::::::\nroot:{}:{}:0:99999:7:::\n"),
        ("root:*", "root:{}:{}"),
        ("root::0:0:99999:7:::\r\n", "root:{}:{}:0:99999:7:::\r\n"),
        ("xroot:a:1::::::\nroot:!:1:2:3:4:5:6:7\n", "xroot:a:1::::::\nroot:{}:{}:2:3:4:5:6:7\n"),
    ],
)
def test_shadow_files_of_any_form(guest: Guest, shadow: str, expected: str) -> None:
    (guest.root / "etc/shadow").write_bytes(shadow.encode())
    guest.give(password=HASH)
    assert (guest.root / "etc/shadow").read_bytes().decode() == expected.format(HASH, today())


def test_a_system_without_shadow_has_it_in_passwd(guest: Guest) -> None:
    (guest.root / "etc/shadow").unlink()
    guest.give(password=HASH)
    assert guest.read("etc/passwd") == PASSWD.replace("root:x:0:0:root", f"root:{HASH}:0:0:root")
    assert not (guest.root / "etc/shadow").exists()


def test_a_password_in_passwd_gives_way_to_shadow(guest: Guest) -> None:
    guest.write("etc/passwd", PASSWD.replace("root:x:", "root::"))
    guest.give(password="*")
    assert guest.read("etc/passwd") == PASSWD
    assert f"root:*:{today()}:" in guest.read("etc/shadow")


def test_an_account_of_its_own_has_its_own_shadow(guest: Guest) -> None:
    guest.write("etc/passwd", "admin:x:0:0::/home/admin:/bin/sh\n")
    guest.write("etc/tcb/admin/shadow", "admin:*:1::::::\n")
    guest.give(password=HASH, keys=KEY)
    assert guest.read("etc/tcb/admin/shadow") == f"admin:{HASH}:{today()}::::::\n"
    assert guest.read("etc/shadow") == SHADOW
    assert guest.read("home/admin/.ssh/authorized_keys") == f"{KEY}\n"


def test_keys_join_those_of_the_image_once(guest: Guest) -> None:
    file = guest.write("root/.ssh/authorized_keys", f"# mine\n{OTHER} her")
    file.chmod(0o644)
    guest.give(keys=f"{KEY}\n\n# a comment\n{OTHER}\n")
    assert file.read_text() == f"# mine\n{OTHER} her\n{KEY}\n"
    assert file.stat().st_mode & 0o777 == 0o644
    guest.give(keys=f"{KEY}\n{OTHER}")
    assert file.read_text() == f"# mine\n{OTHER} her\n{KEY}\n"


def test_new_files_are_roots_alone(guest: Guest, tmp_path: Path, umask: Callable[[int], int]) -> None:
    umask(0)
    keys = tmp_path / "keys"
    keys.write_text(f"{OTHER}\n")
    keys.chmod(0o600)
    guest.give(keys=KEY, file=str(keys))
    assert guest.read("root/.ssh/authorized_keys") == f"{KEY}\n{OTHER}\n"
    assert (guest.root / "root/.ssh/authorized_keys").stat().st_mode & 0o777 == 0o600
    assert (guest.root / "root/.ssh").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ("/etc/ssh/keys/%u .ssh/authorized_keys", "etc/ssh/keys/root"),
        ("%h/keys", "root/keys"),
        (".ssh/authorized_keys .ssh/authorized_keys2", "root/.ssh/authorized_keys"),
        ('"/etc/a%%h %U"', "etc/a%h 0"),
        ("../../../../etc/x", "etc/x"),
    ],
)
def test_the_file_that_sshd_reads(guest: Guest, value: str, path: str) -> None:
    guest.write("etc/ssh/sshd_config", "Include sshd_config.d/*.conf\n")
    guest.write("etc/ssh/sshd_config.d/a.conf", "Match User x\nAuthorizedKeysFile none\n")
    guest.write("etc/ssh/sshd_config.d/b.conf", f"  authorizedkeysfile={value} # c\nAuthorizedKeysFile /no\n")
    guest.give(keys=KEY)
    assert guest.read(path) == f"{KEY}\n"


def test_what_sshd_will_not_read_is_told(guest: Guest, caplog: pytest.LogCaptureFixture) -> None:
    guest.write("etc/ssh/sshd_config", "AuthorizedKeysFile none\n")
    guest.write("root/.ssh/authorized_keys", "").chmod(0o666)
    guest.give(keys=KEY)
    assert guest.read("root/.ssh/authorized_keys") == f"{KEY}\n"
    assert "sshd_config has AuthorizedKeysFile none" in caplog.text
    assert "/root/.ssh/authorized_keys: others than root can write to it" in caplog.text


def test_links_lead_to_places_inside(guest: Guest, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (guest.root / "root").rmdir()
    (guest.root / "root").symlink_to("/var/roothome")
    (guest.root / "var/roothome").mkdir(parents=True)
    (guest.root / "var/roothome/.ssh").symlink_to(f"/../..{outside}")
    (guest.root / f"{outside}"[1:]).mkdir(parents=True)
    guest.give(keys=KEY)
    assert list(outside.iterdir()) == []
    assert guest.read(f"{outside}/authorized_keys"[1:]) == f"{KEY}\n"


@pytest.mark.parametrize("path", ["etc/passwd", "etc/shadow", "root/.ssh/authorized_keys"])
@pytest.mark.parametrize("what", ["fifo", "directory", "large", "socket-link"])
def test_files_that_are_none_are_refused_by_name(guest: Guest, path: str, what: str) -> None:
    file = guest.write(path, "")
    file.unlink()
    os.mkfifo(guest.root / "etc/pipe")
    put_odd_file(file, what, link="/etc/pipe")
    before = sorted(path for path in guest.root.rglob("*"))
    with pytest.raises(StorageError) as error:
        guest.give(password=HASH, keys=KEY)
    assert f"/{path} in the guest's tree" in str(error.value)
    assert HASH not in str(error.value)
    assert sorted(path for path in guest.root.rglob("*")) == before


@pytest.mark.parametrize(
    ("passwd", "words"),
    [
        (None, "is missing in the guest"),
        ("", "no account has user id 0"),
        ("root:x:1:1::/root:\n", "no account has user id 0"),
        ("root:x:0:0::root:\n", "expected an absolute path"),
        ("root:x:0:0:::\n", "expected an absolute path"),
    ],
)
def test_a_guest_without_root_is_refused(guest: Guest, passwd: str | None, words: str) -> None:
    (guest.root / "etc/passwd").unlink()
    if passwd is not None:
        guest.write("etc/passwd", passwd)
    with pytest.raises(GuestError, match=words):
        guest.give(password=HASH)
    assert guest.read("etc/shadow") == SHADOW


@pytest.mark.parametrize(
    "text",
    [
        *("ssh-ed25519", "ssh-ed25519 AAAA", "ssh-ed25519 !!!!", "hello", "-----BEGIN OPENSSH PRIVATE KEY-----"),
        *("ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIA==", f"{KEY}\nnone", "ssh-ed25519 \x1b AAAAC3NzaC1lZDI1NTE5AAAAIA=="),
    ],
)
def test_keys_that_are_none(text: str, tmp_path: Path) -> None:
    line = text.count("\n") + 1
    with pytest.raises(ValueError, match=f"line {line} is not a key; expected "):
        parse_keys(text)
    file = tmp_path / "keys"
    file.write_text(text)
    with pytest.raises(SettingsError, match=re.escape(f"{file}: line {line} is not a key")):
        keys_of_settings(replace(Settings.from_layers([]), authorized_keys_file=str(file)))


@pytest.mark.parametrize("what", ["missing", "fifo", "directory", "writable", "large", "binary"])
def test_a_file_of_keys_that_is_none(tmp_path: Path, what: str) -> None:
    file = tmp_path / "keys"
    if what == "fifo":
        os.mkfifo(file)
    elif what == "directory":
        file.mkdir()
    elif what != "missing":
        file.write_bytes({"writable": KEY.encode(), "large": b"#" * (1 << 20), "binary": b"\xff"}[what])
        file.chmod(0o666 if what == "writable" else 0o600)
    with pytest.raises(DiskImageError) as error:
        keys_of_settings(replace(Settings.from_layers([]), authorized_keys_file=str(file)))
    assert str(error.value).startswith(f"{file}: ")


WRONG = ("secret", "$6$", "$6$sa lt$hash", "$9$salt$hashhash", f"{HASH}:0", "x", "$1$a\nb$cccccccc")


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_hash_is_not_shown(text: str) -> None:
    _, (problem,) = read_parameters({"ROOT_PASSWORD_HASH": text}, native="x86_64")
    assert problem.startswith("OS parameter root_password_hash is something else, which is not shown; expected a hash")
    with pytest.raises(SettingsError) as error:
        Settings.from_layers([Layer("file", {"ROOT_PASSWORD_HASH": text})])
    for shown in (problem, str(error.value)):
        assert text not in shown.replace("($id$salt$hash), or *", "").replace("something else", "") or text == "x"


@pytest.mark.parametrize(
    "text", [HASH, "$6$rounds=5000$salt$" + "a" * 86, "$2b$12$" + "a" * 53, "$1$ab$cdefghij", "*", "!"]
)
def test_hashes(text: str) -> None:
    assert Settings.from_layers([Layer("file", {"ROOT_PASSWORD_HASH": text})]).root_password_hash == text


def test_a_secret_is_neither_shown_nor_given_to_scripts() -> None:
    settings = Settings.from_layers([Layer("file", {"ROOT_PASSWORD_HASH": HASH})])
    assert settings.texts()["ROOT_PASSWORD_HASH"] == "(not shown)"
    assert HASH not in repr(settings)
    assert Settings.from_layers([]).texts()["ROOT_PASSWORD_HASH"] == ""
    assert not any(setting.for_scripts for setting in SETTINGS if setting.secret)
    environment = scripts.script_environment(
        {"OSP_ROOT_PASSWORD_HASH": HASH, "OSP_SWAP": "no"},
        settings.for_scripts(),
        target="/t",
        blockdev="/dev/b",
        root_dev="/dev/r",
        boot_dev=None,
    )
    assert environment["OSP_SWAP"] == "no"
    assert HASH not in str(environment)


def test_no_verb_shows_a_secret(tmp_path: Path) -> None:
    node = Node.make(tmp_path / "node", IMAGE_NAME="x", IMAGE_DEBUG="yes")
    done = node.run("verify", "parameters", OS_API_VERSION="20", OSP_ROOT_PASSWORD_HASH=HASH, OSP_AUTHORIZED_KEYS=KEY)
    assert done.returncode == 0, done.stderr
    assert "ROOT_PASSWORD_HASH='(not shown)'" in done.stderr
    assert HASH not in done.stderr + done.stdout
    done = node.run("verify", "parameters", OS_API_VERSION="20", OSP_ROOT_PASSWORD_HASH="open sesame")
    assert done.returncode == 1
    assert "sesame" not in done.stderr
    assert "root_password_hash" in last_line(done)


def test_the_settings_file_may_hold_it_in_single_quotes(tmp_path: Path) -> None:
    node = Node.make(tmp_path / "node")
    file = node.directory / "etc/default/ganeti-instance-image"

    paths = Paths(str(node.directory / "etc"), str(node.directory / "var"))
    file.write_text(f"ROOT_PASSWORD_HASH='{HASH}'\nAUTHORIZED_KEYS='{KEY}\n{OTHER}'\n")
    settings = read_settings(paths)
    assert settings.root_password_hash == HASH
    assert keys_of_settings(settings) == (KEY, OTHER)
    file.write_text(f'ROOT_PASSWORD_HASH="{HASH}"\n')
    with pytest.raises(SettingsError) as error:
        read_settings(paths)
    assert "X3DX6M94" not in str(error.value)


def test_wrong_keys_are_refused_before_a_disk_is_touched(tmp_path: Path) -> None:
    node = Node.make(tmp_path / "node", AUTHORIZED_KEYS_FILE=f"{tmp_path}/none")
    disk = tmp_path / "disk"
    disk.write_bytes(b"\xff" * (1 << 20))
    done = node.create(disk)
    assert done.returncode == 1
    assert f"{tmp_path}/none: cannot read the authorised keys: No such file or directory" in last_line(done)
    assert disk.read_bytes() == b"\xff" * (1 << 20)


@given(st.text(st.characters(codec="utf-8"), max_size=60))
def test_any_text_is_keys_or_one_error(text: str) -> None:
    try:
        keys = parse_keys(text)
    except ValueError:
        return
    assert all(key.isprintable() for key in keys)


_NAMES = st.text(st.characters(codec="latin-1", exclude_characters="\r\n:\0"), min_size=1, max_size=5)


@given(st.lists(_NAMES, max_size=4))
def test_only_roots_line_of_shadow_changes(names: list[str]) -> None:
    lines = [f"{name}:!:1:2:3:4:5:6:".encode("latin-1") for name in names if name != "root"]
    for place in range(len(lines) + 1):
        with_root = [*lines[:place], b"root:*:1:0:99999:7:::", *lines[place:]]
        after = with_password(b"\n".join(with_root) + b"\n", b"root", HASH.encode()).split(b"\n")
        assert after[:place] + after[place + 1 : -1] == lines
        assert after[place] == f"root:{HASH}:{today()}:0:99999:7:::".encode()
