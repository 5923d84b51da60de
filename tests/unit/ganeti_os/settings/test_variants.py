# SPDX-License-Identifier: MIT
"""Variants: their place among the layers, and the message about one without a file."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from ganeti_os.settings import variants
from ganeti_os.settings.settings import Paths, Settings, read_settings
from ganeti_os.settings.shellfile import SettingsError
from pydiskimg.errors import StorageError
from tests.fixtures.node import PATH, ROOT, Node, last_line


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    (tmp_path / "default").mkdir()
    (tmp_path / "ganeti/instance-image/variants").mkdir(parents=True)
    return Paths(str(tmp_path), "/var")


@pytest.fixture
def os_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where Ganeti starts the verbs."""
    made = tmp_path / "os"
    made.mkdir()
    monkeypatch.chdir(made)
    return made


def variant(paths: Paths, name: str, text: str) -> Path:
    path = Path(paths.sysconfdir) / "ganeti/instance-image/variants" / f"{name}.conf"
    path.write_text(text)
    return path


def test_order_of_the_layers(paths: Paths) -> None:
    Path(paths.settings_file).write_text("SWAP_SIZE=1\nBOOT_SIZE=1\nIMAGE_NAME=file\nFILESYSTEM=ext2\nKERNEL_ARGS=a\n")
    variant(paths, "v", "BOOT_SIZE=2\nIMAGE_NAME=variant\nFILESYSTEM=\nKERNEL_ARGS=b\n")
    found = read_settings(paths, variant="v", parameters={"IMAGE_NAME": "parameter", "KERNEL_ARGS": ""})
    assert (found.swap_size_mib, found.boot_size_mib, found.image_name) == (1, 2, "parameter")
    assert (found.filesystem, found.kernel_args) == ("ext4", "")
    assert read_settings(paths, variant="v").image_name == "variant"
    assert read_settings(paths).image_name == "file"


def test_errors_name_the_variants_file_and_line(paths: Paths) -> None:
    path = variant(paths, "v", "\nSWAP=x\n")
    with pytest.raises(SettingsError) as caught:
        read_settings(paths, variant="v")
    assert str(caught.value) == f"{path}:2: SWAP is 'x'; expected yes or no"
    variant(paths, "v", "rm -rf /\n")
    with pytest.raises(SettingsError, match=rf"^{path}:1: found 'rm'"):
        read_settings(paths, variant="v")


def test_the_directory_is_a_setting_of_the_settings_file(
    paths: Paths, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "mine").mkdir()
    Path(paths.settings_file).write_text(f'BASE="{tmp_path}"\nVARIANTS_DIR=$BASE/mine\n')
    (tmp_path / "mine/v.conf").write_text("SWAP=no\n")
    variant(paths, "v", "SWAP=x\n")
    assert not read_settings(paths, variant="v").swap
    assert not caplog.records
    (tmp_path / "mine/v.conf").write_text("SWAP=no\nVARIANTS_DIR=/elsewhere\n")
    assert not read_settings(paths, variant="v").swap
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path}/mine/v.conf:2: VARIANTS_DIR has an effect only in the settings file"
    ]
    Path(paths.settings_file).write_text("VARIANTS_DIR=relative\n")
    with pytest.raises(SettingsError, match=r":1: VARIANTS_DIR is 'relative'; expected the absolute path"):
        read_settings(paths, variant="v")


def test_the_default_variant_needs_no_file_and_may_have_one(paths: Paths) -> None:
    assert read_settings(paths, variant="default") == Settings.from_layers([], paths=paths)
    variant(paths, "default", "")
    assert read_settings(paths, variant="default") == Settings.from_layers([], paths=paths)
    variant(paths, "default", "SWAP=no\n")
    assert not read_settings(paths, variant="default").swap
    assert read_settings(paths).swap


def test_the_default_variant_without_its_directory(tmp_path: Path) -> None:
    assert read_settings(Paths(f"{tmp_path}/none"), variant="default").swap


def test_a_published_variant_without_its_file(paths: Paths, os_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "list").write_text("# ours\n\ndefault\n  lenny  \n")
    (os_dir / "variants.list").symlink_to(tmp_path / "list")
    with pytest.raises(SettingsError) as caught:
        read_settings(paths, variant="lenny")
    assert str(caught.value) == (
        f"{paths.sysconfdir}/ganeti/instance-image/variants/lenny.conf: does not exist, but the variant lenny is "
        f"published; create this file (it may be empty) or take lenny out of {tmp_path}/list"
    )
    variant(paths, "lenny", "")
    read_settings(paths, variant="lenny")


def test_a_forced_unknown_variant(paths: Paths, os_dir: Path) -> None:
    (os_dir / "variants.list").write_text("default\n#lennie\nsqueeze\n\x1b[2J\n")
    with pytest.raises(SettingsError) as caught:
        read_settings(paths, variant="lennie")
    assert str(caught.value).endswith(
        "/lennie.conf: does not exist, and the variant lennie is not published; create this file if the name is right, "
        "or choose one of default, squeeze"
    )
    variant(paths, "lennie", "SWAP=no\n")  # an unpublished one that has its file is supported
    assert not read_settings(paths, variant="lennie").swap


@pytest.mark.parametrize("list_of", [None, b"", b"\xff\xfe\n", b"a\n" * 100_000])
def test_lists_that_tell_nothing(paths: Paths, os_dir: Path, list_of: bytes | None) -> None:
    if list_of is not None:
        (os_dir / "variants.list").write_bytes(list_of)
    with pytest.raises(SettingsError) as caught:
        read_settings(paths, variant="v")
    assert "the variant v is not published; create this file if the name is right, or " in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_list_that_is_no_file(paths: Paths, os_dir: Path) -> None:
    os.mkfifo(os_dir / "variants.list")
    with pytest.raises(SettingsError, match="publish variants in"):
        read_settings(paths, variant="v")


def test_a_variants_file_that_is_none(paths: Paths, tmp_path: Path) -> None:
    variant(paths, "x", "").unlink()
    (tmp_path / "ganeti/instance-image/variants/v.conf").mkdir()
    with pytest.raises(SettingsError, match="expected a file of assignments"):
        read_settings(paths, variant="v")
    Path(paths.settings_file).write_text(f"VARIANTS_DIR={paths.settings_file}\n")
    with pytest.raises(StorageError, match="Not a directory"):
        read_settings(paths, variant="v")


def test_the_list_as_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT / "ganeti_os/definition")
    assert variants.published() == [variants.DEFAULT_VARIANT]


@pytest.mark.parametrize(("name", "words"), [("lenny", "is published; create this file"), ("other", "choose one of")])
def test_verify_as_ganeti_runs_it(tmp_path: Path, name: str, words: str) -> None:
    node = Node.make(tmp_path / "node")
    os_dir = tmp_path / "os"
    os_dir.mkdir()
    (os_dir / "variants.list").write_text("default\nlenny\n")
    environ = {"PATH": PATH, "PYTHONPATH": str(ROOT), "OS_API_VERSION": "20", "OS_NAME": "image", "OS_VARIANT": name}
    command = node.command("verify", "parameters")
    done = subprocess.run(command, cwd=os_dir, env=environ, capture_output=True, text=True, umask=0o077, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert words in last_line(done)
    file = node.directory / "etc/ganeti/instance-image/variants" / f"{name}.conf"
    file.parent.mkdir(parents=True)
    file.touch()
    done = subprocess.run(command, cwd=os_dir, env=environ, capture_output=True, text=True, umask=0o077, check=False)
    assert (done.returncode, done.stderr) == (0, "")
