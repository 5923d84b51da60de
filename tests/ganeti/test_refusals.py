# SPDX-License-Identifier: MIT
"""After an error, Ganeti's client shows our message, and no disk looks installed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.fixtures.ganeti_lab import SYSCONFDIR, Lab
from tests.fixtures.growing import loop, mounted_at
from tests.fixtures.judges import partitions
from tests.fixtures.lab_instances import add, add_command, add_fails, host_name, rename, starts_with_zeros

pytestmark = pytest.mark.ganeti


def test_a_missing_image(lab: Lab) -> None:
    said = add_fails(lab, "missing.lab.example", "-O", "image_name=debian-smal")
    assert "debian-smal-x86_64.qcow2: the image does not exist, nor is there debian-smal-" in said
    assert "; did you mean debian-small-x86_64.qcow2?" in said
    assert not any(lab.disk("missing.lab.example").read_bytes())


def test_a_script_that_fails(lab: Lab) -> None:
    scripts = f"{SYSCONFDIR}/failing.d"
    lab.add_script(f"{scripts}/10-boot-loader", "#!/bin/sh\necho no boot loader here\nexit 7\n")
    lab.publish("failing", CUSTOMIZE_DIR=scripts)
    said = add_fails(lab, "failing.lab.example", os="image+failing")
    assert f"{scripts}/10-boot-loader: exited with status 7" in said
    assert "no boot loader here" in said
    disk = lab.disk("failing.lab.example")
    table = subprocess.run(["sfdisk", "--json", disk], capture_output=True, check=False)
    assert table.returncode != 0, table.stdout


def test_a_system_with_a_foreign_host_name_is_renamed(lab: Lab, tmp_path: Path) -> None:
    add(lab, "own.lab.example")
    disk = lab.written_disk("own.lab.example")
    root = partitions(str(disk))[-1]
    with loop(disk, root["offset"], root["length"]) as device, mounted_at(device, tmp_path / "edited") as point:
        (point / "etc/hostname").write_text("foreign\n")
    said = rename(lab, "own.lab.example", "other.lab.example")
    assert "arning" not in said
    assert "the system called itself foreign, not own like its instance" in lab.last_log()
    assert host_name(lab, "other.lab.example", tmp_path) == "other.lab.example"


def test_a_disk_that_is_too_small_for_the_image(lab: Lab) -> None:
    done = lab.run(*add_command("tiny.lab.example", sizes=("300M",)))
    assert done.returncode != 0
    assert "the disk has 314572800" in done.stdout
    assert starts_with_zeros(lab.disk("tiny.lab.example"))
