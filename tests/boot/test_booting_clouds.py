# SPDX-License-Identifier: MIT
"""A distribution's image for clouds, with cloud-init, becomes the instance and stays it.

What a newer cloud-init makes of a seed, test_boot_cloud_init and test_cloud_init_oracle see.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.boot.conftest import Systems
from tests.fixtures.bootable_debian import CLOUD_12, OWN_MACHINE_ID
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


def test_an_image_for_clouds_boots_as_itself_and_under_a_new_name(tmp_path: Path, systems: Systems) -> None:
    """Started before it is renamed, it has a cloud-init that remembers the old name."""
    system = systems(CLOUD_12)
    image = bootable_image(system, CLOUD)
    node = Node.make(tmp_path / "node", IMAGE_NAME=image.qcow2.name, IMAGE_DIR=str(image.directory))
    parameters = {"root_password_hash": PASSWORD_HASH}
    instance = Instance(node, tmp_path / "disk", "bookworm.example.org", 41, parameters, Six.GANETI)
    instance.create(1400 * MIB)
    (first,) = boot_together([instance], PASSWORD, tmp_path)
    assert_others([OWN_MACHINE_ID, first.machine_id])
    assert_others([*system.host_keys, *first.host_keys])
    instance.rename("renamed.example.net", 51)
    (second,) = boot_together([instance], PASSWORD, tmp_path)
    assert second.identity == first.identity
