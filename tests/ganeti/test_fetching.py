# SPDX-License-Identifier: MIT
"""IMAGE_URL: images that the node fetches from a web server in its network."""

from __future__ import annotations

import hashlib
import shutil
import time
from pathlib import Path

import pytest

from tests.fixtures.debian_system import DebianSystem
from tests.fixtures.ganeti_lab import LOCALSTATEDIR, Lab
from tests.fixtures.lab_instances import add_command, add_fails, host_name, starts_with_zeros

pytestmark = pytest.mark.ganeti
Web = tuple[str, Path, Path]


def serve(web: Web, name: str, image: Path, *, checksum: str | None = None) -> str:
    """Serve an image with a SHA256SUMS beside it; returns the address of their directory."""
    address, directory, _ = web
    (directory / name).mkdir()
    shutil.copy(image, directory / name / image.name)
    found = checksum or hashlib.sha256(image.read_bytes()).hexdigest()
    (directory / name / "SHA256SUMS").write_text(f"{found}  {image.name}\n")
    return f"{address}/{name}"


def publish(lab: Lab, variant: str, url: str) -> Path:
    """Publish a variant with a cache of its own; returns that, as the host sees it."""
    cache = f"{LOCALSTATEDIR}/cache/{variant}"
    lab.path(cache).mkdir()
    lab.publish(variant, IMAGE_URL=url, CACHE_DIR=cache)
    return lab.path(cache)


def test_many_at_once_fetch_an_image_once(lab: Lab, web: Web, debian: DebianSystem, tmp_path: Path) -> None:
    """Ganeti adds one instance of a node after the other; reinstalling is what truly runs at once."""
    cache = publish(lab, "fetched", serve(web, "right", debian.qcow2))
    names = [f"fetched{number}.lab.example" for number in range(4)]
    request = f"GET /right/{debian.qcow2.name} "

    clients = [lab.start(*add_command(name, os="image+fetched")) for name in names]
    said = [client.communicate()[0] for client in clients]
    assert [client.returncode for client in clients] == [0] * 4, said
    assert web[2].read_text().count(request) == 1

    for path in cache.iterdir():
        path.unlink()
    clients = [lab.start("gnt-instance", "reinstall", "-f", name) for name in names]
    most = 0
    while any(client.poll() is None for client in clients):
        most = max(most, len(lab.verbs("create")))
        time.sleep(0.05)
    said = [client.communicate()[0] for client in clients]
    assert [client.returncode for client in clients] == [0] * 4, said
    assert most > 1
    assert web[2].read_text().count(request) == 2
    assert [host_name(lab, name, tmp_path) for name in names] == names


def test_an_image_with_another_checksum_is_refused(lab: Lab, web: Web, debian: DebianSystem) -> None:
    cache = publish(lab, "changed", serve(web, "wrong", debian.qcow2, checksum="0" * 64))
    said = add_fails(lab, "changed.lab.example", os="image+changed")
    assert f"wrong/{debian.qcow2.name}: has SHA-256" in said
    assert f"SHA256SUMS says SHA-256 {'0' * 64}; it was deleted and not used" in said
    assert not any(path.suffix == ".qcow2" for path in cache.iterdir())
    assert starts_with_zeros(lab.disk("changed.lab.example"))
