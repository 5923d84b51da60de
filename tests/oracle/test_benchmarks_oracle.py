# SPDX-License-Identifier: MIT
"""The benchmarks' harness on two rows that take little: inputs, turns, a check, the page and its plot."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.__main__ import main


def test_rows_are_measured_and_written(tmp_path: Path) -> None:
    where = [f"--{name}={tmp_path}" for name in ("inputs", "directory", "temporary")]
    main(["--small", "--rounds=1", *where, f"--output={tmp_path / 'out'}", "check-empty", "mkfs-ext2-64m"])
    page = (tmp_path / "out/results.md").read_text()
    assert "| check-empty | qemu-img | **" in page
    assert "| mkfs-ext2-64m | mke2fs | **" in page
    assert "Processor: " in page
    drawn = ElementTree.parse(tmp_path / "out/ratios.svg").getroot()
    assert len(drawn.findall("{http://www.w3.org/2000/svg}circle")) == 2
    assert sorted(path.name for path in (tmp_path / "small").iterdir()) == ["empty_qcow2", "measured"]
    kept = tmp_path / "small/measured/mkfs-ext2-64m.json"
    kept.unlink()
    before = (tmp_path / "small/measured/check-empty.json").read_bytes()
    main(["--small", "--rounds=1", *where, "--continue", "check-empty", "mkfs-ext2-64m"])
    assert kept.exists()
    assert (tmp_path / "small/measured/check-empty.json").read_bytes() == before


def test_a_row_measured_without_a_peer_is_not_measured_again(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    where = [f"--{name}={tmp_path}" for name in ("inputs", "directory", "temporary")]
    main(["--small", "--rounds=1", *where, "--without=qemu-*", "check-empty"])
    alone = capfd.readouterr().out
    main(["--small", "--rounds=1", *where, "--continue", "check-empty"])
    assert capfd.readouterr().out == alone
    path = tmp_path / "small/measured/check-empty.json"
    path.write_text(path.read_text().replace("pydiskimg check", "pydiskimg info"))
    main(["--small", "--rounds=1", *where, "--continue", "check-empty"])
    assert "qemu-img" in capfd.readouterr().out
