# SPDX-License-Identifier: MIT
"""A disk that pydiskimg build made without any privilege boots by itself, to the login prompt of the host it names.

The kernel that it boots has a quota: a second disk has one that we have counted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from pydiskimg.images.open import open_image
from pydiskimg.partitions.read import read_partition_table
from pydiskimg.protocols import read_bytes
from tests.boot.conftest import Systems
from tests.fixtures.bootable_debian import DEBIAN_12, packed, run
from tests.fixtures.checkout import ROOT
from tests.fixtures.programs import run as judged
from tests.fixtures.quota_disk import assert_sound, changed_again, quota_disk, used_by_the_kernel
from tests.fixtures.unprivileged import unprivileged
from tests.fixtures.virtual_machine import Nic, running

pytestmark = [pytest.mark.boot, pytest.mark.root, pytest.mark.timeout(1800)]

NIC = Nic("aa:00:00:00:00:41", IPv4Address("192.0.2.41"), IPv4Network("192.0.2.0/24"), IPv4Address("192.0.2.1"))


def test_a_build_of_debian_12_boots_as_what_it_was_named(
    tmp_path: Path, systems: Systems, tool: Callable[[str], str]
) -> None:
    disk = tmp_path / "disk.qcow2"
    sizes = ("--size", "1000M", "--boot", "150M", "--swap", "64M", "--table", "gpt")
    build = (sys.executable, "-m", "pydiskimg", "build", str(packed(systems(DEBIAN_12))), str(disk), "-O", "qcow2")
    naming = ("--hostname", "built.example.org", "--serial-console")
    # On a busy machine an emulated timer comes too late for the kernel, which then panics.
    patient = ("--kernel-args", "no_timer_check")
    run(tool("env"), f"PYTHONPATH={ROOT}", *unprivileged(tool, *build, *sizes, *naming, *patient))
    second = quota_disk(tool, tmp_path / "quota")
    with running(disk, NIC, tmp_path / "console", disk_format="qcow2", more_disks=[second]) as machine:
        machine.login("built")
        assert "no_timer_check" in machine.run("cat /proc/cmdline").split()
        assert machine.run("hostname -f") == "built.example.org"
        mounted = "findmnt -nro SOURCE,FSTYPE"
        assert (machine.run(f"{mounted} /"), machine.run(f"{mounted} /boot")) == ("/dev/vda4 ext4", "/dev/vda2 ext4")
        assert machine.run("swapon --noheadings --show=NAME") == "/dev/vda3"
        machine.run("touch /root/written /boot/written")
        machine.wait_until_up()
        assert machine.run("systemctl --failed --no-legend") == ""
        used_by_the_kernel(machine, "/dev/vdb")
        machine.power_off()
    assert_sound(tool, second)
    changed_again(tool, second)
    run("qemu-img", "check", "-q", "-f", "qcow2", disk)
    with open_image(disk, format="qcow2") as image:
        for partition in (read_partition_table(image)[number] for number in (1, 3)):
            file = tmp_path / "partition"
            file.write_bytes(read_bytes(image, partition.start, partition.length))
            judged(tool("e2fsck"), "-fp", file, expect=(0, 1))  # its journal may hold what was written last
            judged(tool("e2fsck"), "-fn", file)
