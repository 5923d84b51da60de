# SPDX-License-Identifier: MIT
"""new_image() with impossible sizes and names: a message, and no file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pydiskimg.cli import main
from pydiskimg.errors import DoesNotFitError, StorageError, UnsupportedImageError
from pydiskimg.images.create import new_image


@pytest.mark.parametrize("size", [(1 << 63) - 1, 1 << 63, 1 << 70])
@pytest.mark.parametrize("kind", ["raw", "qcow2"])
def test_too_large(tmp_path: Path, size: int, kind: str) -> None:
    with pytest.raises(DoesNotFitError, match="nothing was written"), new_image(tmp_path / "o", size, format=kind):
        raise AssertionError
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["raw", "qcow2"])
def test_negative(tmp_path: Path, kind: str) -> None:
    with (
        pytest.raises(UnsupportedImageError, match="o: a size of -1 bytes is not possible; expected 0 or more"),
        new_image(tmp_path / "o", -1, format=kind),
    ):
        raise AssertionError
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["raw", "qcow2"])
def test_no_path(kind: str) -> None:
    with pytest.raises(StorageError, match="is not a path"), new_image("a\0b", 512, format=kind):
        raise AssertionError


@pytest.mark.parametrize(
    "options",
    [{"compress": True}, {"cluster_size": 4096}, {"version": 3}, {"data_file": "data"}, {"lazy_refcounts": False}],
    ids=str,
)
def test_options_of_qcow2_for_a_raw_image(tmp_path: Path, options: dict[str, Any]) -> None:
    (name,) = options
    with (
        pytest.raises(UnsupportedImageError, match=rf"o: a raw image does not have options such as {name}; leave"),
        new_image(tmp_path / "o", 512, **options),
    ):
        raise AssertionError
    assert not list(tmp_path.iterdir())


def test_create_says_so_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["create", str(tmp_path / "p"), "9223372036854775807"]) == 1
    assert "does not support files of 9223372036854775808 bytes" in capsys.readouterr().err
