# SPDX-License-Identifier: MIT
"""cloud-init in a guest that is renamed or imported: what changes under its old identity, and what stays."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import yaml

from ganeti_os.guest.facts.instance import Facts
from ganeti_os.guest.network.writing.nic_plan import HEADER
from tests.fixtures.cloud_guests import (
    DHCP,
    INSTALLED,
    NEW,
    RENAMED,
    SEED,
    STATE,
    Files,
    configure,
    configures_network,
    exists,
    guest,
    read,
)


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
