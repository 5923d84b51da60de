# SPDX-License-Identifier: MIT
"""What a changing command says about the disk when a signal or a full file system ends it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from pydiskimg.cli import main
from pydiskimg.cli.interruption import after_interruption

MIB = 1 << 20


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "disk").write_bytes(bytes(16 * MIB))
    assert main(["partition", "create", "disk"]) == main(["partition", "add", "disk"]) == 0
    return tmp_path / "disk"


def test_a_full_file_system_is_told_with_what_is_left(
    disk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    capsys.readouterr()
    with monkeypatch.context() as patched:
        patched.setattr("os.pwrite", full)
        patched.setattr("os.pwritev", full)
        assert main(["partition", "set", "--type", "swap", "disk", "1"]) == 1
    said = capsys.readouterr().err
    assert "No space left on device; disk: see with: pydiskimg partition list" in said
    assert said.count("\n") == 1


def test_a_signal_in_an_inner_block_is_told_once() -> None:
    with pytest.raises(KeyboardInterrupt) as ended, after_interruption("outer"), after_interruption("inner"):
        raise KeyboardInterrupt(2)
    assert ended.value.args == (2, "inner")
