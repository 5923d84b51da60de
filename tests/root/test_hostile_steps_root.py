# SPDX-License-Identifier: MIT
"""guest-step on a hostile guest: each path that a step reads or writes is made hostile, and nothing outside changes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ganeti_os.install import guest_step
from ganeti_os.log import Messages
from ganeti_os.request import parse_request
from ganeti_os.settings.settings import Layer, Paths, Settings
from pydiskimg.files.mounted_tree import MountedTree
from tests.fixtures.mounted_ext4 import mounted_ext4
from tests.fixtures.node import NIC
from tests.root import test_hostile_identity_root as identity

pytestmark = pytest.mark.root
MIB = 1 << 20
ENVIRONMENT = {
    "OS_API_VERSION": "20",
    "INSTANCE_NAME": "inst1.example.org",
    "DISK_COUNT": "1",
    "DISK_0_PATH": "/nowhere",
    "DISK_0_ACCESS": "rw",
    "INSTANCE_HV_serial_console": "True",
    **NIC,
}
SYSTEMS = ("Debian tarball", "Leap 15")  # that carry GRUB


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[identity.Ground]:
    with mounted_ext4(tmp_path_factory.mktemp("steps") / "image") as root:
        yield identity.Ground(root)


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A disk with one partition, and its file system also alone: what BLOCKDEV and ROOT_DEV name for the step."""
    path = tmp_path / "disk"
    path.touch()
    os.truncate(path, 16 * MIB)
    subprocess.run(["sfdisk", "-q", path], input="start=2048,type=83,bootable\n", text=True, check=True)
    for file, offset in ((path, MIB), (tmp_path / "root", 0)):
        with file.open("ab") as made:
            made.truncate(offset + 15 * MIB)
        options = ["-E", f"offset={offset}"] if offset else []
        subprocess.run(["mkfs.ext4", "-q", "-F", "-U", identity.UUID, *options, file, "15360k"], check=True)
    monkeypatch.setenv("BLOCKDEV", str(path))
    monkeypatch.setenv("ROOT_DEV", str(tmp_path / "root"))
    monkeypatch.delenv("BOOT_DEV", raising=False)
    return path


def run_of(ground: identity.Ground, node: Path) -> guest_step._Run:
    """Return what the steps work on: a tarball's system, and an overlay with a file in it."""
    overlay = node / "etc/ganeti/instance-image/overlays/web/etc/web"
    overlay.mkdir(parents=True, exist_ok=True)
    (overlay / "motd").write_text("from the overlay\n")
    fixed = {"ROOT_PASSWORD_HASH": identity.HASH, "AUTHORIZED_KEYS": identity.KEY, "KERNEL_ARGS": "quiet"}
    values = {**fixed, "IMAGE_TYPE": "tarball", "ARCH": "x86_64", "OVERLAY": "web"}
    settings = Settings.from_layers([Layer("test", values)], paths=Paths(str(node / "etc"), str(node / "var")))
    messages = Messages(os_name="image", verb="create")
    return guest_step._Run(str(ground.guest), parse_request("create", [], ENVIRONMENT), settings, messages)


def test_every_path_of_every_step(
    ground: identity.Ground, disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(guest_step, "KeyMaker", identity.Keys)

    def step(name: str) -> Any:
        def do(tree: MountedTree) -> None:
            guest_step.STEPS[name][0](run_of(ground, tmp_path), tree)

        return do

    monkeypatch.setattr(identity, "STEPS", {name: step(name) for name in guest_step.STEPS})
    every = "PYDISKIMG_EVERY_PATH" in os.environ
    done: set[tuple[str, str]] = set()
    faults = []
    head = b""
    for system in SYSTEMS:
        recorders = identity.recorded(ground, system)
        recorders["overlay"].written.add("/etc/web/motd")  # it is copied without a Tree
        with disk.open("rb") as file:
            head = head or file.read(512)
        assert any(head[:440]), "the step wrote its boot code"
        for case in identity.cases(recorders, done, every=every):
            fault = identity.attempt(ground, system, case.path, case.make, case.steps)
            if fault:
                faults.append(f"{system}: {case.path} is {case.kind}: {fault}")
    ground.clear()
    assert len(done) > 200
    assert faults == []
