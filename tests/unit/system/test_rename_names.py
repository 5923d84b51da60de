# SPDX-License-Identifier: MIT
"""rename over the files that distributions have: which names change, which stay, what is refused."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

import pytest

from pydiskimg.errors import DiskImageError
from pydiskimg.files import mounted_tree
from pydiskimg.system.edits.draft import GuestError
from pydiskimg.system.edits.renaming import Renaming
from tests.fixtures.guests import NEW, OLD, GuestFiles
from tests.fixtures.limits import limits

Files = dict[str, str | bytes]

# Each as installed by the distribution, the instance's name given to its installer.
DEBIAN_12: Files = {
    "/etc/hostname": "inst1\n",
    "/etc/hosts": "127.0.0.1\tlocalhost\n127.0.1.1\tinst1.example.org\tinst1\n\n"
    "# The following lines are desirable for IPv6 capable hosts\n::1     localhost ip6-localhost ip6-loopback\n"
    "ff02::1 ip6-allnodes\n",
    "/etc/mailname": "inst1.example.org\n",
    "/etc/dhcp/dhclient.conf": "option rfc3442-classless-static-routes code 121 = array of unsigned integer 8;\n\n"
    "send host-name = gethostname();\nrequest subnet-mask, broadcast-address, time-offset, routers,\n"
    "\tdomain-name, domain-name-servers, domain-search, host-name;\n"
    '#send host-name "inst1";\nsend host-name "inst1";\nsend fqdn.fqdn "inst1.example.org.";\n',
}
CENTOS_6: Files = {
    "/etc/sysconfig/network": "NETWORKING=yes\nHOSTNAME=inst1.example.org\n",
    "/etc/hosts": "127.0.0.1   localhost localhost.localdomain localhost4 localhost4.localdomain4\n"
    "::1         localhost localhost.localdomain localhost6 localhost6.localdomain6\n",
    "/etc/sysconfig/network-scripts/ifcfg-eth0": 'DEVICE="eth0"\nBOOTPROTO="dhcp"\n'
    'DHCP_HOSTNAME="inst1"\nONBOOT="yes"\n',
}
ROCKY_9: Files = {
    "/etc/hostname": "inst1.example.org\n",
    "/etc/sysconfig/network": "# Created by anaconda\n",
    "/etc/NetworkManager/system-connections/eth0.nmconnection": "[connection]\nid=eth0\nuuid=1\ntype=ethernet\n"
    "interface-name=eth0\n\n[ethernet]\n\n[ipv4]\ndhcp-hostname=inst1\nmethod=auto\n\n[ipv6]\nmethod=auto\n",
}
GENTOO: Files = {
    "/etc/conf.d/hostname": '# Set to the hostname of this machine\nhostname="inst1"\n',
    "/etc/hosts": "127.0.0.1\tinst1.example.org inst1 localhost\n::1\t\tlocalhost\n",
    "/etc/dhcpcd.conf": "# Inform the DHCP server of our hostname for DDNS.\nhostname\nhostname inst1\n",
}
OPENSUSE: Files = {
    "/etc/hostname": "inst1\n",
    "/etc/sysconfig/network/dhcp": '## Type: string\nDHCLIENT_HOSTNAME_OPTION="AUTO"\n',
    "/etc/sysconfig/network/ifcfg-eth0": "BOOTPROTO='dhcp'\nSTARTMODE='auto'\n",
}
SLES_11: Files = {"/etc/HOSTNAME": "inst1.example.org\n", "/etc/sysconfig/network/config": "A=b\n"}
UBUNTU: Files = {
    "/etc/hostname": "inst1\n",
    "/etc/hosts": "127.0.0.1 localhost\n127.0.1.1 inst1.example.org inst1\n",
    "/etc/netplan/00-installer-config.yaml": "network:\n  ethernets:\n    ens3:\n      dhcp4: true\n"
    '      dhcp4-overrides:\n        hostname: "inst1"\n  version: 2\n',
}
NETWORKD: Files = {
    "/etc/hostname": "inst1\n",
    "/etc/systemd/network/20-wired.network": "[Match]\nName=enp1s0\n\n[Network]\nDHCP=yes\n\n"
    "[DHCPv4]\nHostname=inst1\n",
}
SYSTEMS = {
    name: value for name, value in globals().items() if isinstance(value, dict) and "/etc/" in next(iter(value), "")
}


def expected(files: Files) -> Files:
    """The old names replaced by plain text, in every file; the fixtures hold them in no other meaning."""
    changed: Files = {}
    for path, text in files.items():
        assert isinstance(text, str)
        lines = [
            line if line.startswith("#") else re.sub(r"\binst1\b", "inst2", line.replace(OLD, NEW))
            for line in text.splitlines(keepends=True)
        ]
        changed[path] = "".join(lines)
    return changed


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_distribution(tmp_path: Path, system: str) -> None:
    guest = GuestFiles.make(tmp_path, SYSTEMS[system])
    guest.rename()
    assert guest.read() == expected(SYSTEMS[system])
    guest.rename()
    assert guest.read() == expected(SYSTEMS[system])
    guest.rename(old=NEW, new=OLD)
    assert guest.read() == SYSTEMS[system]


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_same_name_writes_nothing(tmp_path: Path, system: str, caplog: pytest.LogCaptureFixture) -> None:
    guest = GuestFiles.make(tmp_path, SYSTEMS[system])
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in guest.root.rglob("*")}
    caplog.set_level(logging.INFO)
    guest.rename(new=OLD)
    assert {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in guest.root.rglob("*")} == before
    assert "nothing was changed" in caplog.text


def test_each_changed_file_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    GuestFiles.make(tmp_path, DEBIAN_12).rename()
    assert caplog.messages == [
        "/etc/hosts: 2 names changed",
        "/etc/dhcp/dhclient.conf: the name that is announced",
        "/etc/mailname: the name that is announced",
        "/etc/hostname: host name inst1 is now inst2",
    ]


@pytest.mark.parametrize(
    ("path", "found", "written"),
    [
        ("/etc/hostname", "INST1\n", "inst2\n"),
        ("/etc/hostname", "Inst1.Example.org", "inst2.example.net"),
        ("/etc/hostname", "\n# what we are called\n  inst1  \n# end\n", "\n# what we are called\n  inst2  \n# end\n"),
        ("/etc/hostname", "inst1\r\n", "inst2\r\n"),
        ("/etc/hostname", "", "inst2\n"),
        ("/etc/hostname", "\n", "inst2\n"),
        ("/etc/hostname", "# none yet", "# none yet\ninst2\n"),
        ("/etc/hostname", "localhost\n", "inst2\n"),
        ("/etc/hostname", "localhost.localdomain\n", "inst2.example.net\n"),
        ("/etc/hostname", "(none)\n", "inst2\n"),
        ("/etc/HOSTNAME", "", "inst2.example.net\n"),
        ("/etc/sysconfig/network", "A=b\n HOSTNAME='inst1' # x\n", "A=b\n HOSTNAME='inst2' # x\n"),
        ("/etc/sysconfig/network", "export HOSTNAME=inst1;\r\n", "export HOSTNAME=inst2;\r\n"),
        ("/etc/sysconfig/network", "HOSTNAME=localhost.localdomain", "HOSTNAME=inst2.example.net"),
        ("/etc/sysconfig/network", "HOSTNAME=\nGATEWAY=192.0.2.1", "HOSTNAME=inst2.example.net\nGATEWAY=192.0.2.1"),
        ("/etc/sysconfig/network", "NETWORKING=yes", "NETWORKING=yes\nHOSTNAME=inst2.example.net\n"),
        ("/etc/sysconfig/network", "#HOSTNAME=x\n", "#HOSTNAME=x\nHOSTNAME=inst2.example.net\n"),
        ("/etc/conf.d/hostname", 'HOSTNAME="inst1"\n', 'HOSTNAME="inst2"\n'),
        ("/etc/conf.d/hostname", 'hostname="localhost"\n', 'hostname="inst2"\n'),
    ],
)
def test_forms_of_the_host_name(tmp_path: Path, path: str, found: str, written: str) -> None:
    guest = GuestFiles.make(tmp_path, {path: found})
    for _ in range(2):
        guest.rename()
        assert guest.read() == {path: written}


@pytest.mark.parametrize(
    ("path", "found", "written"),
    [
        ("/etc/hostname", "inst1.example.org\n", "{}\n"),
        ("/etc/HOSTNAME", "", "{}\n"),
        ("/etc/sysconfig/network", "HOSTNAME=inst1.example.org\n", "HOSTNAME={}\n"),
        ("/etc/sysconfig/network", "NETWORKING=yes", "NETWORKING=yes\nHOSTNAME={}\n"),
    ],
)
def test_a_name_that_the_kernel_refuses_is_written_without_its_domain(
    tmp_path: Path, path: str, found: str, written: str
) -> None:
    domain = ".a-rather-long-subdomain.of-a-rather-long-domain.example.org"
    longest, too_long = ("x" * (length - len(domain)) for length in (64, 65))
    for host, name in ((longest, longest + domain), (too_long, too_long)):
        guest = GuestFiles.make(tmp_path / host, {path: found})
        for _ in range(2):
            guest.rename(new=host + domain)
            assert guest.read() == {path: written.format(name)}


def test_a_system_without_a_name_gets_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    guest = GuestFiles.make(tmp_path, {})
    guest.rename()
    assert guest.read() == {"/etc/hostname": "inst2\n"}
    assert (guest.root / "etc/hostname").stat().st_mode & 0o7777 == 0o644
    assert "made, with the host name inst2" in caplog.text


def test_systemd_reads_no_sysconfig(tmp_path: Path) -> None:
    guest = GuestFiles.make(tmp_path, {"/etc/sysconfig/network": "# Created by anaconda\n"})
    guest.write("/usr/lib/systemd/systemd", "")
    guest.rename()
    assert guest.read() == {"/etc/hostname": "inst2\n", "/etc/sysconfig/network": "# Created by anaconda\n"}


def test_all_places_that_hold_the_old_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    guest = GuestFiles.make(
        tmp_path,
        {
            "/etc/hostname": "inst1\n",
            "/etc/sysconfig/network": "HOSTNAME=inst1.example.org\n",
            "/etc/conf.d/hostname": "hostname=template\nHOSTNAME=`cat /etc/hostname`\n",
        },
    )
    (guest.root / "etc/HOSTNAME").symlink_to("hostname")
    caplog.set_level(logging.INFO)
    guest.rename()
    assert guest.read() == {
        "/etc/HOSTNAME": "inst2\n",
        "/etc/hostname": "inst2\n",
        "/etc/sysconfig/network": "HOSTNAME=inst2.example.net\n",
        "/etc/conf.d/hostname": "hostname=inst2\nHOSTNAME=`cat /etc/hostname`\nHOSTNAME=inst2\n",
    }
    assert (guest.root / "etc/HOSTNAME").is_symlink()
    text = (
        "/etc/conf.d/hostname: host name template is now inst2, host name inst2 is assigned at the end, after one that"
    )
    assert text in caplog.text


@pytest.mark.parametrize(
    ("path", "contents", "after"),
    [
        ("/etc/hostname", "other\n", "inst2\n"),
        ("/etc/hostname", "inst1.example.com\n", "inst2.example.net\n"),
        ("/etc/hostname", "other.\n", "inst2.example.net\n"),
        ("/etc/hostname", "inst10\n", "inst2\n"),
        ("/etc/hostname", "inst1 inst2\n", "inst2\n"),
        ("/etc/hostname", b"\xff\xfe\x00\n", "inst2\n"),
        ("/etc/hostname", "x" * 5000, "inst2"),
        ("/etc/HOSTNAME", "x y\n", "inst2.example.net\n"),
        ("/etc/sysconfig/network", "HOSTNAME=other\n", "HOSTNAME=inst2\n"),
        ("/etc/sysconfig/network", "HOSTNAME=other.corp.example\nA=b\n", "HOSTNAME=inst2.example.net\nA=b\n"),
        *(
            ("/etc/sysconfig/network", f"HOSTNAME={text}\n", f"HOSTNAME={text}\nHOSTNAME=inst2.example.net\n")
            for text in ("$(hostname -f)", '"$NAME"', "'inst1\n'", "inst1`true`")
        ),
        *(
            ("/etc/conf.d/hostname", f"hostname={text}\n", f"hostname={text}\nhostname=inst2\n")
            for text in ("inst1`true`", '"inst1" || true', '"inst1"#x')
        ),
    ],
)
def test_any_name_becomes_the_new_one(tmp_path: Path, path: str, contents: str | bytes, after: str) -> None:
    files: Files = {path: contents, "/etc/hosts": "127.0.1.1 inst1\n", "/etc/mailname": "inst1\n"}
    guest = GuestFiles.make(tmp_path, files)
    for _ in range(2):
        guest.rename()
        assert guest.read() == {
            path: after,
            "/etc/hosts": "127.0.1.1 inst2.example.net inst2\n",
            "/etc/mailname": "inst2\n",
        }


def test_a_name_that_was_not_the_instances_is_told_and_followed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The image's own name, say, where create left it: it stands for the system in its other files, too."""
    caplog.set_level(logging.INFO)
    hosts = "127.0.1.1 template.corp.example template\n192.0.2.9 template\n192.0.2.7 templates\n"
    guest = GuestFiles.make(
        tmp_path, {"/etc/hostname": "template\n", "/etc/hosts": hosts, "/etc/mailname": "template\n"}
    )
    guest.rename()
    assert guest.read() == {
        "/etc/hostname": "inst2\n",
        "/etc/hosts": "127.0.1.1 inst2.example.net inst2\n192.0.2.9 inst2\n192.0.2.7 templates\n",
        "/etc/mailname": "inst2\n",
    }
    assert "the system called itself template, not inst1 like its instance" in caplog.text
    assert "/etc/hostname: host name template is now inst2" in caplog.messages


def test_a_host_name_that_is_a_link_to_nothing_becomes_a_file(tmp_path: Path) -> None:
    guest = GuestFiles.make(tmp_path, {})
    (guest.root / "etc/hostname").symlink_to("/run/host/name")
    guest.rename()
    assert guest.read() == {"/etc/hostname": "inst2\n"}
    assert not (guest.root / "etc/hostname").is_symlink()


@pytest.mark.parametrize(
    ("hosts", "ip", "after"),
    [
        (
            None,
            "",
            "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\tinst2.example.net inst2\n",
        ),
        (
            "127.0.0.1 localhost\n::1 ip6-localhost",
            "",
            "127.0.0.1 localhost\n127.0.1.1\tinst2.example.net inst2\n::1 ip6-localhost\n",
        ),
        ("# nothing", "192.0.2.4", "# nothing\n192.0.2.4\tinst2.example.net inst2\n"),
        ("127.0.0.1 localhost\n127.0.1.1 debian", "", "127.0.0.1 localhost\n127.0.1.1 inst2.example.net inst2"),
        ("127.0.0.1 localhost debian", "", "127.0.0.1 localhost inst2"),
        ("127.0.1.1 other.example.org other", "", "127.0.1.1 inst2.example.net inst2 other.example.org other"),
        ("127.0.1.1 #", "", "127.0.1.1 #\n127.0.1.1\tinst2.example.net inst2\n"),
    ],
)
def test_a_new_system_gets_a_line_in_hosts(tmp_path: Path, hosts: str | None, ip: str, after: str) -> None:
    guest = GuestFiles.make(tmp_path, {"/etc/hostname": "debian\n", **({} if hosts is None else {"/etc/hosts": hosts})})
    for _ in range(2):
        guest.become(ip)
        assert guest.read() == {"/etc/hostname": "inst2\n", "/etc/hosts": after}


def test_an_import_under_another_name_that_was_renamed_already(tmp_path: Path) -> None:
    guest = GuestFiles.make(tmp_path, {"/etc/hostname": "inst2\n", "/etc/hosts": "127.0.1.1 inst1.example.org inst2\n"})
    guest.rename()
    assert guest.read() == {"/etc/hostname": "inst2\n", "/etc/hosts": "127.0.1.1 inst2.example.net inst2\n"}


@pytest.mark.parametrize("name", ["/etc/hostname", "/etc/hosts", "/etc/HOSTNAME", "/etc/conf.d/hostname"])
@pytest.mark.parametrize("kind", ["fifo", "directory", "device", "loop", "huge", "outside", "magic"])
def test_hostile_files(tmp_path: Path, name: str, kind: str) -> None:
    guest = GuestFiles.make(tmp_path, {"/etc/conf.d/x": "", "/etc/mailname": "inst1\n"})
    path = Path(f"{guest.root}{name}")
    secret = tmp_path / "etc/hostname"
    secret.parent.mkdir()
    secret.write_text("inst1\n")
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
        (guest.root / "dev").mkdir()
        os.mkfifo(guest.root / "dev/zero")
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "huge":
        with path.open("wb") as file:
            file.truncate(1 << 40)
    elif kind == "magic":
        (guest.root / "proc").symlink_to("/proc")
        path.symlink_to("/proc/self/root/etc/hostname")
    else:
        path.symlink_to("../" * 20 + str(secret).lstrip("/"))
    host_name = Path("/etc/hostname").read_bytes()
    if kind == "outside":  # it ends inside, where nothing is
        guest.rename()
    else:
        with pytest.raises(DiskImageError) as caught:
            guest.rename()
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)
        assert (guest.root / "etc/mailname").read_text() == "inst1\n"
    assert secret.read_text() == "inst1\n"
    assert Path("/etc/hostname").read_bytes() == host_name


def test_too_many_files_are_refused(tmp_path: Path) -> None:
    files: Files = {"/etc/hostname": "inst1\n", **{f"/etc/network/interfaces.d/{n}": "" for n in range(300)}}
    guest = GuestFiles.make(tmp_path, files)
    with pytest.raises(GuestError, match=r"interfaces.d: 300 names match \*; at most 256"):
        guest.rename()
    assert guest.read() == files


def test_too_many_bytes_are_refused(tmp_path: Path) -> None:
    files: Files = {"/etc/hostname": "inst1\n", **{f"/etc/netplan/{n}.yaml": b"# \n" * 300000 for n in range(20)}}
    guest = GuestFiles.make(tmp_path, files)
    with pytest.raises(GuestError, match="are larger than 16777216 bytes"):
        guest.rename()


def test_special_files_among_many_are_left_out(tmp_path: Path) -> None:
    guest = GuestFiles.make(tmp_path, {"/etc/hostname": "inst1\n", "/etc/network/interfaces": ""})
    (guest.root / "etc/network/interfaces.d").mkdir()
    os.mkfifo(guest.root / "etc/network/interfaces.d/fifo")
    (guest.root / "etc/network/interfaces.d/loop").symlink_to("loop")
    guest.rename()
    assert (guest.root / "etc/hostname").read_text() == "inst2\n"


def test_interrupted_anywhere_the_next_run_does_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    static = {"/etc/network/interfaces": "iface eth0 inet static\naddress 192.0.2.10/24\n"}
    hosts = {"/etc/hosts": "192.0.2.10 inst1.example.org inst1\n127.0.1.1 inst1.example.org\n"}
    files: Files = {**DEBIAN_12, **hosts, **static}
    wanted = {path: str(text).replace("192.0.2.10", "192.0.2.20") for path, text in expected(files).items()}
    replace = mounted_tree.MountedTree.replace
    for count in range(5):
        guest = GuestFiles.make(tmp_path / str(count), files)
        left = iter(range(count))

        def broken(self: mounted_tree.MountedTree, path: str, data: bytes, left: object = left) -> None:
            if next(left, None) is None:  # type: ignore[call-overload]
                raise KeyboardInterrupt
            replace(self, path, data)

        monkeypatch.setattr(mounted_tree.MountedTree, "replace", broken)
        with pytest.raises(KeyboardInterrupt):
            guest.rename("192.0.2.20")
        monkeypatch.setattr(mounted_tree.MountedTree, "replace", replace)
        assert guest.read() != wanted
        guest.rename("192.0.2.20")
        assert guest.read() == wanted


@pytest.mark.parametrize(
    ("old", "new", "found", "replaced"),
    [
        ("a.b", "c.d", "A", "c"),
        ("a.b", "c.d", "a.B", "c.d"),
        ("a.b", "c.d", "C.D", None),
        ("a.b", "c.d", "a.d", None),
        ("a.b", "c.d", "b", None),
        ("a.b", "a.c", "a.b", "a.c"),
        ("a", "c.d", "a", "c"),
        ("a.b", "c", "a.b", "c"),
        ("a.b", "a", "a.b", "a"),
        ("localhost", "c.d", "localhost", None),
    ],
)
def test_forms_of_names(old: str, new: str, found: str, replaced: str | None) -> None:
    assert Renaming.of(new, [old]).replaced(found) == replaced


LONG = [
    *(b"config_a=(\n", b'config_a="', b"HOSTNAME='\n", b"hostname=", b"IPADDR=1\n", b"preserve_hostname: "),
    *(b"[a", b"[Network]\nAddress=10.0.0.1/24\n", b"iface ", b"iface a inet static\n", b"address 10.0.0.1\n"),
    *(b"- ", b"a: ", b"network:\n ethernets:\n  a:\n   b: ", b"default ", b"send host-name ", b"inst1 "),
    *(b"\n", b"\r", b" ", b"a", b"a.", b"#"),
]
PLACES = [
    *("/etc/hosts", "/etc/mailname", "/etc/conf.d/net", "/etc/dhcp/dhclient.conf", "/etc/network/interfaces"),
    *("/etc/netplan/a.yaml", "/etc/sysconfig/network/ifcfg-a", "/etc/sysconfig/network/routes"),
    *("/etc/systemd/network/a.network", "/etc/cloud/cloud.cfg", "/etc/conf.d/hostname"),
]


@pytest.mark.parametrize("piece", LONG)
def test_large_files_take_seconds_at_most(tmp_path: Path, piece: bytes) -> None:
    data = piece * (500_000 // len(piece))
    guest = GuestFiles.make(tmp_path, {"/etc/hostname": "inst1\n", **dict.fromkeys(PLACES, data)})
    with limits(8, 400 << 20):  # the slowest takes one second; a step for each pair of letters takes hours
        guest.rename("192.0.2.77")
