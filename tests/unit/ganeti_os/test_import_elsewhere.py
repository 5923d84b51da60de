# SPDX-License-Identifier: MIT
"""What create made on each distribution, imported under another name: nothing of the old instance stays."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tests.fixtures.guests import GuestFiles
from tests.fixtures.network_guests import ALL

OLD_MACS, NEW_MACS = ("aa:00:00:11:00:01", "aa:00:00:11:00:02"), ("aa:00:00:22:00:01", "aa:00:00:22:00:02")


def nics(macs: tuple[str, ...], count: int, network: str, gateway: str) -> dict[str, str]:
    found = {}
    for index in range(count):
        prefix = f"NIC_{index}_"
        found[f"{prefix}MAC"], found[f"{prefix}MODE"] = macs[index], "bridged"
        found[f"{prefix}NETWORK_NAME"] = "lan"
        found[f"{prefix}NETWORK_SUBNET"] = network.format(index)
        if index == 0:
            found[f"{prefix}NETWORK_GATEWAY"] = gateway
    return found


def left(guest: GuestFiles, *words: str) -> list[tuple[str, str]]:
    files = [path for path in guest.root.rglob("*") if path.is_file() and not path.is_symlink()]
    return [
        (str(path.relative_to(guest.root)), word)
        for path in files
        for word in words
        if word.encode() in path.read_bytes()
    ]


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("system", ALL)
def test_nothing_of_the_old_instance_stays(
    tmp_path: Path, system: str, count: int, caplog: pytest.LogCaptureFixture
) -> None:
    guest = ALL[system].make(tmp_path)
    before = nics(OLD_MACS, count, "10.1.{}.0/24", "10.1.0.1")
    guest.become(*[f"10.1.{n}.10" for n in range(count)], new="inst1.example.org", **before)
    after = nics(NEW_MACS, count, "172.16.4{}.0/24", "172.16.40.1")
    ips = [f"172.16.4{n}.5" for n in range(count)]
    guest.rename(*ips, **after)
    assert left(guest, "inst1", "10.1.0.1", "10.1.1.1", *OLD_MACS) == []
    assert {word for _, word in left(guest, *ips, *NEW_MACS[:count])} >= set(ips)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
