# SPDX-License-Identifier: MIT
"""Systems that create builds from a plain tarball boot, and keep their identity through every verb."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.boot.conftest import Systems
from tests.fixtures.bootable_debian import DEBIAN_12, DEBIAN_13, OWN_MACHINE_ID, packed
from tests.fixtures.bootable_images import ROOT_1, BootableImage, bootable_image, packed_machine
from tests.fixtures.booting_instances import (
    MIB,
    PASSWORD,
    PASSWORD_HASH,
    Instance,
    Six,
    Told,
    assert_others,
    boot_together,
)
from tests.fixtures.node import Node

# The system is made first, by one of the processes that need it.
pytestmark = [pytest.mark.boot, pytest.mark.root, pytest.mark.timeout(1800)]

SIZE = 1000 * MIB


def instance_of(
    tarball: Path, directory: Path, name: str, number: int, six: Six = Six.NOWHERE, **settings: str
) -> Instance:
    image = {"IMAGE_NAME": tarball.name, "IMAGE_TYPE": "tarball", "IMAGE_DIR": str(tarball.parent)}
    node = Node.make(directory / f"node{number}", **image, **settings)
    return Instance(node, directory / f"disk{number}", name, number, {"root_password_hash": PASSWORD_HASH}, six)


def test_a_tarball_of_debian_12_stays_itself_through_every_verb(tmp_path: Path, systems: Systems) -> None:
    """One of two instances is renamed, backed up and restored as another, larger one; the other is reinstalled.

    The other is a packed machine: its tarball has the grub.cfg that update-grub wrote for that machine's disk.
    """
    system = systems(DEBIAN_12)
    machine = bootable_image(system, ROOT_1)
    one = instance_of(packed(system), tmp_path, "one.example.org", 21, Six.GANETI)
    two = instance_of(packed_machine(system, machine), tmp_path, "two.example.org", 22, Six.FILES)
    for instance in (one, two):
        instance.create(SIZE)
    first = boot_together([one, two], PASSWORD, tmp_path)
    _check_menu_of_packed(first[1], machine)
    assert_others([first[0].machine_id, first[1].machine_id, OWN_MACHINE_ID])
    assert_others([*first[0].host_keys, *first[1].host_keys, *system.host_keys])

    one.rename("renamed.example.org", 23)
    backup = tmp_path / "backup"
    one.export(backup)
    restored = instance_of(packed(system), tmp_path, "restored.example.net", 24, Six.GANETI)
    restored.restore(backup, SIZE + 400 * MIB, old=one.name)
    two.reinstall()
    second = boot_together([restored, two], PASSWORD, tmp_path)
    assert second[0].identity == first[0].identity, "renamed, backed up and restored it is the same machine"
    assert second[0].root_size > first[0].root_size + 350 * MIB
    _check_menu_of_packed(second[1], machine)
    assert_others([first[1].machine_id, second[1].machine_id])
    assert_others([*first[1].host_keys, *second[1].host_keys])


def test_a_tarball_of_debian_13_boots_from_a_gpt(tmp_path: Path, systems: Systems) -> None:
    """It is renamed before it is first started, and restored as another machine beside the first."""
    system = systems(DEBIAN_13)
    one = instance_of(packed(system), tmp_path, "one.example.org", 31, Six.FILES, PARTITION_TABLE="gpt")
    one.create(SIZE)
    one.rename("renamed.example.org", 32)
    backup = tmp_path / "backup"
    one.export(backup)
    other = instance_of(packed(system), tmp_path, "other.example.org", 33, Six.GANETI, IMPORT_IDENTITY="new")
    other.restore(backup, SIZE + 400 * MIB, old=one.name)
    told = boot_together([one, other], PASSWORD, tmp_path)
    assert_others([told[0].machine_id, told[1].machine_id, OWN_MACHINE_ID])
    assert_others([*told[0].host_keys, *told[1].host_keys, *system.host_keys])


def _check_menu_of_packed(told: Told, machine: BootableImage) -> None:
    """Assert that the system booted by the old machine's menu, which finds the new root and nothing of the old disk."""
    old = machine.layout.root.uuid
    assert f"root=UUID={old} " in machine.menu.read_text()
    assert "submenu 'Advanced options" in told.menu, "the menu is not the one that was packed"
    assert f"root=UUID={told.root_uuid} " in told.menu
    assert old not in re.sub("--id '[^']*'|menuentry_id_option '[^']*'", "", told.menu)
