# SPDX-License-Identifier: MIT
"""ssh host keys of a new instance: which systems make their own at boot, and which keys are made here."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key
from hypothesis import given
from hypothesis import strategies as st

from ganeti_os.guest.ssh.at_boot import makes_host_keys
from ganeti_os.guest.ssh.config import config_lines
from ganeti_os.guest.ssh.host_keys import make_host_keys
from ganeti_os.guest.ssh.key_pairs import KeyMaker, Pair
from pydiskimg.errors import DiskImageError
from pydiskimg.files.mounted_tree import open_mounted_tree
from pydiskimg.system.edits.draft import Draft, GuestError
from tests.fixtures.limits import limits

Files = dict[str, str]
KINDS = ("rsa", "ecdsa", "ed25519")
SYSTEMD: Files = {"usr/lib/systemd/systemd": "", "usr/sbin/sshd": ""}
UNITS = "usr/lib/systemd/system"

# Each as the distribution installs it, reduced to the part about keys.
DEBIAN: Files = SYSTEMD | {
    f"{UNITS}/ssh.service": "[Service]\nEnvironmentFile=-/etc/default/ssh\nExecStartPre=/usr/sbin/sshd -t\n"
    "ExecStart=/usr/sbin/sshd -D $SSHD_OPTS\n",
    "etc/init.d/ssh": "#!/bin/sh\n# ssh-keygen is the package's affair\ncheck_config() { sshd -t; }\n",
    "etc/ssh/sshd_config": "Include /etc/ssh/sshd_config.d/*.conf\n#HostKey /etc/ssh/ssh_host_rsa_key\nUsePAM yes\n",
}
FEDORA: Files = SYSTEMD | {
    f"{UNITS}/sshd.service": "[Unit]\nAfter=network.target sshd-keygen.target\nWants=sshd-keygen.target\n"
    "[Service]\nExecStart=/usr/sbin/sshd -D $OPTIONS\n",
    f"{UNITS}/sshd-keygen.target": "[Unit]\nWants=sshd-keygen@rsa.service sshd-keygen@ecdsa.service\n",
    f"{UNITS}/sshd-keygen@.service": "[Unit]\nConditionFileNotEmpty=|!/etc/ssh/ssh_host_%i_key\n"
    "[Service]\nType=oneshot\nExecStart=/usr/libexec/openssh/sshd-keygen %i\n",
}
CLOUD_DROP_IN = {
    "etc/systemd/system/sshd-keygen@.service.d/disable-sshd-keygen-if-cloud-init-active.conf": "[Unit]\n"
    "ConditionPathExists=!/run/systemd/generator.early/multi-user.target.wants/cloud-init.target\n"
}
CLOUD: Files = FEDORA | CLOUD_DROP_IN | {"etc/cloud/cloud.cfg": "ssh_deletekeys: true\ncloud_init_modules:\n - ssh\n"}
RHEL_7: Files = SYSTEMD | {
    f"{UNITS}/sshd.service": "[Unit]\nWants=sshd-keygen.service\n[Service]\nExecStart=/usr/sbin/sshd -D $OPTIONS\n",
    f"{UNITS}/sshd-keygen.service": "[Unit]\nConditionFileNotEmpty=|!/etc/ssh/ssh_host_rsa_key\n"
    "[Service]\nExecStart=/usr/sbin/sshd-keygen\n",
    "etc/sysconfig/sshd": '# AUTOCREATE_SERVER_KEYS=NO\nAUTOCREATE_SERVER_KEYS="RSA ECDSA ED25519"\n',
}
RHEL_6: Files = {
    "usr/sbin/sshd": "",
    "etc/rc.d/init.d/sshd": "#!/bin/bash\nKEYGEN=/usr/bin/ssh-keygen\nstart() { do_rsa_keygen; }\n",
    "etc/sysconfig/sshd": "",
}
SUSE: Files = SYSTEMD | {
    f"{UNITS}/sshd.service": "[Service]\nExecStartPre=/usr/sbin/sshd-gen-keys-start\nExecStartPre=/usr/sbin/sshd -t\n"
}
ARCH: Files = {
    "usr/lib/systemd/systemd": "",
    "usr/bin/sshd": "",
    f"{UNITS}/sshd.service": "[Unit]\nWants=sshdgenkeys.service\nAfter=sshdgenkeys.service\n",
    f"{UNITS}/sshdgenkeys.service": "[Unit]\nConditionPathExists=|!/etc/ssh/ssh_host_ecdsa_key\n"
    "ConditionPathExists=|!/etc/ssh/ssh_host_rsa_key.pub\n[Service]\nExecStart=/usr/bin/ssh-keygen -A\n",
}
ALPINE: Files = {
    "usr/sbin/sshd": "",
    "etc/init.d/sshd": "#!/sbin/openrc-run\ncheckconfig() {\n\tif ! yesno $sshd_disable_keygen; then\n"
    "\t\tssh-keygen -A\n\tfi\n}\n",
    "etc/conf.d/sshd": '# Set to "yes" to not generate keys\n# sshd_disable_keygen="yes"\n',
}
GENTOO: Files = {
    "usr/sbin/sshd": "",
    "etc/init.d/sshd": "#!/sbin/openrc-run\n: ${SSHD_KEYGEN_BINARY:=/usr/bin/ssh-keygen}\n"
    'checkconfig() { "${SSHD_KEYGEN_BINARY}" -A || return 2; }\n',
}
GENTOO_SYSTEMD: Files = SYSTEMD | {f"{UNITS}/sshd.service": "[Service]\nExecStartPre=/usr/bin/ssh-keygen -A\n"}
MAKE: dict[str, Files] = {
    "Fedora": FEDORA,
    "Fedora cloud": CLOUD,
    "RHEL 7": RHEL_7,
    "RHEL 6": RHEL_6,
    "SUSE": SUSE,
    "Arch": ARCH,
    "Alpine": ALPINE,
    "Gentoo": GENTOO,
    "Gentoo systemd": GENTOO_SYSTEMD,
}
DROP_IN = "[Service]\nExecStartPre=\nExecStartPre=/usr/sbin/sshd -t\n"
MAKE_NONE: dict[str, Files] = {
    "Debian": DEBIAN,
    "Debian SysV": {"usr/sbin/sshd": "", "etc/init.d/ssh": DEBIAN["etc/init.d/ssh"]},
    "at first boot only": SYSTEMD
    | {
        f"{UNITS}/ssh.service": "[Unit]\nWants=sshd-keygen.service\n",
        f"{UNITS}/sshd-keygen.service": "[Unit]\nConditionFirstBoot=yes\n[Service]\nExecStart=/usr/bin/ssh-keygen -A\n",
    },
    "nothing makes them": {k: v for k, v in FEDORA.items() if "@" not in k},
    "masked by an empty file": FEDORA | {"etc/systemd/system/sshd-keygen@.service": ""},
    "the drop-in takes it away": SUSE | {"etc/systemd/system/sshd.service.d/a.conf": DROP_IN},
    "switched off, RHEL 7": RHEL_7 | {"etc/sysconfig/sshd": "AUTOCREATE_SERVER_KEYS=NO\n"},
    "switched off, Alpine": ALPINE | {"etc/conf.d/sshd": 'sshd_disable_keygen="YES"\n'},
    "cloud-init without ssh": CLOUD | {"etc/cloud/cloud.cfg": "cloud_init_modules:\n - seed_random\n"},
    "cloud-init without kinds": CLOUD | {"etc/cloud/cloud.cfg": "ssh_genkeytypes: ~\ncloud_init_modules:\n  - ssh\n"},
    "cloud-init is gone": {k: v for k, v in CLOUD.items() if "cloud.cfg" not in k},
}


class Guest:
    def __init__(self, root: Path, files: Files) -> None:
        self.root = root
        root.mkdir(exist_ok=True)
        for path, text in files.items():
            self.write(path, text)

    def write(self, path: str, text: str) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def old_keys(self, *kinds: str, directory: str = "etc/ssh") -> None:
        for kind in kinds:
            self.write(f"{directory}/ssh_host_{kind}_key", "-----BEGIN OPENSSH PRIVATE KEY-----\nold\n").chmod(0o640)
            self.write(f"{directory}/ssh_host_{kind}_key.pub", f"{ALGORITHMS.get(kind, 'ssh-dss')} AAAA root@image\n")

    def make(self, maker: KeyMaker | None = None) -> None:
        with open_mounted_tree(self.root) as tree:
            draft = Draft(tree)
            make_host_keys(draft, "root@inst1", maker or KeyMaker())
            draft.write(lambda _: 0)

    def keys(self, directory: str = "etc/ssh") -> list[str]:
        return sorted(path.name for path in (self.root / directory).glob("*host*key*"))


ALGORITHMS = {"rsa": "ssh-rsa", "ecdsa": "ecdsa-sha2-nistp256", "ed25519": "ssh-ed25519"}
ALL = sorted(f"ssh_host_{kind}_key{public}" for kind in KINDS for public in ("", ".pub"))


RSA = KeyMaker.rsa


@pytest.fixture(scope="module", autouse=True)
def _one_rsa_key() -> Iterator[None]:
    """One RSA key is enough for all of these tests: each takes a moment."""
    key = KeyMaker().rsa()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(KeyMaker, "rsa", lambda self: key)
        yield


def boots(guest: Guest) -> bool:
    with open_mounted_tree(guest.root) as tree:
        return makes_host_keys(Draft(tree))


@pytest.mark.parametrize("name", MAKE)
def test_where_the_boot_makes_keys_they_are_removed(tmp_path: Path, name: str) -> None:
    guest = Guest(tmp_path, MAKE[name])
    guest.old_keys(*KINDS, "dsa")
    assert boots(guest)
    guest.make()
    assert guest.keys() == []


@pytest.mark.parametrize("name", MAKE_NONE)
def test_elsewhere_they_are_made(tmp_path: Path, name: str) -> None:
    guest = Guest(tmp_path, MAKE_NONE[name])
    guest.old_keys(*KINDS, "dsa")
    assert not boots(guest)
    guest.make()
    assert guest.keys() == ALL


def test_a_masked_unit_makes_none(tmp_path: Path) -> None:
    guest = Guest(tmp_path, FEDORA)
    link = guest.root / "etc/systemd/system/sshd-keygen@.service"
    link.parent.mkdir(parents=True)
    link.symlink_to("/dev/null")
    assert not boots(guest)


def test_what_is_made(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    guest = Guest(tmp_path, DEBIAN)
    with caplog.at_level(logging.DEBUG):
        guest.make()
    types = {"rsa": RSAPrivateKey, "ecdsa": EllipticCurvePrivateKey, "ed25519": Ed25519PrivateKey}
    for kind, type_ in types.items():
        file = guest.root / f"etc/ssh/ssh_host_{kind}_key"
        status = file.stat()
        assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o600, os.geteuid(), os.getegid())
        key = load_ssh_private_key(file.read_bytes(), None)
        assert isinstance(key, type_)
        if isinstance(key, RSAPrivateKey):
            assert key.key_size == 3072
        public = Path(f"{file}.pub")
        assert stat.S_IMODE(public.stat().st_mode) == 0o644
        algorithm, _, comment = public.read_text().split(" ")
        assert (algorithm, comment) == (ALGORITHMS[kind], "root@inst1\n")
        for line in file.read_text().splitlines():
            assert line not in caplog.text
    assert "/etc/ssh/ssh_host_rsa_key: the instance's own rsa host key" in caplog.text


def test_two_instances_have_different_keys(tmp_path: Path) -> None:
    guests = [Guest(tmp_path / name, DEBIAN) for name in ("a", "b")]
    for guest in guests:
        guest.make()
    for kind in ("ecdsa", "ed25519"):
        one, other = ((guest.root / f"etc/ssh/ssh_host_{kind}_key").read_bytes() for guest in guests)
        assert one != other


def test_only_the_kinds_that_were_there(tmp_path: Path) -> None:
    guest = Guest(tmp_path, DEBIAN)
    guest.old_keys("ed25519")
    guest.make()
    assert guest.keys() == ["ssh_host_ed25519_key", "ssh_host_ed25519_key.pub"]


def test_the_keys_that_sshd_config_names(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    guest = Guest(tmp_path, SUSE)  # its boot makes the usual ones only
    guest.write("etc/ssh/sshd_config", "Include keys.conf\nHostKey /etc/ssh/ssh_host_dsa_key\nHostKey relative\n")
    guest.write("etc/ssh/keys.conf", 'hostkey="/srv/keys/one"\nHostKey=/srv/keys/my ed25519\nHostCertificate /c.pub\n')
    guest.write("srv/keys/one.pub", "ecdsa-sha2-nistp384 AAAA\n")
    guest.write("srv/keys/one", "old")
    guest.old_keys("rsa", "dsa")
    guest.make()
    assert guest.keys() == []
    assert (guest.root / "srv/keys/one.pub").read_text().startswith("ecdsa-sha2-nistp256 ")
    assert sorted(path.name for path in (guest.root / "srv/keys").iterdir()) == ["one", "one.pub"]
    assert "/etc/ssh/ssh_host_dsa_key is not replaced" in caplog.text
    assert "/srv/keys/my is not replaced" in caplog.text
    assert "/etc/ssh/keys.conf:3 names a host certificate" in caplog.text


def test_a_key_of_an_old_openssh_stays_in_its_form(tmp_path: Path) -> None:
    guest = Guest(tmp_path, DEBIAN)
    guest.write("etc/ssh/ssh_host_rsa_key", "-----BEGIN RSA PRIVATE KEY-----\nold\n")
    guest.write("etc/ssh/ssh_host_ecdsa_key", "-----BEGIN EC PRIVATE KEY-----\nold\n")
    guest.make()
    for kind, name in (("rsa", "RSA"), ("ecdsa", "EC")):
        data = (guest.root / f"etc/ssh/ssh_host_{kind}_key").read_bytes()
        assert data.startswith(f"-----BEGIN {name} PRIVATE KEY-----\n".encode())
        load_pem_private_key(data, None)


def test_without_a_server_keys_only_go(tmp_path: Path) -> None:
    guest = Guest(tmp_path, {"usr/lib/systemd/systemd": ""})
    guest.old_keys(*KINDS)
    guest.write("etc/ssh/ssh_host_key", "SSH-1")
    guest.make()
    assert guest.keys() == []
    guest = Guest(tmp_path, {})
    guest.make()
    assert not list(guest.root.glob("etc/ssh/*"))


def test_a_key_that_others_read_is_not_written_to(tmp_path: Path) -> None:
    """Anything in the place of a key is removed: a link to a public file, a FIFO, a wrong mode, a hard link."""
    guest = Guest(tmp_path, DEBIAN)
    guest.old_keys(*KINDS)
    motd = guest.write("etc/motd", "public\n")
    rsa, ecdsa, ed25519 = (guest.root / f"etc/ssh/ssh_host_{kind}_key" for kind in KINDS)
    rsa.unlink()
    rsa.symlink_to("/etc/motd")
    ecdsa.unlink()
    os.mkfifo(ecdsa)
    ed25519.chmod(0o666)
    other = guest.root / "etc/other"
    os.link(ed25519, other)
    guest.make()
    assert motd.read_text() == "public\n"
    assert "old" in other.read_text()
    for file in (rsa, ecdsa, ed25519):
        assert stat.S_ISREG(file.lstat().st_mode)
        assert stat.S_IMODE(file.lstat().st_mode) == 0o600


def test_a_link_to_the_nodes_directory_stays_inside(tmp_path: Path) -> None:
    outside = tmp_path / "node"
    outside.mkdir()
    (outside / "ssh_host_rsa_key").write_text("the node's")
    guest = Guest(tmp_path / "guest", {"usr/sbin/sshd": ""})
    (guest.root / "etc").mkdir()
    (guest.root / "etc/ssh").symlink_to(f"../..{outside}")
    (guest.root / f"{outside}"[1:]).mkdir(parents=True)
    guest.make()
    assert [path.name for path in outside.iterdir()] == ["ssh_host_rsa_key"]
    assert (outside / "ssh_host_rsa_key").read_text() == "the node's"
    assert guest.keys(f"{outside}"[1:]) == ALL


@pytest.mark.parametrize("path", ["etc/ssh/sshd_config", f"{UNITS}/ssh.service", "etc/ssh/ssh_host_rsa_key.pub"])
def test_what_cannot_be_read_is_named_or_passed_over(tmp_path: Path, path: str) -> None:
    guest = Guest(tmp_path, DEBIAN)
    file = guest.write(path, "")
    with file.open("wb") as stream:
        stream.truncate(10 << 30)
    with pytest.raises(DiskImageError, match=f"/{path} in the guest's tree"):
        guest.make()
    assert guest.keys() == (["ssh_host_rsa_key.pub"] if "rsa" in path else [])


def test_a_directory_in_the_place_of_a_key_is_named(tmp_path: Path) -> None:
    guest = Guest(tmp_path, DEBIAN)
    (guest.root / "etc/ssh/ssh_host_rsa_key/x").mkdir(parents=True)
    with pytest.raises(DiskImageError, match=r"/etc/ssh/ssh_host_rsa_key in .*is a directory"):
        guest.make()


def test_configurations_that_include_each_other_end(tmp_path: Path) -> None:
    guest = Guest(tmp_path, {"etc/ssh/sshd_config": "Include sshd_config\n" * 3 + "Include /etc/*/x\nPort 22\n"})
    with open_mounted_tree(guest.root) as tree:
        lines = config_lines(Draft(tree))
    assert 0 < len(lines) <= 64
    assert {(line.keyword, line.words) for line in lines} == {("port", ("22",))}


def test_dropbear(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    guest = Guest(tmp_path, {"etc/init.d/dropbear": "# -R would make keys\ndropbear -p 22\n"})
    for kind in (*KINDS, "dss"):
        guest.write(f"etc/dropbear/dropbear_{kind}_host_key", "old")
    guest.write("etc/dropbear/initramfs/dropbear_rsa_host_key", "old")
    guest.make()
    assert guest.keys("etc/dropbear") == sorted(f"dropbear_{kind}_host_key" for kind in KINDS)
    for kind in KINDS:
        file = guest.root / f"etc/dropbear/dropbear_{kind}_host_key"
        assert ALGORITHMS[kind].encode() in file.read_bytes()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "/etc/dropbear/initramfs/dropbear_rsa_host_key is kept as in the image" in caplog.text


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("etc/conf.d/dropbear", 'DROPBEAR_OPTS="-s -R"\n'),
        ("etc/default/dropbear", "DROPBEAR_EXTRA_ARGS=-FR\n"),
        ("etc/init.d/dropbear", "start_pre() {\n  dropbearkey -t rsa -f $key\n}\n"),
        ("usr/lib/systemd/system/dropbear.service", "ExecStart=/usr/bin/dropbear -R -F -E\n"),
    ],
)
def test_dropbear_that_makes_its_keys(tmp_path: Path, path: str, text: str) -> None:
    guest = Guest(tmp_path, {path: text, "etc/dropbear/dropbear_rsa_host_key": "old"})
    guest.make()
    assert guest.keys("etc/dropbear") == []


def test_a_pair_does_not_show_itself() -> None:
    assert "secret" not in repr(Pair(b"secret", b"public"))


def test_what_fails_in_the_thread_is_raised_where_the_key_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cryptography.hazmat.primitives.asymmetric.rsa.generate_private_key", lambda *_: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        RSA(KeyMaker())


@given(st.binary(max_size=200))
def test_any_configuration_ends_in_lines(data: bytes) -> None:
    class Files:
        """A Tree with one file."""

        def read(self, path: str, *, limit: int) -> bytes:
            return data[:limit]

        def exists(self, path: str) -> bool:
            return path == "/etc/ssh/sshd_config"

        def stat(self, path: str) -> os.stat_result:
            raise FileNotFoundError

        def list(self, path: str) -> list[str]:
            return []

    for line in config_lines(Draft(Files())):  # type: ignore[arg-type]
        assert line.keyword.isalnum()
        assert line.location.startswith("/etc/ssh/sshd_config:")


@pytest.mark.parametrize(
    "text", ["HostKey " + '"' * (1 << 19), "Include " + " a" * (1 << 18), "a" * (1 << 20), "a b\n" * (1 << 18)]
)
def test_a_long_configuration_takes_no_time(tmp_path: Path, text: str) -> None:
    guest = Guest(tmp_path, {"etc/ssh/sshd_config": text[: (1 << 20) - 1]})
    with limits(), open_mounted_tree(guest.root) as tree, suppress(GuestError):
        config_lines(Draft(tree))


def test_a_configuration_of_very_many_lines_is_refused(tmp_path: Path) -> None:
    """15 MiB of them would take 700 MiB of memory."""
    files = {f"etc/ssh/sshd_config.d/{number}.conf": "a b\n" * 15_000 for number in range(2)}
    guest = Guest(tmp_path, {"etc/ssh/sshd_config": "Include sshd_config.d/*.conf\n", **files})
    message = r"^/etc/ssh/sshd_config: it has more than 20000 lines, including included files; no more are read$"
    with open_mounted_tree(guest.root) as tree, pytest.raises(GuestError, match=message):
        config_lines(Draft(tree))


def test_a_configuration_with_keys_without_end_is_refused(tmp_path: Path) -> None:
    lines = "".join(f"HostKey /etc/ssh/{number}_rsa\n" for number in range(10_000))
    guest = Guest(tmp_path, DEBIAN | {"etc/ssh/sshd_config": lines})
    with pytest.raises(GuestError, match="sshd_config names 10000 host keys; expected at most 16"):
        guest.make()
    assert guest.keys() == []


@pytest.mark.parametrize(
    "text", ["-", "a", "keyge", " -" * (1 << 19), "ssh-keygen" * 90_000, "ssh_genkeytypes: \n" * 50_000]
)
def test_long_scripts_and_units_take_no_time(tmp_path: Path, text: str) -> None:
    text = (text * (1 << 20))[: (1 << 20) - 1] if len(text) < 10 else text[: (1 << 20) - 1]
    paths = ("etc/init.d/sshd", "etc/init.d/dropbear", "etc/sysconfig/sshd", f"{UNITS}/sshd.service")
    for systemd in ({}, {"usr/lib/systemd/systemd": "", "etc/cloud/cloud.cfg": text}):
        guest = Guest(tmp_path, dict.fromkeys(paths, text) | systemd | {"etc/dropbear/dropbear_rsa_host_key": "old"})
        with limits():
            boots(guest)
            guest.make()
