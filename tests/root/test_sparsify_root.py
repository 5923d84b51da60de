# SPDX-License-Identifier: MIT
"""sparsify of a block device."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pydiskimg.cli import main
from tests.fixtures.growing import loop

pytestmark = pytest.mark.root


def test_sparsify_of_a_device_says_what_was_discarded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """stat() has no allocated size of a device: "The file takes 0 bytes" was not true."""
    path = tmp_path / "disk"
    path.write_bytes(b"x" * (8 << 20))
    assert main(["mkfs", "--force", str(path)]) == 0
    with path.open("r+b") as file:  # free space that is stored
        file.seek(4 << 20)
        file.write(b"x" * (1 << 20))
    capsys.readouterr()
    with loop(path, 0, 8 << 20) as device:
        assert main(["sparsify", device]) == 0
        said = capsys.readouterr().out
        assert said.endswith(" were discarded.\n")
        assert not said.startswith("0 bytes")
        assert main(["sparsify", "--output", "json", device]) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["stored-before"], found["stored-after"]) == (None, None)
