# SPDX-License-Identifier: MIT
"""Systems that create builds from a plain tarball boot by themselves, and stay themselves through every verb."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.boot.conftest import Systems
from tests.fixtures.bootable_debian import DEBIAN_12, DEBIAN_13, OWN_MACHINE_ID, Recipe
from tests.fixtures.booting_instances import MIB, PASSWORD, PASSWORD_HASH, Instance, Told, assert_others, boot_together
from tests.fixtures.node import Node

# The system is made first, by one of the processes that need it.
pytestmark = [pytest.mark.boot, pytest.mark.root, pytest.mark.timeout(1800)]

SIZE = 1000 * MIB


def instance_of(recipe: Recipe, systems: Systems, directory: Path, name: str, number: int, **settings: str) -> Instance:
    system = systems(recipe)
    image = {"IMAGE_NAME": recipe.name, "IMAGE_TYPE": "tarball", "IMAGE_DIR": str(system.directory)}
    node = Node.make(directory / f"node{number}", **image, **settings)
    return Instance(node, directory / f"disk{number}", name, number, {"root_password_hash": PASSWORD_HASH})


def test_a_tarball_of_debian_12_stays_itself_through_every_verb(tmp_path: Path, systems: Systems) -> None:
    """Of two instances, one is renamed, backed up and restored as another, larger one; the other is reinstalled."""
    one = instance_of(DEBIAN_12, systems, tmp_path, "one.example.org", 21)
    two = instance_of(DEBIAN_12, systems, tmp_path, "two.example.org", 22)
    for instance in (one, two):
        instance.create(SIZE)
    first = boot_together([one, two], PASSWORD, tmp_path)
    own_keys = systems(DEBIAN_12).host_keys
    assert_others([first[0].machine_id, first[1].machine_id, OWN_MACHINE_ID])
    assert_others([*first[0].host_keys, *first[1].host_keys, *own_keys])

    one.rename("renamed.example.org", 23)
    two.reinstall()
    second = boot_together([one, two], PASSWORD, tmp_path)
    assert _identity(second[0]) == _identity(first[0]), "a renamed instance is the same instance"
    assert_others([first[1].machine_id, second[1].machine_id])
    assert_others([*first[1].host_keys, *second[1].host_keys])

    backup = tmp_path / "backup"
    one.export(backup)
    restored = instance_of(DEBIAN_12, systems, tmp_path, "restored.example.net", 24)
    restored.restore(backup, SIZE + 400 * MIB, old=one.name)
    (third,) = boot_together([restored], PASSWORD, tmp_path)
    assert _identity(third) == _identity(first[0]), "a restored backup is the same machine"
    assert third.root_size > second[0].root_size + 350 * MIB


def test_a_tarball_of_debian_13_boots_from_a_gpt(tmp_path: Path, systems: Systems) -> None:
    """It is renamed before it is first started, and restored as another machine beside the first."""
    one = instance_of(DEBIAN_13, systems, tmp_path, "one.example.org", 31, PARTITION_TABLE="gpt")
    one.create(SIZE)
    one.rename("renamed.example.org", 32)
    backup = tmp_path / "backup"
    one.export(backup)
    other = instance_of(DEBIAN_13, systems, tmp_path, "other.example.org", 33, IMPORT_IDENTITY="new")
    other.restore(backup, SIZE + 400 * MIB, old=one.name)
    told = boot_together([one, other], PASSWORD, tmp_path)
    assert_others([told[0].machine_id, told[1].machine_id, OWN_MACHINE_ID])
    assert_others([*told[0].host_keys, *told[1].host_keys, *systems(DEBIAN_13).host_keys])


def _identity(told: Told) -> tuple[str, frozenset[str]]:
    return told.machine_id, told.host_keys
