# SPDX-License-Identifier: MIT
"""What a new instance gets, judged by OpenSSH, Dropbear and Debian's passwd."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from ganeti_os.guest.access import give_access
from ganeti_os.guest.ssh.host_keys import make_host_keys
from ganeti_os.guest.ssh.key_pairs import KINDS, KeyMaker
from ganeti_os.settings.settings import Settings
from pydiskimg.files.mounted_tree import open_mounted_tree
from pydiskimg.system.edits.draft import Draft

pytestmark = pytest.mark.oracle
Tool = Callable[[str], str]


def run(*command: str | Path, stdin: str | None = None) -> str:
    done = subprocess.run([str(word) for word in command], input=stdin, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@contextmanager
def draft_of(root: Path) -> Iterator[Draft]:
    with open_mounted_tree(root) as tree:
        draft = Draft(tree)
        yield draft
        draft.write(lambda _: 0)


@pytest.fixture(scope="module")
def maker() -> KeyMaker:
    made = KeyMaker()
    made.start()
    return made


@pytest.mark.parametrize("form", ["OPENSSH", "PEM"])
def test_host_keys_are_read_by_openssh(tool: Tool, tmp_path: Path, maker: KeyMaker, form: str) -> None:
    (tmp_path / "usr/sbin").mkdir(parents=True)
    (tmp_path / "usr/sbin/sshd").touch()
    directory = tmp_path / "etc/ssh"
    directory.mkdir(parents=True)
    if form == "PEM":
        for kind, name in (("rsa", "RSA"), ("ecdsa", "EC"), ("ed25519", "OPENSSH")):
            (directory / f"ssh_host_{kind}_key").write_text(f"-----BEGIN {name} PRIVATE KEY-----\n")
    with draft_of(tmp_path) as draft:
        make_host_keys(draft, "root@inst1", maker)
    bits = {"rsa": "3072 ", "ecdsa": "256 ", "ed25519": "256 "}
    for kind in KINDS:
        key = directory / f"ssh_host_{kind}_key"
        for file in (key, Path(f"{key}.pub")):
            shown = run(tool("ssh-keygen"), "-l", "-f", file)
            assert shown.startswith(bits[kind])
            assert shown.rstrip().endswith(f"({kind.upper()})")
        derived = run(tool("ssh-keygen"), "-y", "-f", key).split()
        algorithm, blob, comment = Path(f"{key}.pub").read_text().split()
        assert (algorithm, blob, comment) == (*derived[:2], "root@inst1")
    config = tmp_path / "sshd_config"
    config.write_text("".join(f"HostKey {directory}/ssh_host_{kind}_key\n" for kind in KINDS) + "UsePAM no\n")
    if os.geteuid() == 0:  # sshd wants a directory that its service makes
        in_its_place = 'mount -t tmpfs none /run && mkdir -m 755 /run/sshd && exec "$0" -T -f "$1"'
        shown = run("unshare", "--mount", "sh", "-c", in_its_place, tool("sshd"), config)
        assert shown.count("\nhostkey ") == 3


@pytest.mark.parametrize("kind", KINDS)
def test_host_keys_are_read_by_dropbear(tool: Tool, tmp_path: Path, maker: KeyMaker, kind: str) -> None:
    key = tmp_path / f"etc/dropbear/dropbear_{kind}_host_key"
    key.parent.mkdir(parents=True)
    key.touch()
    with draft_of(tmp_path) as draft:
        make_host_keys(draft, "root@inst1", maker)
    shown = run(tool("dropbearkey"), "-y", "-f", key).splitlines()
    (public,) = [line for line in shown if line.startswith(("ssh-", "ecdsa-"))]
    converted = tmp_path / "converted"
    run(tool("dropbearconvert"), "dropbear", "openssh", key, converted)
    converted.chmod(0o600)
    assert run(tool("ssh-keygen"), "-y", "-f", converted).split()[:2] == public.split()[:2]


def test_a_password_and_keys_are_read_by_the_system(tool: Tool, tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    passwd, shadow = tmp_path / "etc/passwd", tmp_path / "etc/shadow"
    passwd.write_text(Path("/etc/passwd").read_text())
    names = [line.split(":")[0] for line in passwd.read_text().splitlines()]
    shadow.write_text("".join(f"{name}:*:19000:0:99999:7:::\n" for name in names))
    hashed = run(tool("openssl"), "passwd", "-6", "-salt", "saltsalt", "-stdin", stdin="secret\n").strip()
    key = tmp_path / "key"
    run(tool("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-C", "a comment", "-f", key)
    public = Path(f"{key}.pub").read_text()
    settings = replace(Settings.from_layers([]), root_password_hash=hashed, authorized_keys=public)
    with draft_of(tmp_path) as draft:
        give_access(draft, settings)
    checked = subprocess.run([tool("pwck"), "-r", passwd, shadow], capture_output=True, text=True, check=False)
    assert "root" not in checked.stdout + checked.stderr  # homes of others may be missing
    assert f"root:{hashed}:" in shadow.read_text()
    keys = tmp_path / "root/.ssh/authorized_keys"
    assert run(tool("ssh-keygen"), "-l", "-f", keys) == run(tool("ssh-keygen"), "-l", "-f", key)
    assert os.stat(keys.parent).st_mode & 0o777 == 0o700
