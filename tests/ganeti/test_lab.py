# SPDX-License-Identifier: MIT
"""The OS definition as Ganeti sees it: variants and parameters."""

from __future__ import annotations

import shlex

import pytest

from tests.fixtures.ganeti_lab import ROOT, Lab
from tests.fixtures.lab_instances import add_fails

pytestmark = pytest.mark.ganeti


def test_ganeti_finds_nothing_wrong_with_the_definition(lab: Lab) -> None:
    diagnosed = lab.succeed("gnt-os", "diagnose")
    assert "OS: image [global status: valid]" in diagnosed
    assert "invalid" not in diagnosed
    assert "API versions: 20, 15, 10, 5" in diagnosed
    listed = lab.succeed("gnt-os", "list", "--no-headers").split()
    assert {"image+default", "image+qcow2", "image+tarball"} <= set(listed)


def test_the_page_on_ganeti_looks_at_the_definition_as_the_client_can(lab: Lab) -> None:
    lines = (ROOT / "docs/ganeti.md").read_text().splitlines()
    commands = [shlex.split(line, comments=True) for line in lines if line.startswith("    gnt-os diagnose")]
    assert commands
    for command in commands:
        assert "OS: image [global status: valid]" in lab.succeed(*command)


def test_wrong_parameters_are_refused_each_with_its_sentence(lab: Lab) -> None:
    said = add_fails(lab, "wrong.lab.example", "-O", "image_type=nonsense,swap=maybe,swap_size=-1")
    assert "OS parameter image_type is 'nonsense'; expected" in said
    assert "OS parameter swap is 'maybe'; expected yes or no" in said
    assert "OS parameter swap_size is '-1'; expected a size in MiB" in said
    assert "wrong.lab.example" not in lab.succeed("gnt-instance", "list", "--no-headers", "-o", "name")
    said = add_fails(lab, "wrong.lab.example", "-O", "customize_dir=/tmp")
    assert "not supported by the OS image: customize_dir" in said


def test_parameters_of_the_cluster(lab: Lab) -> None:
    changed = lab.run("gnt-os", "modify", "-O", "grow=perhaps", "image+default")
    assert changed.returncode != 0
    assert "OS parameter grow is 'perhaps'; expected yes or no" in changed.stdout
    lab.succeed("gnt-os", "modify", "-O", "image_name=from-the-cluster", "image+default")
    try:
        said = add_fails(lab, "cluster.lab.example", os="image+default")
    finally:
        lab.succeed("gnt-os", "modify", "-O", "image_name=default", "image+default")
    assert "from-the-cluster-x86_64.qcow2: the image does not exist" in said


def test_the_os_without_a_variant_is_refused_by_ganeti_itself(lab: Lab) -> None:
    said = add_fails(lab, "plain.lab.example", os="image")
    assert "OS name 'image' must include a variant" in said
    said = add_fails(lab, "plain.lab.example", "--force-variant", "-O", "image_name=no-such-image", os="image")
    assert "no-such-image-x86_64." in said


def test_variants(lab: Lab) -> None:
    said = add_fails(lab, "variant.lab.example", os="image+nosuch")
    assert "nosuch" in said
    said = add_fails(lab, "forced.lab.example", "--force-variant", os="image+nosuch")
    assert "the variant nosuch is not published; create this file" in said
    lab.publish("promised")
    said = add_fails(lab, "promised.lab.example", os="image+promised")
    assert "promised.conf: does not exist, but the variant promised is published; create this file" in said
