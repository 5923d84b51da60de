# SPDX-License-Identifier: MIT
"""One cluster for all tests of a session, with the OS definition installed; after each test nothing may be in use."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import need
from tests.fixtures.debian_system import NAME, DebianSystem
from tests.fixtures.ganeti_lab import IMAGES, NODE_IP, Lab, install_definition, running_lab

PORT = 8080


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory, debian: DebianSystem) -> Iterator[Lab]:
    """The cluster; its images are the small Debian as a tarball and as a qcow2, each with a variant of that name."""
    need(os.geteuid() == 0, "needs root")
    need(shutil.which("gnt-cluster") is not None, "ganeti is not installed")
    with running_lab(tmp_path_factory.mktemp("lab")) as made:
        install_definition(made, tmp_path_factory.mktemp("definition"))
        for path in (debian.tarball, debian.qcow2):
            shutil.copy(path, made.path(IMAGES) / Path(path).name)
        made.configure(IMAGE_NAME=NAME, IMAGE_TYPE="qcow2")
        made.publish("qcow2", IMAGE_TYPE="qcow2")
        made.publish("tarball", IMAGE_TYPE="tarball", SWAP_SIZE="32")
        yield made


@pytest.fixture(autouse=True)
def _nothing_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """No loop device over a file of the lab's, and no mount in it, is there after a test that was not there before."""
    if "lab" not in request.fixturenames:
        yield
        return
    lab: Lab = request.getfixturevalue("lab")
    before = lab.loop_devices(), lab.mounts()
    yield
    for _ in range(60):
        if lab.loop_devices() == before[0]:
            break
        time.sleep(0.05)
    assert (lab.loop_devices(), lab.mounts()) == before


@pytest.fixture(scope="session")
def web(lab: Lab) -> Iterator[tuple[str, Path, Path]]:
    """A web server in the lab: its address, its directory, and the log of its requests."""
    directory, log = lab.path("/srv/ganeti/web"), lab.path("/srv/ganeti/web.log")
    directory.mkdir()
    serve = f"{shlex.quote(sys.executable)} -m http.server {PORT} --bind {NODE_IP} --directory /srv/ganeti/web"
    command = f"exec setpriv --pdeathsig KILL {serve} >/srv/ganeti/web.log 2>&1"
    with lab.start("sh", "-c", command) as server:
        try:
            _wait_for_server(lab, log)
            yield f"http://{NODE_IP}:{PORT}", directory, log
        finally:
            server.kill()


def _wait_for_server(lab: Lab, log: Path) -> None:
    for _ in range(100):
        if lab.run("sh", "-c", f"ss -ltn | grep -q {NODE_IP}:{PORT}").returncode == 0:
            return
        time.sleep(0.1)
    raise AssertionError(log.read_text())
