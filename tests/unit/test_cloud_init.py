# SPDX-License-Identifier: MIT
"""cloud-init in a guest's tree: whether it runs, the seed of a new instance, and what a rename changes and keeps."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ganeti_os.guest.cloud_init import (
    USER_DATA_LIMIT,
    check_user_data,
    cloud_init_configures_network,
    cloud_init_is_active,
    configure_cloud_init,
    needs_seed_volume,
    renamed_meta_data,
    renamed_user_data,
    renewed_seed,
)
from ganeti_os.guest.draft import Draft
from ganeti_os.guest.facts import Facts
from ganeti_os.guest.network.new_addresses import NewAddress, NicNetwork
from ganeti_os.guest.network.writing.plan import HEADER
from ganeti_os.settings import Layer, Settings
from pydiskimg.errors import DiskImageError
from pydiskimg.tree import open_tree
from tests.fixtures.guests import GuestFiles
from tests.fixtures.limits import limits
from tests.fixtures.odd_files import put_odd_file

Files = dict[str, str | bytes]

INSTALLED: Files = {
    "/etc/cloud/cloud.cfg": "users:\n  - default\ndisable_root: true\npreserve_hostname: false\n",
    "/usr/bin/cloud-init": "#!/usr/bin/python3\n",
    "/usr/sbin/netplan": "#!/usr/bin/python3\n",
}
SEED = "/var/lib/cloud/seed/nocloud"
STATE: Files = {
    "/var/lib/cloud/data/instance-id": "iid-1\n",
    "/var/lib/cloud/data/previous-hostname": "inst1\n",
    "/var/lib/cloud/data/set-hostname": "{}\n",
    "/var/lib/cloud/instances/iid-1/obj.pkl": b"\x80\x04.",
    "/var/lib/cloud/instances/iid-1/datasource": f"DataSourceNoCloud: DataSourceNoCloud [seed={SEED}][dsmode=net]\n",
    "/var/lib/cloud/instances/iid-1/sem/config_ssh": "done\n",
    "/var/lib/cloud/sem/config_scripts_per_once.once": "done\n",
}
NIC = NicNetwork(
    0, "aa:00:00:11:22:33", (NewAddress(ip_address("192.0.2.10"), ip_network("192.0.2.0/24"), ip_address("192.0.2.1")),)
)
DHCP = NicNetwork(0, "aa:00:00:11:22:33")
NEW = Facts(name="inst1.example.org", old_name=None, uuid="11-22", is_new=True, nics=(NIC,))
RENAMED = Facts(name="inst2.example.net", old_name="inst1.example.org", uuid="11-22", is_new=False, nics=(NIC,))


def guest(directory: Path, *files: Files) -> GuestFiles:
    made = GuestFiles.make(directory, {name: text for some in files for name, text in some.items()})
    if (made.root / "var/lib/cloud/instances/iid-1").exists():
        (made.root / "var/lib/cloud/instance").symlink_to("/var/lib/cloud/instances/iid-1")
    return made


def cloud_settings(**values: str) -> Settings:
    return Settings.from_layers([Layer("test", values)])


def configure(made: GuestFiles, facts: Facts, **values: str) -> int:
    with open_tree(made.root) as tree:
        draft = Draft(tree)
        configure_cloud_init(draft, facts, cloud_settings(**values))
        return draft.write(lambda _: 0)


def read(made: GuestFiles, path: str) -> str:
    return Path(f"{made.root}{path}").read_text()


def exists(made: GuestFiles, path: str) -> bool:
    return os.path.lexists(f"{made.root}{path}")


def active(made: GuestFiles) -> bool:
    with open_tree(made.root) as tree:
        return cloud_init_is_active(Draft(tree))


def configures_network(made: GuestFiles, facts: Facts) -> bool:
    with open_tree(made.root) as tree:
        return cloud_init_configures_network(Draft(tree), facts)


# What a system says of cloud-init, and whether it runs there.


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (INSTALLED, True),
        ({"/etc/cloud/cloud.cfg": "x: 1\n"}, True),  # /usr is a file system of its own
        ({"/etc/cloud/cloud.cfg": "x: 1\n", "/usr/bin/python3": ""}, False),  # Debian's package removed, not purged
        ({"/usr/bin/cloud-init": ""}, False),
        ({**INSTALLED, "/etc/cloud/cloud-init.disabled": ""}, False),
        ({**INSTALLED, "/etc/cloud/ds-identify.cfg": "policy: disabled\n"}, False),
        ({**INSTALLED, "/etc/cloud/ds-identify.cfg": "#policy: disabled\npolicy: enabled\n"}, True),
        ({**INSTALLED, "/etc/systemd/system/cloud-init.target": ""}, False),
        ({**INSTALLED, "/etc/systemd/system/cloud-init.service": "[Unit]\n"}, True),
        ({**INSTALLED, "/etc/default/grub": 'GRUB_CMDLINE_LINUX="quiet cloud-init=disabled"\n'}, False),
        ({**INSTALLED, "/etc/default/grub": "GRUB_CMDLINE_LINUX='cloud-init=disabled'\n"}, False),
        ({**INSTALLED, "/etc/default/grub": 'GRUB_CMDLINE_LINUX="no-cloud-init=disabled-x"\n'}, True),
        ({**INSTALLED, "/boot/grub2/grub.cfg": "linux /vmlinuz cloud-init=disabled\n"}, False),
        ({**INSTALLED, "/boot/loader/entries/1.conf": "options cloud-init=disabled\n"}, False),
        ({**INSTALLED, "/etc/kernel/cmdline": "cloud-init=enabled\n"}, True),
        ({**INSTALLED, "/etc/runlevels/default/sshd": ""}, False),
        ({**INSTALLED, "/etc/runlevels/boot/cloud-init": "", "/etc/runlevels/default/sshd": ""}, True),
    ],
)
def test_whether_it_runs(tmp_path: Path, files: Files, expected: bool) -> None:
    assert active(guest(tmp_path, files)) == expected


@pytest.mark.parametrize("with_dev_null", [False, True])
def test_masked_units(tmp_path: Path, with_dev_null: bool) -> None:
    made = guest(tmp_path, INSTALLED)
    units = made.root / "etc/systemd/system"
    units.mkdir(parents=True)
    if with_dev_null:
        (made.root / "dev").mkdir()
        os.mkfifo(made.root / "dev/null")
    (units / "cloud-init.service").symlink_to("/dev/null")
    assert not active(made)


def test_what_is_disabled_is_left(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    made = guest(tmp_path, INSTALLED, {"/etc/cloud/cloud-init.disabled": ""})
    assert configure(made, NEW) == 0
    assert caplog.messages == [
        "cloud-init is installed but disabled by /etc/cloud/cloud-init.disabled; it is left as it is"
    ]
    caplog.clear()
    assert configure(guest(tmp_path / "2", {"/etc/hostname": "x\n"}), NEW) == 0
    assert not caplog.messages


# A new instance.


def test_a_new_instance(tmp_path: Path) -> None:
    made = guest(tmp_path, INSTALLED)
    configure(made, NEW)
    assert yaml.safe_load(read(made, f"{SEED}/meta-data")) == {
        "instance-id": "11-22-inst1.example.org",
        "local-hostname": "inst1.example.org",
    }
    assert read(made, f"{SEED}/user-data") == "#cloud-config\n{}\n"
    assert yaml.safe_load(read(made, f"{SEED}/network-config"))["ethernets"]["0-eth0"]["addresses"] == ["192.0.2.10/24"]
    modes = [(made.root / SEED[1:] / name).stat().st_mode & 0o777 for name in ("user-data", "network-config")]
    assert modes == [0o600, 0o600]
    assert not exists(made, "/etc/cloud/cloud.cfg.d")
    assert configures_network(made, NEW)
    assert configure(made, NEW) == 0


def test_the_administrators_user_data(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = guest(tmp_path, INSTALLED)
    file = tmp_path / "user-data"
    file.write_bytes(b"#!/bin/sh\n\xff\0")
    configure(made, NEW, CLOUD_USER_DATA=str(file))
    assert (made.root / SEED[1:] / "user-data").read_bytes() == b"#!/bin/sh\n\xff\0"
    assert not caplog.messages
    check_user_data(cloud_settings())
    file.write_text("hostname: x\n")
    check_user_data(cloud_settings(CLOUD_USER_DATA=str(file)))
    assert "cloud-init ignores user-data that begins like this" in caplog.text
    file.write_bytes(b"#!".ljust(USER_DATA_LIMIT + 1))
    with pytest.raises(DiskImageError, match=f"{file}: CLOUD_USER_DATA is larger than 524288 bytes"):
        configure(made, NEW, CLOUD_USER_DATA=str(file))
    file.unlink()
    with pytest.raises(DiskImageError, match=f"{file}: CLOUD_USER_DATA cannot be read"):
        configure(made, NEW, CLOUD_USER_DATA=str(file))


def test_an_image_that_was_booted(tmp_path: Path) -> None:
    old: Files = {f"{SEED}-net/meta-data": "instance-id: old\n", f"{SEED}-net/user-data": "#cloud-config\nx: 1\n"}
    same: Files = {"/var/lib/cloud/instances/11-22-inst1.example.org/sem/config_ssh": "done\n"}
    made = guest(tmp_path, INSTALLED, STATE, old, same)
    configure(made, NEW)
    # The seed that it reads is the one with both files, and its user-data is the image's.
    assert 'instance-id: "11-22-' in read(made, f"{SEED}-net/meta-data")
    assert read(made, f"{SEED}-net/user-data") == "#cloud-config\nx: 1\n"
    assert not exists(made, SEED)
    gone = ["instance", "data/instance-id", "data/previous-hostname", "sem/config_scripts_per_once.once"]
    gone += ["instances/11-22-inst1.example.org/sem/config_ssh"]
    assert [path for path in gone if exists(made, f"/var/lib/cloud/{path}")] == []


@pytest.mark.parametrize(
    ("text", "admitted"),
    [
        ("datasource_list: [ NoCloud, ConfigDrive, None ]\n", True),
        ("datasource_list: [ Ec2 ] # [NoCloud]\n", False),
        ("datasource_list: ['Ec2',\n  'None']\n", False),
        ("datasource_list:\n- Ec2\n\n# NoCloud\n  - None\nx: NoCloud\n", False),
        ("datasource_list:\n  - Ec2\n  - NoCloud", True),
        ("datasource_list: # these\n  - NoCloud\n", True),
        ("#datasource_list: [ Ec2 ]\n", True),
        ("datasource:\n  Ec2:\n    datasource_list: [ Ec2 ]\n", True),
    ],
)
def test_lists_of_datasources(tmp_path: Path, text: str, admitted: bool) -> None:
    made = guest(tmp_path, INSTALLED, {"/etc/cloud/cloud.cfg.d/90_dpkg.cfg": text})
    configure(made, NEW)
    own = "/etc/cloud/cloud.cfg.d/99_ganeti.cfg"
    assert exists(made, own) != admitted
    if not admitted:
        assert yaml.safe_load(read(made, own)) == {"datasource_list": ["NoCloud", "None"]}
        assert configure(made, NEW) == 0  # its own file is no reason for another one


def test_the_last_file_counts(tmp_path: Path) -> None:
    files: Files = {
        "/etc/cloud/cloud.cfg.d/10.cfg": "datasource_list: [ NoCloud ]\n",
        "/etc/cloud/cloud.cfg.d/zz_foo.cfg": "datasource_list: [ Azure ]\n",
    }
    made = guest(tmp_path, INSTALLED, files)
    configure(made, NEW)
    assert sorted(os.listdir(made.root / "etc/cloud/cloud.cfg.d")) == ["10.cfg", "zz_foo.cfg", "zz_foo_ganeti.cfg"]


IFUPDOWN: Files = {"/sbin/ifup": "x", "/sbin/ifquery": "x", "/etc/network/interfaces": "auto lo\n"}
PLAIN: Files = {name: text for name, text in INSTALLED.items() if name != "/usr/sbin/netplan"}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (INSTALLED, True),
        ({**INSTALLED, **IFUPDOWN}, False),  # its renderer for ifupdown needs route(8)
        ({**INSTALLED, **IFUPDOWN, "/etc/cloud/cloud.cfg.d/1.cfg": "a:\n  renderers: ['netplan', 'eni']\n"}, True),
        (PLAIN, False),  # networkd alone
        ({**PLAIN, "/usr/bin/nmcli": "x"}, True),
        ({**PLAIN, "/etc/sysconfig/network-scripts/network-functions": "x"}, True),
        ({**PLAIN, "/etc/sysconfig/network/config": "x"}, True),
        ({**INSTALLED, "/etc/cloud/cloud.cfg.d/1.cfg": "network: {config: disabled}\n"}, False),
        ({**INSTALLED, "/etc/cloud/cloud.cfg.d/1.cfg": "network:\n  version: 2\n"}, False),
    ],
)
def test_who_configures_the_network(tmp_path: Path, files: Files, expected: bool) -> None:
    made = guest(tmp_path, files)
    assert configures_network(made, NEW) == expected
    configure(made, NEW)
    own = "/etc/cloud/cloud.cfg.d/99_ganeti.cfg"
    if not expected:
        assert yaml.safe_load(read(made, own)) == {"network": {"config": "disabled"}}
    assert exists(made, own) != expected
    assert configures_network(made, NEW) == configures_network(made, RENAMED) == expected


def test_other_netplan_files_go(tmp_path: Path) -> None:
    """Debian's pattern en* finds ens3 at boot, before it is eth0, and the boot would wait for it."""
    text = "network: {version: 2, ethernets: {all-en: {match: {name: 'en*'}, dhcp4: true}}}\n"
    made = guest(tmp_path, INSTALLED, {"/etc/netplan/90-default.yaml": text, "/etc/netplan/01.yaml": "network: {}\n"})
    configure(made, replace(NEW, nics=()))
    assert exists(made, "/etc/netplan/90-default.yaml")
    configure(made, NEW)
    assert os.listdir(made.root / "etc/netplan") == ["01.yaml"]


@pytest.mark.parametrize(
    ("fstab", "expected"),
    [
        ("UUID=1 / btrfs subvol=root 0 0\nUUID=1 /var btrfs subvol=var 0 0\n", True),
        ("UUID=1 /var/ ext4 defaults 0 0\n", True),
        ("  /dev/vg/lib\t/var/lib\text4\n", True),
        ("UUID=1 / ext4 defaults 0 0\nUUID=2 /var/log ext4\n#UUID=3 /var ext4\n", False),
    ],
)
def test_a_seed_under_a_mount_point(tmp_path: Path, fstab: str, expected: bool) -> None:
    with open_tree(guest(tmp_path / "1", INSTALLED, {"/etc/fstab": fstab}).root) as tree:
        assert needs_seed_volume(tree) == expected
        assert not needs_seed_volume(tree, ("/home", "/var", "/var/lib"))
        assert needs_seed_volume(tree, ("/home",)) == expected
    with open_tree(guest(tmp_path / "2", {"/usr/bin/sh": "x", "/etc/fstab": fstab}).root) as tree:
        assert not needs_seed_volume(tree)


def test_the_mount_point_next_to_the_seed_counts(tmp_path: Path) -> None:
    fstab = "UUID=1 /var ext4\nUUID=2 /var/lib ext4\n"
    with open_tree(guest(tmp_path, INSTALLED, {"/etc/fstab": fstab}).root) as tree:
        assert not needs_seed_volume(tree, ("/var/lib",))
        assert needs_seed_volume(tree, ("/var",))


# A rename.


def test_a_rename_keeps_the_identity(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = guest(tmp_path, INSTALLED, STATE)
    configure(made, Facts(name=NEW.name, old_name=None, uuid="11-22", is_new=True, nics=(DHCP,)))
    for name, text in STATE.items():  # it was booted
        made.write(name, text)
    (made.root / "var/lib/cloud/instance").symlink_to("/var/lib/cloud/instances/iid-1")
    caplog.set_level(logging.INFO)
    configure(made, RENAMED)
    assert yaml.safe_load(read(made, f"{SEED}/meta-data")) == {
        "instance-id": "11-22-inst1.example.org",
        "local-hostname": "inst2.example.net",
    }
    assert "192.0.2.10/24" in read(made, f"{SEED}/network-config")
    # It reads the seed again and configures the network again, but knows what it did once: its keys stay.
    left = ["instances/iid-1/sem/config_ssh", "sem/config_scripts_per_once.once", "instance", "data/set-hostname"]
    gone = ["instances/iid-1/obj.pkl", "data/instance-id", "data/previous-hostname"]
    assert [exists(made, f"/var/lib/cloud/{path}") for path in left + gone] == [True] * 4 + [False] * 3
    assert "/var/lib/cloud/instance/obj.pkl: cloud-init reads its seed again" in caplog.messages
    assert configure(made, RENAMED) == 0


def test_the_network_stays_where_it_did_not_change(tmp_path: Path) -> None:
    made = guest(tmp_path, INSTALLED)
    configure(made, NEW)
    for name, text in STATE.items():
        made.write(name, text)
    configure(made, RENAMED)
    assert exists(made, "/var/lib/cloud/data/instance-id")


def test_a_seed_of_others(tmp_path: Path) -> None:
    user_data = "#cloud-config\nhostname: web\nfqdn: 'web.example.com' # ours\nruncmd:\n- hostname: web\n"
    files: Files = {
        f"{SEED}-net/meta-data": '{"instance-id": "iid-1", "local-hostname": "web", "public-keys": ["ssh-rsa x"]}',
        f"{SEED}-net/user-data": user_data,
        f"{SEED}-net/network-config": "version: 1\nconfig: []\n",
        f"{SEED}/meta-data": "instance-id: not complete\n",
    }
    made = guest(tmp_path, INSTALLED, STATE, files)
    unknown = Facts(name=RENAMED.name, old_name="a", uuid=None, is_new=False, nics=(DHCP,))
    configure(made, unknown)
    assert json.loads(read(made, f"{SEED}-net/meta-data")) == {
        "instance-id": "iid-1",
        "local-hostname": "inst2.example.net",
        "public-keys": ["ssh-rsa x"],
    }
    renamed = user_data.replace("hostname: web\nf", "hostname: inst2\nf").replace(
        "'web.example.com'", "inst2.example.net"
    )
    assert read(made, f"{SEED}-net/user-data") == renamed
    # No address of the instance is known, so that the network is the guest's own.
    assert read(made, f"{SEED}-net/network-config") == "version: 1\nconfig: []\n"
    assert exists(made, "/var/lib/cloud/data/instance-id")
    assert read(made, f"{SEED}/meta-data") == "instance-id: not complete\n"
    configure(made, RENAMED)
    assert read(made, f"{SEED}-net/network-config").encode().startswith(HEADER)
    assert not exists(made, "/var/lib/cloud/data/instance-id")


def test_a_cloud_init_that_never_ran_gets_no_seed(tmp_path: Path) -> None:
    made = guest(tmp_path, INSTALLED)
    assert configure(made, RENAMED) == 0
    assert not configures_network(made, RENAMED)


def test_names_in_the_images_configuration(tmp_path: Path) -> None:
    made = guest(tmp_path, INSTALLED, {"/etc/cloud/cloud.cfg.d/50.cfg": "hostname: web.example.com\nx: y\n"})
    configure(made, RENAMED)
    assert read(made, "/etc/cloud/cloud.cfg.d/50.cfg") == "hostname: inst2.example.net\nx: y\n"


@pytest.mark.parametrize(
    ("datasource", "expected"),
    [
        (
            "DataSourceConfigDrive: DataSourceConfigDrive [net,ver=2][source=/dev/sr0]",
            "takes its name from DataSourceConf",
        ),
        ("DataSourceNone: DataSourceNone", None),
        ("DataSourceNoCloud: DataSourceNoCloud [seed=/dev/vda2][dsmode=net]", "from the seed on /dev/vda2 first"),
        ("DataSourceNoCloud: DataSourceNoCloud [seed=/var/lib/cloud/seed/nocloud,/dev/sr0]", "nocloud,/dev/sr0 first"),
        ("rubbish", None),
        ("DataSource\0: [seed=]", None),
    ],
)
def test_other_datasources_are_told(
    tmp_path: Path, datasource: str, expected: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path = "/var/lib/cloud/instances/iid-1/datasource"
    configure(guest(tmp_path, INSTALLED, {**STATE, path: f"{datasource}\n"}), RENAMED)
    assert len(caplog.messages) == (expected is not None)
    assert expected is None or expected in caplog.text


def test_import_as_a_new_machine_keeps_user_data(tmp_path: Path) -> None:
    files: Files = {f"{SEED}/meta-data": "instance-id: a\n", f"{SEED}/user-data": "#cloud-config\nx: 1\n"}
    made = guest(tmp_path, INSTALLED, STATE, files)
    configure(made, NEW)
    assert read(made, f"{SEED}/user-data") == "#cloud-config\nx: 1\n"
    assert 'instance-id: "11-22-' in read(made, f"{SEED}/meta-data")


# Texts of others.


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("", 'local-hostname: "n.x"\n'),
        ("instance-id: a", 'instance-id: a\nlocal-hostname: "n.x"\n'),
        ("instance-id: a\n'local-hostname': b\nx: y\n", 'instance-id: a\nlocal-hostname: "n.x"\nx: y\n'),
        ("x:\n  local-hostname: b\n", 'x:\n  local-hostname: b\nlocal-hostname: "n.x"\n'),
        ('{"a": 1', '{"a": 1'),
        ("[" * 100000, "[" * 100000 + '\nlocal-hostname: "n.x"\n'),
        ('{"a":' * 100000, '{"a":' * 100000),
    ],
)
def test_meta_data_of_any_kind(data: str, expected: str) -> None:
    assert renamed_meta_data(data.encode(), "n.x").decode() == expected


@given(st.binary(max_size=300))
def test_any_meta_data(data: bytes) -> None:
    once = renamed_meta_data(data, "n.x")
    assert renamed_meta_data(once, "n.x") == once


@given(st.binary(max_size=300))
def test_any_user_data(data: bytes) -> None:
    renamed = renamed_user_data(b"#cloud-config\n" + data, "n.x")
    assert renamed_user_data(renamed, "n.x") == renamed
    assert renamed_user_data(b"#!/bin/sh\n" + data, "n.x") == b"#!/bin/sh\n" + data


def test_user_data_is_for_root_only_also_in_the_place_of_the_images(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("#cloud-config\npassword: secret\n")
    made = guest(tmp_path, INSTALLED, {f"{SEED}/user-data": "#cloud-config\n", f"{SEED}/meta-data": ""})
    settings = Settings.from_layers([Layer("test", {"CLOUD_USER_DATA": str(own)})])
    with open_tree(made.root) as tree:
        draft = Draft(tree)
        configure_cloud_init(draft, NEW, settings)
        draft.write(lambda _: 0)
    written = Path(f"{made.root}{SEED}/user-data")
    assert (written.read_text(), written.stat().st_mode & 0o777) == (own.read_text(), 0o600)


def test_long_lines_take_no_time() -> None:
    data = b"#cloud-config\n" + b"hostname: " + b"a" * (1 << 20) + b"\n" + b"fqdn:" + b" " * (1 << 20)
    with limits(seconds=5):
        renamed_user_data(data, "n.x")
        renamed_meta_data(b"local-hostname:" + b" " * (1 << 20), "n.x")


@pytest.mark.parametrize(
    "line", ["datasource_list: [", "datasource_list:", "  renderers: [", "fqdn: a", " [", "/dev/a /"]
)
def test_a_configuration_of_many_beginnings_takes_no_time(tmp_path: Path, line: str) -> None:
    text = f"{line}\n" * ((1 << 20) // (len(line) + 1))
    made = guest(tmp_path, INSTALLED, {"/etc/cloud/cloud.cfg": text, "/etc/fstab": text})
    with limits(seconds=5):
        configure(made, NEW)
        with open_tree(made.root) as tree:
            needs_seed_volume(tree)


def test_a_seed_that_becomes_another_machine() -> None:
    files = {"meta-data": b"instance-id: a\n", "user-data": b"#cloud-config\n"}
    assert b'instance-id: "11-22-inst1' in renewed_seed(files, NEW)["meta-data"]
    assert renewed_seed(files, RENAMED)["meta-data"] == b'instance-id: a\nlocal-hostname: "inst2.example.net"\n'


# Hostile.

PATHS = [
    *("/etc/cloud/cloud.cfg.d/99_ganeti.cfg", f"{SEED}/meta-data", f"{SEED}/user-data", f"{SEED}/network-config"),
    *("/var/lib/cloud/data/instance-id", "/var/lib/cloud/data/x", "/var/lib/cloud/instance", "/etc/fstab"),
    *("/etc/default/grub", "/etc/cloud/ds-identify.cfg", "/boot/grub/grub.cfg", "/etc/cloud/cloud-init.disabled"),
    *("/var/lib/cloud/seed", "/var/lib/cloud/seed/nocloud", "/var/lib/cloud/instance/datasource", "/var/lib"),
]
EC2: Files = {"/etc/cloud/cloud.cfg.d/90.cfg": "datasource_list: [ Ec2 ]\n"}


@pytest.mark.parametrize("kind", ["symlink", "fifo", "directory", "large", "loop"])
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("facts", [NEW, RENAMED], ids=["new", "renamed"])
def test_hostile_paths(tmp_path: Path, path: str, kind: str, facts: Facts) -> None:
    """Nothing outside of the tree is touched, nothing hangs, and an error names a path."""
    outside = tmp_path / "outside"
    outside.mkdir()
    for name in ("meta-data", "user-data", "network-config"):
        (outside / name).write_text("precious")
    made = guest(tmp_path, INSTALLED, EC2)
    target = Path(f"{made.root}{path}")
    target.parent.mkdir(parents=True, exist_ok=True)
    put_odd_file(target, kind, link=outside if kind == "symlink" else target.name)
    with limits(seconds=10):
        try:
            configure(made, facts)
        except DiskImageError as error:
            said = str(error)
        else:
            said = "/"
    assert "/" in said
    assert [(outside / name).read_text() for name in sorted(os.listdir(outside))] == ["precious"] * 3
