# SPDX-License-Identifier: MIT
"""A distribution's image for clouds, with cloud-init, becomes the instance and stays it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.boot.conftest import Systems
from tests.fixtures.bootable_debian import CLOUD_13, OWN_MACHINE_ID
from tests.fixtures.bootable_images import CLOUD, bootable_image
from tests.fixtures.booting_instances import MIB, PASSWORD, PASSWORD_HASH, Instance, assert_others, boot_together
from tests.fixtures.node import Node

# The system is made first, by one of the processes that need it.
pytestmark = [pytest.mark.boot, pytest.mark.root, pytest.mark.timeout(1800)]


def test_an_image_for_clouds_boots_as_itself_and_under_its_new_name(tmp_path: Path, systems: Systems) -> None:
    """Started before it is renamed, it has a cloud-init that remembers the old name."""
    system = systems(CLOUD_13)
    image = bootable_image(system, CLOUD)
    node = Node.make(tmp_path / "node", IMAGE_NAME=image.qcow2.name, IMAGE_DIR=str(image.directory))
    parameters = {"root_password_hash": PASSWORD_HASH}
    one, two = (
        Instance(node, tmp_path / f"disk{number}", f"{name}.example.org", number, parameters)
        for number, name in ((41, "one"), (42, "two"))
    )
    for instance in (one, two):
        instance.create(1400 * MIB)
    first = boot_together([one, two], PASSWORD, tmp_path)
    assert_others([OWN_MACHINE_ID, *(answer.machine_id for answer in first)])
    assert_others([*system.host_keys, *(key for answer in first for key in answer.host_keys)])
    one.rename("renamed.example.org", 43)
    (second,) = boot_together([one], PASSWORD, tmp_path)
    assert (second.machine_id, second.host_keys) == (first[0].machine_id, first[0].host_keys)
