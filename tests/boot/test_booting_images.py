# SPDX-License-Identifier: MIT
"""Disk images that create copies boot as the instance, wherever their root is, with their own boot loader."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.boot.conftest import Systems
from tests.fixtures.bootable_debian import DEBIAN_12, OWN_MACHINE_ID, PASSWORD
from tests.fixtures.bootable_images import ROOT_1, ROOT_2, ROOT_5, bootable_image
from tests.fixtures.booting_instances import MIB, Instance, assert_others, boot_together
from tests.fixtures.node import Node

# The system is made first, by one of the processes that need it.
pytestmark = [pytest.mark.boot, pytest.mark.root, pytest.mark.timeout(1800)]


def test_images_with_the_root_as_partition_1_2_and_5_boot_as_themselves(tmp_path: Path, systems: Systems) -> None:
    """No password is given, so that the image's own stays."""
    system = systems(DEBIAN_12)
    instances = []
    for number, layout in enumerate((ROOT_1, ROOT_2, ROOT_5), 11):
        image = bootable_image(system, layout)
        settings = {"IMAGE_NAME": image.qcow2.name, "IMAGE_DIR": str(image.directory)}
        node = Node.make(tmp_path / f"node{number}", **settings)
        instance = Instance(node, tmp_path / f"disk{number}", f"{layout.name}.example.org", number)
        instance.create(1400 * MIB)
        instances.append(instance)
    told = boot_together(instances, PASSWORD, tmp_path)
    assert_others([OWN_MACHINE_ID, *(answer.machine_id for answer in told)])
    assert_others([*system.host_keys, *(key for answer in told for key in answer.host_keys)])
