# SPDX-License-Identifier: MIT
"""The OS definition as Ganeti sees it."""

from __future__ import annotations

import pytest

from tests.fixtures.ganeti_lab import Lab

pytestmark = [pytest.mark.root, pytest.mark.ganeti]


def test_ganeti_finds_nothing_wrong_with_the_definition(lab: Lab) -> None:
    diagnosed = lab.succeed("gnt-os", "diagnose")
    assert "image" in diagnosed
    assert "valid" in diagnosed
    assert "invalid" not in diagnosed
