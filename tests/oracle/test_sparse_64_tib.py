# SPDX-License-Identifier: MIT
"""What changes and measures a 64 TiB image takes time and memory by what is stored, not by the size."""

from __future__ import annotations

from pathlib import Path

import pytest

from pydiskimg.cli import main
from tests.fixtures.limits import limits
from tests.fixtures.qcow2_images import run

pytestmark = pytest.mark.oracle

SECONDS, MEMORY = 10.0, 64 << 20  # each command takes 0.2 s and 10 MiB on a quiet machine


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    run("qemu-img", "create", "-q", "-f", "qcow2", "base.qcow2", "64T")
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "top.qcow2")
    run("qemu-img", "create", "-q", "-f", "qcow2", "other.qcow2", "63T")
    for name, writes in (("base", ("1T", "63T")), ("top", ("2T",)), ("other", ("3T", "1T"))):
        commands = [word for at in writes for word in ("-c", f"write -P 5 {at} 64k")]
        run("qemu-io", "-f", "qcow2", *commands, f"{name}.qcow2")
    return tmp_path


@pytest.mark.parametrize(
    "words",
    [
        "rebase -b other.qcow2 -F qcow2 top.qcow2",
        "rebase -b  -F qcow2 top.qcow2",
        "rebase -c -b other.qcow2 -F qcow2 top.qcow2",
        "resize top.qcow2 +1T",
        "resize --shrink top.qcow2 60T",
        "measure -O qcow2 top.qcow2",
        "measure -O raw top.qcow2",
        "map top.qcow2",
        "commit top.qcow2",
        "convert -O qcow2 top.qcow2 copy.qcow2",
        "convert -O qcow2 -B other.qcow2 -F qcow2 top.qcow2 copy.qcow2",
        "convert -O qcow2 --salvage top.qcow2 copy.qcow2",
        "convert -O qcow2 -o cluster_size=2M base.qcow2 top.qcow2 copy.qcow2",
        "dd bs=1G count=64k skip=1k -O qcow2 if=top.qcow2 of=copy.qcow2",
    ],
)
def test_bounded(images: Path, words: str) -> None:
    command, *rest = words.split(" ")
    with limits(SECONDS, MEMORY):
        assert main([command, "--allow-references", ".", *rest]) == 0
    for image in images.glob("*.qcow2"):
        run("qemu-img", "check", "-q", "-f", "qcow2", str(image))
