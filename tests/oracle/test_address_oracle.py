# SPDX-License-Identifier: MIT
"""Files whose addresses were replaced, read by ifupdown and netplan themselves."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.fixtures.addressed_guests import NETWORK
from tests.fixtures.guests import GuestFiles
from tests.fixtures.programs import Tool, run
from tests.unit.ganeti_os.guest.network.test_address_forms import FORMS, OLD, spelled

pytestmark = pytest.mark.oracle

ALIASES = "netplan, anchors"  # PyYAML reads them, netplan refuses them
OWN_ADDRESS, GATEWAY = "198.51.100.5", "198.51.100.62"


def renamed(directory: Path, form: str) -> GuestFiles:
    guest = GuestFiles.make(directory, {"/etc/hostname": "inst1\n", **spelled(FORMS[form], OLD)})
    guest.rename(OWN_ADDRESS, **NETWORK)
    return guest


@pytest.mark.parametrize("form", [form for form in FORMS if form.startswith("netplan") and form != ALIASES])
def test_netplan(tmp_path: Path, tool: Tool, form: str) -> None:
    guest = renamed(tmp_path, form)
    for path in guest.root.glob("*/netplan/*.yaml"):
        path.chmod(0o600)
    run(tool("netplan"), "generate", "--root-dir", str(guest.root))
    found = (guest.root / "run/systemd/network/10-netplan-ens3.network").read_text()
    assert re.findall(r"^Address=(\S+)", found, re.MULTILINE) == [f"{OWN_ADDRESS}/26"]
    default = f"Gateway={GATEWAY}"
    assert (default in found) == ("GATE" in str(FORMS[form]))
    assert "192.0.2.10" not in found


@pytest.mark.parametrize("form", [form for form in FORMS if form.startswith("ifupdown,")])
def test_ifupdown(tmp_path: Path, tool: Tool, form: str) -> None:
    guest = renamed(tmp_path, form)
    for path in [path for path in guest.root.rglob("*") if path.is_file()]:
        path.write_text(re.sub(r"(?<=[ \n])/(etc|srv)/", rf"{guest.root}/\1/", path.read_text()))
    found = run(tool("ifquery"), "-i", str(guest.root / "etc/network/interfaces"), "eth0")
    assert "192.0.2.10" not in found
    assert OWN_ADDRESS in found
    if re.search(r"^\s*gateway", "".join(FORMS[form].values()), re.MULTILINE):
        assert f"gateway: {GATEWAY}" in found
