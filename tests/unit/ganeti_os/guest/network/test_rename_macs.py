# SPDX-License-Identifier: MIT
"""An import gives new hardware addresses: what the guest matches by the old ones goes on to apply."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fixtures.guests import GuestFiles, warnings

OLD, NEW = "aa:00:00:1b:2c:3d", "aa:00:00:00:00:0e"
RULES = "/etc/udev/rules.d/70-persistent-net.rules"
RULE = (
    "# PCI device 0x1af4:0x1000 (virtio-pci) {mac}\n"
    'SUBSYSTEM=="net", ACTION=="add", DRIVERS=="?*", ATTR{{address}}=="{mac}", ATTR{{dev_id}}=="0x0", \\\n'
    '  ATTR{{type}}=="1", KERNEL=="eth*", NAME="{name}"\n'
)
IFCFG = "/etc/sysconfig/network-scripts/ifcfg-"

FORMS: dict[str, dict[str, str]] = {
    "keyfile": {
        "/etc/NetworkManager/system-connections/a": "[connection]\nid=a\n[ethernet]\nmac-address=MAC\n"
        "[ipv4]\naddress1=192.0.2.10/24\n"
    },
    "keyfile of old": {"/etc/NetworkManager/system-connections/a": "[802-3-ethernet]\nmac-address=UPPER\n"},
    "networkd": {"/etc/systemd/network/a.network": "[Match]\nMACAddress=MAC\n[Network]\nDHCP=yes\n"},
    "networkd, permanent address": {"/etc/systemd/network/a.network": "[Match]\nPermanentMACAddress=DASHES\n"},
    "link": {"/etc/systemd/network/10-a.link": "[Match]\nMACAddress=MAC\n[Link]\nName=lan0\n"},
    "drop-in": {"/etc/systemd/network/10-netplan-ens3.network.d/a.conf": "[Match]\nMACAddress=MAC\n"},
    "ifcfg": {f"{IFCFG}eth0": "DEVICE=eth0\nHWADDR=UPPER\nBOOTPROTO=dhcp\n"},
    "ifcfg in quotes": {f"{IFCFG}eth0": 'HWADDR="MAC"\nIPADDR=192.0.2.10\n'},
    "netplan": {
        "/etc/netplan/50-cloud-init.yaml": "network:\n  version: 2\n  ethernets:\n    eth0:\n      dhcp4: true\n"
        '      match:\n        macaddress: "MAC"\n      set-name: eth0\n'
    },
    "netplan without quotes": {
        "/etc/netplan/a.yaml": "network: {ethernets: {a: {match: {macaddress: MAC}, addresses: [192.0.2.10/24]}}}\n"
    },
    "udev": {RULES: RULE.format(mac="MAC", name="eth0").replace("(virtio-pci) MAC", f"(virtio-pci) {OLD}")},
    "ifupdown": {
        "/etc/network/interfaces": "auto mac/MAC=lan\nallow-hotplug mac/MAC=lan\niface lan inet static\n"
        " address 192.0.2.10/24\n"
    },
    "mactab": {"/etc/mactab": "eth0 MAC\n"},
    "several files": {
        "/etc/systemd/network/10-a.link": "[Match]\nMACAddress=MAC\n[Link]\nName=lan0\n",
        "/etc/systemd/network/a.network": "[Match]\nMACAddress=MAC\n[Network]\nAddress=192.0.2.10/24\n",
        "/etc/systemd/network/br0.netdev": "[NetDev]\nName=br0\nKind=bridge\nMACAddress=MAC\n",
    },
}


def spelled(files: dict[str, str], mac: str) -> dict[str, str]:
    marks = {"MAC": mac, "UPPER": mac.upper(), "DASHES": mac.replace(":", "-")}
    found = files
    for mark, text in marks.items():
        found = {path: _replaced(data, mark, text) for path, data in found.items()}
    return found


def _replaced(data: str, mark: str, text: str) -> str:
    words = {before + mark + after for before in '="( /' for after in '"\n,}='}
    for word in words:
        data = data.replace(word, word.replace(mark, text))
    return data


def contents(guest: GuestFiles, files: dict[str, str]) -> dict[str, str]:
    return {path: Path(f"{guest.root}{path}").read_text() for path in files}


@pytest.mark.parametrize("form", FORMS)
def test_one_nic_and_one_match(tmp_path: Path, form: str, caplog: pytest.LogCaptureFixture) -> None:
    before = spelled(FORMS[form], OLD)
    assert before != FORMS[form]
    guest = GuestFiles.make(tmp_path, {"/etc/hostname": "inst1\n", **before})
    for _ in range(2):
        guest.rename("", NIC_0_MAC=NEW)
        assert contents(guest, FORMS[form]) == spelled(FORMS[form], NEW)
        assert warnings(caplog) == []


@pytest.mark.parametrize("form", FORMS)
def test_the_nics_own_stays(tmp_path: Path, form: str) -> None:
    before = spelled(FORMS[form], NEW)
    guest = GuestFiles.make(tmp_path, {"/etc/hostname": "inst1\n", **before})
    guest.rename("", NIC_0_MAC=NEW)
    assert contents(guest, FORMS[form]) == before


def test_a_comment_stays_and_is_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    guest = GuestFiles.make(tmp_path, {"/etc/hostname": "inst1\n", RULES: RULE.format(mac=OLD, name="eth0")})
    guest.rename("", NIC_0_MAC=NEW)
    after = str(guest.read()[RULES])
    assert after.splitlines()[0].endswith(OLD)
    assert after == RULE.format(mac=OLD, name="eth0").replace(f'=="{OLD}', f'=="{NEW}')
    assert warnings(caplog) == []


def rules(*macs: str, name: str = "eth") -> dict[str, str | bytes]:
    lines = [f'SUBSYSTEM=="net", ATTR{{address}}=="{mac}", NAME="{name}{n}"\n' for n, mac in enumerate(macs)]
    return {"/etc/hostname": "inst1\n", RULES: "".join(lines)}


MACS = [f"aa:00:00:00:00:{n:02x}" for n in range(4)]
OLDS = [f"aa:00:00:11:00:{n:02x}" for n in range(4)]


@pytest.mark.parametrize("name", ["eth", "ens"])
@pytest.mark.parametrize(
    ("before", "nics", "after", "warned"),
    [
        (OLDS[:2], MACS[:2], MACS[:2], False),
        ([OLDS[0], MACS[1]], MACS[:2], MACS[:2], False),
        (MACS[:2], MACS[:2], MACS[:2], False),
        ([MACS[1], MACS[0]], MACS[:2], [MACS[1], MACS[0]], False),
        (OLDS[:3], MACS[:1], OLDS[:3], True),
        (OLDS[:1], MACS[:2], OLDS[:1], True),
        ([*OLDS[:3], MACS[0]], MACS[:1], [*OLDS[:3], MACS[0]], False),
    ],
)
def test_several_by_their_order(
    tmp_path: Path,
    name: str,
    before: list[str],
    nics: list[str],
    after: list[str],
    warned: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    guest = GuestFiles.make(tmp_path, rules(*before, name=name))
    for _ in range(2):
        guest.rename(*["" for _ in nics], **{f"NIC_{n}_MAC": mac for n, mac in enumerate(nics)})
        assert guest.read()[RULES] == rules(*after, name=name)[RULES]
    assert bool(warnings(caplog)) == warned
    if warned:
        assert f"{RULES}:1: {before[0]}" in caplog.text


def test_the_hardware_address_tells_which_nic_an_interface_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The names are in the other order than the NICs."""
    text = "[Match]\nMACAddress={}\n[Network]\nAddress={}/24\n"
    files: dict[str, str | bytes] = {
        "/etc/systemd/network/a.network": text.format(MACS[1], "10.0.0.2"),
        "/etc/systemd/network/b.network": text.format(MACS[0], "10.0.0.1"),
        "/etc/systemd/network/c.network": "[Match]\nName=br0\n[Network]\nAddress=10.9.9.9/24\n",
    }
    guest = GuestFiles.make(tmp_path, {"/etc/hostname": "inst1\n", **files})
    guest.rename("10.0.0.11", "10.0.0.12", NIC_0_MAC=MACS[0], NIC_1_MAC=MACS[1])
    assert guest.read()["/etc/systemd/network/a.network"] == text.format(MACS[1], "10.0.0.12")
    assert guest.read()["/etc/systemd/network/b.network"] == text.format(MACS[0], "10.0.0.11")
    assert warnings(caplog) == []


def test_bridges_over_nics_that_are_told_by_hardware_address(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files: dict[str, str | bytes] = {"/etc/mactab": f"eth0 {MACS[0]}\neth1 {MACS[1]}\n"}
    text = "iface br0 inet static\n address 10.0.0.1/24\n bridge_ports eth0\niface br1 inet dhcp\n bridge_ports eth1\n"
    guest = GuestFiles.make(tmp_path, {"/etc/hostname": "inst1\n", "/etc/network/interfaces": text, **files})
    guest.rename("10.0.0.11", "", NIC_0_MAC=MACS[0], NIC_1_MAC=MACS[1])
    assert guest.read()["/etc/network/interfaces"] == text
    assert "it is not clear which of the guest's interfaces is that NIC" in caplog.text
    assert "/etc/network/interfaces:2: 10.0.0.1" in caplog.text
    guest.rename("10.0.0.11", NIC_0_MAC=MACS[0])
    assert guest.read()["/etc/network/interfaces"] == text.replace("10.0.0.1/", "10.0.0.11/")


def test_udev_names_the_interface_of_another_file(tmp_path: Path) -> None:
    interfaces = "iface lan inet static\n address 10.0.0.1/24\niface wan inet static\n address 10.0.0.2/24\n"
    guest = GuestFiles.make(
        tmp_path,
        {
            "/etc/hostname": "inst1\n",
            "/etc/network/interfaces": interfaces,
            "/etc/mactab": f"wan {MACS[0]}\nlan {MACS[1]}\n",
        },
    )
    guest.rename("10.0.0.12", "10.0.0.11", NIC_0_MAC=MACS[0], NIC_1_MAC=MACS[1])
    assert guest.read()["/etc/network/interfaces"] == interfaces.replace("0.1/", "0.11/").replace("0.2/", "0.12/")


@pytest.mark.parametrize("mac", ["", "nonsense", "aa:00:00", "aa:00:00:00:00:0e:0f"])
def test_a_nic_whose_hardware_address_is_not_known(tmp_path: Path, mac: str) -> None:
    guest = GuestFiles.make(tmp_path, rules(OLD))
    guest.rename("", NIC_0_MAC=mac)
    assert guest.read() == {**rules(OLD), "/etc/hostname": "inst2\n"}


def test_leases_for_other_machines_match_nothing(tmp_path: Path) -> None:
    lease = f"[DHCPServerStaticLease]\nMACAddress={OLD}\nAddress=10.0.0.7\n"
    text = f"[Match]\nName=br0\n{lease}[Network]\nAddress=10.0.0.1/24\n"
    guest = GuestFiles.make(tmp_path, {"/etc/hostname": "inst1\n", "/etc/systemd/network/a.network": text})
    guest.rename("10.0.0.3", NIC_0_MAC=NEW)
    assert guest.read()["/etc/systemd/network/a.network"] == text.replace("10.0.0.1/", "10.0.0.3/")
