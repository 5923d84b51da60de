# SPDX-License-Identifier: MIT
"""A distribution's cloud image, with cloud-init, becomes the instance and keeps that identity."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.boot.conftest import Systems
from tests.fixtures.bootable_debian import CLOUD_12, CLOUD_13, OWN_MACHINE_ID
from tests.fixtures.bootable_images import CLOUD, bootable_image
from tests.fixtures.booting_instances import (
    MIB,
    PASSWORD,
    PASSWORD_HASH,
    Instance,
    Six,
    assert_others,
    boot_together,
)
from tests.fixtures.node import Node

# The system is made first, by one of the processes that need it.
pytestmark = [pytest.mark.boot, pytest.mark.root, pytest.mark.timeout(1800)]


def test_images_for_clouds_boot_as_themselves_and_under_a_new_name(tmp_path: Path, systems: Systems) -> None:
    """If Debian 12's image is started before it is renamed, its cloud-init remembers the old name."""
    instances = []
    own_keys: list[str] = []
    for number, recipe, six in ((41, CLOUD_12, Six.GANETI), (42, CLOUD_13, Six.FILES)):
        system = systems(recipe)
        image = bootable_image(system, CLOUD)
        node = Node.make(tmp_path / f"node{number}", IMAGE_NAME=image.qcow2.name, IMAGE_DIR=str(image.directory))
        parameters = {"root_password_hash": PASSWORD_HASH}
        instance = Instance(node, tmp_path / f"disk{number}", f"{recipe.suite}.example.org", number, parameters, six)
        instance.create(1400 * MIB)
        instances.append(instance)
        own_keys += system.host_keys
    first = boot_together(instances, PASSWORD, tmp_path)
    assert_others([OWN_MACHINE_ID, *(told.machine_id for told in first)])
    assert_others([*own_keys, *(key for told in first for key in told.host_keys)])
    # test_boot_cloud_init tests what a newer cloud-init does after a rename.
    older = instances[0]
    older.rename("renamed.example.net", 51)
    (second,) = boot_together([older], PASSWORD, tmp_path)
    assert second.identity == first[0].identity
