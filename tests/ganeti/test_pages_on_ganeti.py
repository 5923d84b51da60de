# SPDX-License-Identifier: MIT
"""The commands of the pages on Ganeti, run as they are printed there, but for what a lab of one node has otherwise:
names, sizes, a disk template without LVM, and answers to questions."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.fixtures.ganeti_lab import BRIDGE, CONFIGURED, EXPORTS, IMAGES, NODE, Lab
from tests.fixtures.lab_instances import NO_CHECKS, host_name

pytestmark = pytest.mark.ganeti

DOCS = Path(__file__).resolve().parents[2] / "docs"
# What the lab has in place of what a page names.
NAMES = {
    "plain": "file",
    "0:size=10G": "0:size=700M",
    "0:size=20G": "0:size=800M",
    "node1": NODE,
    "node2": NODE,
    "--src-node=node2": f"--src-node={NODE}",
    "--nic-parameters=mode=bridged,link=br0": f"--nic-parameters=mode=bridged,link={BRIDGE}",
}
ANSWERED = ("reinstall", "remove", "rename")
MAKING = ["-t", "file", "--disk", "0:size=700M", "-n", NODE, "--no-start"]


def commands_of(page: str, section: str) -> list[list[str]]:
    """Return the words of each command of Ganeti's in the indented blocks of a section, without comments."""
    text = (DOCS / page).read_text()
    found = re.search(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, section
    lines = re.findall(r"^    (.*)$", found[1].replace("\\\n", " "), re.MULTILINE)
    commands = [shlex.split(line, comments=True) for line in lines if line.startswith("gnt-")]
    assert commands, section
    return commands


def adapted(words: list[str], instance: str = "", checks: tuple[str, ...] = NO_CHECKS) -> list[str]:
    """Return a command for the lab; instance is what "..." at its end is short for, with where it is made."""
    made = [NAMES.get(word, word.replace(".example.org", ".lab.example")) for word in words]
    made = [f"--src-dir={EXPORTS}/{Path(word).name}" if word.startswith("--src-dir=") else word for word in made]
    if made[-1] == "...":
        made[-1:] = [*MAKING, instance]
    program, verb, *rest = made
    if verb in ("add", "import") and program != "gnt-network":
        rest = ["-B", "memory=64M", *NO_CHECKS, *rest]
    if verb in ANSWERED:
        rest = ["-f", *rest] if verb != "rename" or checks else rest
    if verb == "rename":
        rest = [*checks, *rest]
    return [program, verb, *rest]


@pytest.fixture
def checks(lab: Lab) -> tuple[str, ...]:
    """What leaves out the checks of names in a rename: Ganeti 3.1 has none."""
    return NO_CHECKS if NO_CHECKS[0] in lab.succeed("gnt-instance", "rename", "--help") else ()


def run(lab: Lab, commands: list[list[str]], checks: tuple[str, ...], instance: str = "") -> None:
    for words in commands:
        lab.succeed(*adapted(words, instance, checks))


def test_the_first_instance_and_its_backup(lab: Lab, checks: tuple[str, ...], tmp_path: Path) -> None:
    if "default" not in lab.path(f"{CONFIGURED}/instance-image/variants.list").read_text().split():
        lab.publish("default")
    first = commands_of("ganeti.md", "The first instance")
    assert [words[1] for words in first] == ["add", "shutdown", "reinstall", "rename", "start"]
    run(lab, first, checks)
    assert host_name(lab, "inst2.lab.example", tmp_path) == "inst2.lab.example"
    lab.succeed("gnt-instance", "shutdown", "inst2.lab.example")
    run(lab, [["gnt-instance", "rename", "inst2.lab.example", "inst1.lab.example"]], checks)
    run(lab, commands_of("ganeti.md", "Backup and restore"), checks)
    for name in ("inst1.lab.example", "inst3.lab.example"):
        assert host_name(lab, name, tmp_path) == name
        lab.succeed("gnt-instance", "remove", "-f", name)


def test_variants_parameters_and_networks(lab: Lab, checks: tuple[str, ...], tmp_path: Path) -> None:
    for number in (12, 13):
        source = next(lab.path(IMAGES).glob("*.qcow2"))
        lab.path(IMAGES).joinpath(f"debian-{number}-x86_64.qcow2").write_bytes(source.read_bytes())
    lab.publish("debian", IMAGE_NAME="debian-12")
    name = "inst1.lab.example"
    run(lab, [words for words in commands_of("settings.md", "Variants") if words[1] == "add"], checks, name)
    assert host_name(lab, name, tmp_path) == name
    run(lab, [words for words in commands_of("settings.md", "Variants") if words[1] == "modify"], checks)
    lab.succeed("gnt-instance", "remove", "-f", name)
    parameters = commands_of("settings.md", "OS parameters")
    assert [words[1] for words in parameters] == ["add", "modify", "modify", "reinstall", "modify", "info"]
    run(lab, parameters, checks, name)
    lab.succeed("gnt-os", "modify", "-O", "image_type=default", "image+default")
    lab.succeed("gnt-instance", "remove", "-f", name)
    networks = commands_of("settings.md", "The network of an instance")
    add = networks.pop()
    run(lab, networks, checks)
    try:
        lab.succeed(*adapted([*add[:-1], "-o", "image+default", "..."], name, checks))
        assert "192.0.2." in lab.succeed("gnt-instance", "info", name)
        lab.succeed("gnt-instance", "remove", "-f", name)
    finally:
        lab.succeed("gnt-network", "disconnect", "net1")
        lab.succeed("gnt-network", "remove", "net1")
