# SPDX-License-Identifier: MIT
"""One cluster for all tests of a session, with the OS definition installed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import need
from tests.fixtures.debian_system import NAME, DebianSystem
from tests.fixtures.ganeti_lab import LOCALSTATEDIR, Lab, install_definition, running_lab


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory, debian: DebianSystem) -> Iterator[Lab]:
    """The cluster; its image directory has the small Debian as a tarball and as a qcow2."""
    need(os.geteuid() == 0, "needs root")
    need(shutil.which("gnt-cluster") is not None, "ganeti is not installed")
    state = tmp_path_factory.mktemp("lab")
    with running_lab(state) as made:
        install_definition(made, tmp_path_factory.mktemp("definition"))
        images = made.path(f"{LOCALSTATEDIR}/cache/ganeti-instance-image")
        for path in (debian.tarball, debian.qcow2):
            shutil.copy(path, images / Path(path).name)
        made.configure(IMAGE_NAME=NAME, IMAGE_TYPE="qcow2")
        yield made
