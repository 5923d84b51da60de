# SPDX-License-Identifier: MIT
"""sgdisk, sfdisk, fsck.vfat, blkid and mtools judge a CIDATA volume in the tables that distributions' images have."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from ganeti_os.guest.facts.instance import Facts
from ganeti_os.guest.facts.nics import NewAddress, NicNetwork
from ganeti_os.guest.seed_volume import renew_seed_volume, seed_volume
from ganeti_os.settings.settings import Settings
from pydiskimg.images.open_disk import open_disk
from pydiskimg.partitions.grow import grow_last_partition

pytestmark = pytest.mark.oracle
Tool = Callable[[str], str]

BIOS, ESP, ROOT = "21686148-6449-6E6F-744E-656564454649", "U", "L"
# first-lba as the tools that make each image write it: parted and sgdisk 34, sfdisk and osbuild 2048.
LAYOUTS = {
    "Debian": f"first-lba: 34\n14: start=2048,size=6144,type={BIOS}\n15: start=8192,size=253952,type={ESP}\n"
    f"1: start=262144,size=200000,type={ROOT}\n",
    "Ubuntu": f"first-lba: 34\n14: start=2048,size=8192,type={BIOS}\n15: start=10240,size=217088,type={ESP}\n"
    f"16: start=227328,size=50000,type={ROOT}\n1: start=280576,size=100000,type={ROOT}\n",
    "Alma and CentOS": f"first-lba: 2048\n1: start=2048,size=2048,type={BIOS}\n2: start=4096,size=100000,type={ESP}\n"
    f"3: start=104448,size=50000,type={ROOT}\n4: start=155648,size=200000,type={ROOT}\n",
    "Rocky": f"first-lba: 34\n1: start=2048,size=4096,type={ESP}\n2: start=6144,size=20000,type={ROOT}\n"
    f"3: start=28672,size=8192,type={ROOT}\n4: start=38912,size=2048,type={BIOS}\n"
    f"5: start=40960,size=200000,type={ROOT}\n",
    "Fedora": f"first-lba: 34\n1: start=2048,size=4096,type={BIOS}\n2: start=6144,size=200000,type={ESP}\n"
    f"3: start=206848,size=100000,type={ROOT}\n4: start=307200,size=100000,type={ROOT}\n",
}
SIZE = 250 << 20
NIC = NicNetwork(
    0, "aa:00:00:11:22:33", (NewAddress(ip_address("192.0.2.10"), ip_network("192.0.2.0/24"), ip_address("192.0.2.1")),)
)


def facts(name: str, *, old: str | None = None) -> Facts:
    return Facts(name=name, old_name=old, uuid="5e", is_new=old is None, nics=(NIC,))


def run(*command: str | Path) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def image(tool: Tool, path: Path, layout: str) -> Path:
    with path.open("wb") as file:
        file.truncate(SIZE)
    script = "label: gpt\n" + LAYOUTS[layout]
    subprocess.run([tool("sfdisk"), "-q", "-w", "never", path], input=script, text=True, check=True)
    return path


def entries(tool: Tool, path: Path) -> dict[int, dict[str, object]]:
    found = json.loads(run(tool("sfdisk"), "--json", path))["partitiontable"]["partitions"]
    return {int(re.sub(r".*\D", "", part["node"])): part for part in found}


def volume(tool: Tool, path: Path, part: dict[str, object]) -> Path:
    """Copy the volume out of the disk, once fsck.vfat finds nothing wrong with it."""
    start, size = int(str(part["start"])), int(str(part["size"]))
    copy = path.with_suffix(".volume")
    with path.open("rb") as file:
        file.seek(start * 512)
        copy.write_bytes(file.read(size * 512))
    checked = subprocess.run([tool("fsck.vfat"), "-nv", copy], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout
    return copy


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("grown", [False, True])
def test_distributions_layouts(tmp_path: Path, tool: Tool, layout: str, grown: bool) -> None:
    path = image(tool, tmp_path / "disk", layout)
    before = entries(tool, path)
    with path.open("r+b") as file:
        file.truncate(SIZE + (10 << 20))
    with open_disk(path, writable=True) as disk:
        if grown:
            assert grow_last_partition(disk) is not None
            before = entries(tool, path)
        assert seed_volume(disk, facts("inst1.example.org"), Settings.from_layers([]))
    assert "No problems found" in run(tool("sgdisk"), "-v", path)
    run(tool("sfdisk"), "--verify", path)
    after = entries(tool, path)
    (number,) = after.keys() - before.keys()
    assert {**after, number: None} == {**before, number: None}
    part = after[number]
    assert (part["start"], part["size"], part["name"]) == (40, 2008, "cidata")
    copy = volume(tool, path, part)
    assert 'LABEL="CIDATA" ' in (found := run(tool("blkid"), "-p", copy))
    assert 'TYPE="vfat"' in found


def test_the_files(tmp_path: Path, tool: Tool) -> None:
    path = image(tool, tmp_path / "disk", "Debian")
    with open_disk(path, writable=True) as disk:
        assert seed_volume(disk, facts("inst1.example.org"), Settings.from_layers([]))
        copy = volume(tool, path, entries(tool, path)[2])
        names = run(tool("mdir"), "-b", "-i", copy).split()
        assert sorted(names) == ["::/meta-data", "::/network-config", "::/user-data", "::/vendor-data"]
        files = {name: run(tool("mtype"), "-i", copy, name) for name in names}
        assert files["::/meta-data"] == 'instance-id: "5e-inst1.example.org"\nlocal-hostname: "inst1.example.org"\n'
        assert '192.0.2.10/24"' in files["::/network-config"]
        assert renew_seed_volume(disk, facts("inst2.example.org", old="inst1.example.org"))
        copy = volume(tool, path, entries(tool, path)[2])
        meta_data = run(tool("mtype"), "-i", copy, "::/meta-data")
        assert meta_data == 'instance-id: "5e-inst1.example.org"\nlocal-hostname: "inst2.example.org"\n'
        # The guest's administrator may have written to it with other software, and even removed the long names.
        run(tool("mcopy"), "-o", "-i", copy, "/etc/os-release", "::/another name.TXT")
        run(tool("mdel"), "-i", copy, "::/network-config")
        data = copy.read_bytes()
        disk.write(40 * 512, data)
        assert renew_seed_volume(disk, facts("inst3.example.org", old="inst2.example.org"))
    copy = volume(tool, path, entries(tool, path)[2])
    assert 'local-hostname: "inst3.example.org"' in run(tool("mtype"), "-i", copy, "::/meta-data")
    assert run(tool("mtype"), "-i", copy, "::/another name.TXT") == Path("/etc/os-release").read_text()
