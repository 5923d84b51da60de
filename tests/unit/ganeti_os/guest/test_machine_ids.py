# SPDX-License-Identifier: MIT
"""What is removed from a new instance, what is made again, and what stays because something depends on it."""

from __future__ import annotations

import logging
import os
import re
import stat
from pathlib import Path

import pytest

from ganeti_os.guest.machine_ids import make_machine_ids
from pydiskimg.errors import StorageError
from pydiskimg.files.mounted_tree import open_mounted_tree
from pydiskimg.system.edits.draft import Draft, GuestError

ID = "0123456789abcdef0123456789abcdef\n"
UUID = "5a3d6c1e-8f5e-4f1c-9c55-0d6a3f6b7c8d"
SYSTEMD = {"usr/lib/systemd/systemd": "", "etc/machine-id": ID}

# Where each of the systems that are installed from packages has it.
REMOVED = (
    "var/lib/systemd/random-seed",
    "var/lib/urandom/random-seed",
    "var/lib/misc/random-seed",
    "var/lib/random-seed",
    "var/lib/seedrng/seed.credit",
    "var/lib/seedrng/seed.no-credit",
    "var/lib/systemd/credential.secret",
    "var/lib/NetworkManager/secret_key",
    "var/lib/NetworkManager/internal-0b6d-eth0.lease",
    "var/lib/NetworkManager/dhclient-0b6d-eth0.lease",
    "var/lib/dhcp/dhclient.leases",
    "var/lib/dhcp/dhclient.eth0.leases",
    "var/lib/dhcp/dhclient6.eth0.leases",
    "var/lib/dhcp3/dhclient.eth0.leases",
    "var/lib/dhclient/dhclient--eth0.lease",
    "var/lib/dhclient/dhclient.leases",
    "var/lib/dhcpcd/duid",
    "var/lib/dhcpcd/secret",
    "var/lib/dhcpcd/eth0.lease",
    "var/lib/dhcpcd5/dhcpcd-eth0.lease",
    "etc/dhcpcd.duid",
    "etc/dhcpcd.secret",
    "var/lib/wicked/duid.xml",
    "var/lib/wicked/lease-eth0-dhcp-ipv4.xml",
    "var/cache/pollinate/seeded",
    "etc/insights-client/machine-id",
    "var/lib/yum/uuid",
    "etc/docker/key.json",
    "var/lib/docker/engine-id",
    "var/lib/dbus/machine-id",
)


class Guest:
    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, *names: str) -> None:
        for name in names:
            self.put(name, "something\n")

    def put(self, name: str, text: str) -> Path:
        file = self.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def forget(self) -> None:
        with open_mounted_tree(self.root) as tree:
            draft = Draft(tree)
            make_machine_ids(draft)
            draft.write(lambda _: 0)

    def text(self, name: str) -> str:
        return (self.root / name).read_text()

    def files(self) -> list[str]:
        return sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*") if not path.is_dir())


@pytest.fixture
def guest(tmp_path: Path) -> Guest:
    made = Guest(tmp_path)
    for name, text in SYSTEMD.items():
        made.put(name, text)
    return made


def test_what_is_removed_and_what_stays(guest: Guest) -> None:
    stays = ("var/lib/dhcp/other", "var/lib/systemd/timers", "var/lib/NetworkManager/NetworkManager.state")
    guest.write(*REMOVED, *stays)
    guest.forget()
    assert guest.files() == sorted([*SYSTEMD, *stays])
    guest.forget()
    assert guest.files() == sorted([*SYSTEMD, *stays])


def test_a_machine_id_is_emptied_with_systemd(guest: Guest, caplog: pytest.LogCaptureFixture) -> None:
    file = guest.root / "etc/machine-id"
    file.chmod(0o444)
    with caplog.at_level(logging.DEBUG):
        guest.forget()
    assert (file.read_bytes(), stat.S_IMODE(file.stat().st_mode)) == (b"", 0o444)
    assert ID.strip() not in caplog.text


@pytest.mark.parametrize("text", ["", "uninitialized\n", None])
def test_an_image_that_is_to_have_a_first_boot_keeps_it(guest: Guest, text: str | None) -> None:
    file = guest.root / "etc/machine-id"
    file.unlink()
    if text is not None:
        file.write_text(text)
    guest.forget()
    assert (file.read_text() if file.exists() else None) == text


def test_without_systemd_it_goes_since_dbus_refuses_an_empty_one(guest: Guest) -> None:
    (guest.root / "usr/lib/systemd/systemd").unlink()
    guest.put("var/lib/dbus/machine-id", ID)
    guest.forget()
    assert guest.files() == []


def test_dbus_link_to_the_machine_id_stays(guest: Guest) -> None:
    link = guest.root / "var/lib/dbus/machine-id"
    link.parent.mkdir(parents=True)
    link.symlink_to("/etc/machine-id")
    guest.forget()
    assert link.readlink() == Path("/etc/machine-id")
    assert guest.text("etc/machine-id") == ""


def test_a_machine_id_that_is_dbus_own(guest: Guest) -> None:
    """In the images of some Alpine and Debian systems the link points the other way."""
    guest.put("var/lib/dbus/machine-id", ID)
    (guest.root / "etc/machine-id").unlink()
    (guest.root / "etc/machine-id").symlink_to("../var/lib/dbus/machine-id")
    guest.forget()
    assert guest.text("etc/machine-id") == ""  # systemd finds a file that it can fill


def test_credentials_that_need_their_key(guest: Guest, caplog: pytest.LogCaptureFixture) -> None:
    guest.write("var/lib/systemd/credential.secret", "etc/credstore.encrypted/password")
    guest.forget()
    assert (guest.root / "var/lib/systemd/credential.secret").exists()
    assert "/var/lib/systemd/credential.secret is kept as in the image" in caplog.text


@pytest.mark.parametrize(
    ("name", "text", "pattern"),
    [
        ("etc/iscsi/initiatorname.iscsi", "## x\nInitiatorName={}\n", r"iqn\.1993-08\.org\.debian:01:([0-9a-f]{12})"),
        ("etc/iscsi/initiatorname.iscsi", "InitiatorName={}\n", r"iqn\.1994-05\.com\.redhat:([0-9a-f]{12})"),
        ("etc/nvme/hostnqn", "{}\n", r"nqn\.2014-08\.org\.nvmexpress:uuid:([0-9a-f-]{36})"),
        ("etc/nvme/hostid", "{}", r"([0-9a-f-]{36})"),
        ("etc/popularity-contest.conf", '# x\nMY_HOSTID="{}"\nDAY="3"\n', r"([0-9a-f]{32})"),
    ],
)
def test_random_parts_are_made_anew(guest: Guest, name: str, text: str, pattern: str) -> None:
    old = UUID if "36" in pattern else "abcdef012345" if "12" in pattern else ID.strip()
    before = re.sub(r"\(.*\)", old, pattern).replace("\\", "")
    guest.put(name, text.format(before))
    guest.forget()
    frame = re.escape(text).replace(re.escape("{}"), pattern)
    found = re.fullmatch(frame, guest.text(name))
    assert found is not None, guest.text(name)
    assert found[1] != old


def test_nvme_has_one_id_in_both_files(guest: Guest) -> None:
    guest.put("etc/nvme/hostnqn", f"nqn.2014-08.org.nvmexpress:uuid:{UUID}\n")
    guest.put("etc/nvme/hostid", f"{UUID}\n")
    guest.forget()
    assert guest.text("etc/nvme/hostnqn") == f"nqn.2014-08.org.nvmexpress:uuid:{guest.text('etc/nvme/hostid')}"


def test_names_that_somebody_chose_stay(guest: Guest, caplog: pytest.LogCaptureFixture) -> None:
    chosen = {
        "etc/iscsi/initiatorname.iscsi": "InitiatorName=iqn.2020-01.org.example:web-server\n",
        "etc/nvme/hostnqn": "nqn.2020-01.org.example:web\n",
        "etc/popularity-contest.conf": "PARTICIPATE=no\n",
    }
    for name, text in chosen.items():
        guest.put(name, text)
    guest.forget()
    assert {name: guest.text(name) for name in chosen} == chosen
    assert "/etc/iscsi/initiatorname.iscsi is kept as in the image" in caplog.text


def test_debian_that_makes_its_initiator_name_later(guest: Guest, caplog: pytest.LogCaptureFixture) -> None:
    guest.put("etc/iscsi/initiatorname.iscsi", "GenerateName=yes\n")
    guest.forget()
    assert guest.text("etc/iscsi/initiatorname.iscsi") == "GenerateName=yes\n"
    assert "iscsi" not in caplog.text


def test_a_host_id_and_zfs(guest: Guest, caplog: pytest.LogCaptureFixture) -> None:
    file = guest.root / "etc/hostid"
    file.write_bytes(b"abcd")
    guest.forget()
    assert len(file.read_bytes()) == 4
    assert file.read_bytes() != b"abcd"
    file.write_bytes(b"abcd")
    guest.write("usr/sbin/zpool")
    guest.forget()
    assert file.read_bytes() == b"abcd"
    assert "/etc/hostid is kept as in the image" in caplog.text


def test_rules_for_network_cards_of_the_image_are_emptied(guest: Guest) -> None:
    emptied = ("etc/udev/rules.d/70-persistent-net.rules", "etc/udev/rules.d/z25_persistent-net.rules")
    stays = ("etc/udev/rules.d/70-persistent-cd.rules", "etc/udev/rules.d/75-persistent-net-generator.rules")
    guest.write(*emptied, *stays)
    guest.forget()
    assert [guest.text(name) for name in (*emptied, *stays)] == ["", "", "something\n", "something\n"]


def test_other_identities_are_told(guest: Guest, caplog: pytest.LogCaptureFixture) -> None:
    guest.write("etc/krb5.keytab", "etc/puppetlabs/puppet/ssl/private_keys/x.pem")
    guest.forget()
    assert "/etc/krb5.keytab is the same as in the image" in caplog.text
    assert "/etc/puppetlabs/puppet/ssl is the same as in the image" in caplog.text
    assert (guest.root / "etc/krb5.keytab").exists()


@pytest.mark.parametrize("name", REMOVED)
def test_what_is_no_file_is_never_followed_or_entered(guest: Guest, name: str) -> None:
    """A link goes itself, and a directory stays."""
    kept = guest.put("etc/kept", "kept")
    path = guest.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to("/etc/kept")
    guest.forget()
    assert kept.read_text() == "kept"
    path.unlink(missing_ok=True)
    (path / "inside").mkdir(parents=True)
    guest.forget()
    assert (path / "inside").is_dir()


def test_large_and_special_files_are_named(guest: Guest) -> None:
    for make in (os.mkfifo, os.mkdir):
        (guest.root / "etc/machine-id").unlink(missing_ok=True)
        make(guest.root / "etc/machine-id")
        with pytest.raises(StorageError, match="/etc/machine-id in the guest's tree"):
            guest.forget()
        if make is os.mkfifo:
            (guest.root / "etc/machine-id").unlink()


def test_leases_without_end_are_refused_before_anything_is_written(guest: Guest) -> None:
    (guest.root / "var/lib/dhcpcd").mkdir(parents=True)
    for number in range(300):
        (guest.root / f"var/lib/dhcpcd/{number}.lease").touch()
    with pytest.raises(GuestError, match="/var/lib/dhcpcd: 300 names"):
        guest.forget()
    assert guest.text("etc/machine-id") == ID
