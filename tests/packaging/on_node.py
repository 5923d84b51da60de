# SPDX-License-Identifier: MIT
"""Runs inside a node with the packages: Ganeti finds the definition, and adds, backs up and removes an instance.

Imports nothing of the checkout's pydiskimg: the verbs are those that are installed.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.fixtures.ganeti_lab import NODE, Lab, running_lab

INSTANCE = "inst1.lab.example"
ADD = ("--disk", "0:size=1G", "-B", "memory=64M", "--no-start", "--no-name-check", "--no-ip-check", "-n", NODE)


def main() -> None:
    """Print a line for each thing that was done."""
    with tempfile.TemporaryDirectory() as directory, running_lab(Path(directory) / "state", installed=True) as lab:
        _check(lab)


def _check(lab: Lab) -> None:
    diagnosed = lab.succeed("gnt-os", "diagnose")
    if "OS: image [global status: valid]" not in diagnosed:
        raise SystemExit(diagnosed)
    print("gnt-os diagnose: valid")
    for kind in ("tarball", "qcow2"):
        parameters = ("-O", f"image_name=debian-small,image_type={kind}")
        lab.succeed("gnt-instance", "add", "-t", "file", "-o", "image+default", *parameters, *ADD, INSTANCE)
        disk = lab.disk(INSTANCE)
        with disk.open("rb") as file:
            if file.read(512)[510:] != b"\x55\xaa":
                raise SystemExit(f"{INSTANCE}, from {kind}: its disk has no boot sector")
        print(f"gnt-instance add from {kind}: {disk.stat().st_blocks * 512 >> 20} MiB on its disk")
        lab.succeed("gnt-backup", "export", "-n", NODE, INSTANCE)
        lab.succeed("gnt-instance", "remove", "--force", "--shutdown-timeout=0", INSTANCE)
        print("gnt-backup export, gnt-instance remove")


if __name__ == "__main__":
    main()
