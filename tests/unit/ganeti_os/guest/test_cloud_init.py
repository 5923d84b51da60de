# SPDX-License-Identifier: MIT
"""cloud-init in a guest's tree: whether it runs, the seed of a new instance, and texts of others."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ganeti_os.guest.cloud_init import (
    USER_DATA_LIMIT,
    check_user_data,
    cloud_init_is_active,
    configure_cloud_init,
    needs_seed_volume,
    renamed_meta_data,
    renamed_user_data,
    renewed_seed,
)
from ganeti_os.guest.facts.instance import Facts
from ganeti_os.settings.settings import Layer, Settings
from pydiskimg.errors import DiskImageError
from pydiskimg.files.mounted_tree import open_mounted_tree
from pydiskimg.system.edits.draft import Draft
from tests.fixtures.cloud_guests import (
    INSTALLED,
    NEW,
    RENAMED,
    SEED,
    STATE,
    Files,
    cloud_settings,
    configure,
    configures_network,
    exists,
    guest,
    read,
)
from tests.fixtures.guests import GuestFiles
from tests.fixtures.limits import limits
from tests.fixtures.odd_files import put_odd_file


def active(made: GuestFiles) -> bool:
    with open_mounted_tree(made.root) as tree:
        return cloud_init_is_active(Draft(tree))


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
        "cloud-init is installed but disabled by /etc/cloud/cloud-init.disabled; it is not changed"
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
    file.chmod(0o646)
    with pytest.raises(DiskImageError, match=r"all users can write to it .* its content runs as root in instances"):
        check_user_data(cloud_settings(CLOUD_USER_DATA=str(file)))
    file.chmod(0o644)
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
    with open_mounted_tree(guest(tmp_path / "1", INSTALLED, {"/etc/fstab": fstab}).root) as tree:
        assert needs_seed_volume(tree) == expected
        assert not needs_seed_volume(tree, ("/home", "/var", "/var/lib"))
        assert needs_seed_volume(tree, ("/home",)) == expected
    with open_mounted_tree(guest(tmp_path / "2", {"/usr/bin/sh": "x", "/etc/fstab": fstab}).root) as tree:
        assert not needs_seed_volume(tree)


def test_the_mount_point_next_to_the_seed_counts(tmp_path: Path) -> None:
    fstab = "UUID=1 /var ext4\nUUID=2 /var/lib ext4\n"
    with open_mounted_tree(guest(tmp_path, INSTALLED, {"/etc/fstab": fstab}).root) as tree:
        assert not needs_seed_volume(tree, ("/var/lib",))
        assert needs_seed_volume(tree, ("/var",))


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
    with open_mounted_tree(made.root) as tree:
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
        with open_mounted_tree(made.root) as tree:
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
