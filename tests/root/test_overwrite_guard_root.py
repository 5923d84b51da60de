# SPDX-License-Identifier: MIT
"""mkfs on a device that cannot be read everywhere: what is there cannot be told, so it is not overwritten unasked."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pydiskimg.cli import main
from pydiskimg.units import MIB
from tests.fixtures.block_devices import block_device

pytestmark = pytest.mark.root


@pytest.mark.parametrize("command", ["mkfs", "mkswap"])
def test_a_device_with_bad_sectors(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pydiskimg.cli.signals.end_as_interrupted", lambda: None)
    path = tmp_path / "disk"
    with path.open("wb") as file:
        file.truncate(100 * MIB)
    with block_device(path) as device:
        os.truncate(path, 64 * MIB)  # what follows is an input/output error from now on
        status = main((command, device))
        said = capsys.readouterr().err
    assert (status, said.count("\n")) == (1, 1)
    assert "Input/output error; its contents cannot be determined; use --force to overwrite it\n" in said
    assert not any(path.read_bytes())
