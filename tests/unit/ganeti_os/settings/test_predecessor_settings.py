# SPDX-License-Identifier: MIT
"""Settings files of ganeti-instance-image 0.7 work unchanged: all its names, its spellings, its values."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from ganeti_os.settings.settings import Paths, Settings, read_settings
from ganeti_os.settings.table import BY_NAME, WITHOUT_EFFECT

# What its programs give a default to.
NAMES = """
CDINSTALL SWAP SWAP_SIZE BOOT_SIZE FILESYSTEM KERNEL_ARGS OVERLAY IMAGE_NAME IMAGE_TYPE NOMOUNT ARCH CUSTOMIZE_DIR
VARIANTS_DIR NETWORKS_DIR OVERLAYS_DIR EXPORT_DIR IMAGE_DIR IMAGE_DEBUG FDISK CACHE_DIR IMAGE_URL IMAGE_VERIFY
IMAGE_CLEANUP
"""

# The assignments that its file shows, commented out.
SHOWN = """\
# CDINSTALL="no"
# SWAP=yes
# SWAP_SIZE=""
# BOOT_SIZE=""
# FILESYSTEM="ext3"
# KERNEL_ARGS=""
# IMAGE_NAME=""
# IMAGE_TYPE="dump"
# IMAGE_DIR=""
# NOMOUNT=""
# OVERLAY=""
# EXPORT_DIR="/tmp"
# ARCH=""
# CUSTOMIZE_DIR="/etc/ganeti/instance-image/hooks"
# IMAGE_DEBUG=0
# IMAGE_URL=""
# CACHE_DIR=""
# IMAGE_VERIFY="yes"
# IMAGE_CLEANUP="no"
"""


@pytest.fixture
def paths(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Paths:
    caplog.set_level(logging.INFO)
    (tmp_path / "default").mkdir()
    return Paths(str(tmp_path))


def read(paths: Paths, text: str) -> Settings:
    Path(paths.settings_file).write_text(text)
    return read_settings(paths, machine="x86_64")


def test_every_name_is_known() -> None:
    assert set(NAMES.split()) <= set(BY_NAME) | set(WITHOUT_EFFECT)
    assert set(WITHOUT_EFFECT) <= set(NAMES.split())


def test_as_it_is_installed(paths: Paths, caplog: pytest.LogCaptureFixture) -> None:
    assert read(paths, SHOWN) == Settings.from_layers([], paths=paths, machine="x86_64")
    assert not caplog.records


def test_everything_uncommented(paths: Paths, caplog: pytest.LogCaptureFixture) -> None:
    found = read(paths, SHOWN.replace("# ", ""))
    assert (found.filesystem, found.image_type, found.customize_dir) == (
        *("ext3", "dump"),
        "/etc/ganeti/instance-image/hooks",
    )
    assert (found.swap_size_mib, found.boot_size_mib, found.nomount, found.image_verify) == (None, 100, False, True)
    assert found.export_dir == "/tmp"
    assert not caplog.records


def test_as_people_edit_it(paths: Paths, caplog: pytest.LogCaptureFixture) -> None:
    text = SHOWN + (
        "# local settings\nIMAGE_TYPE=qemu\nIMAGE_NAME='debian-12'\nFDISK=parted   # works better\n"
        'BASE=/srv/ganeti\nexport IMAGE_DIR="${BASE}/images/"\nSWAP="no"; NOMOUNT="yes"\nIMAGE_DEBUG=1\n'
        'KERNEL_ARGS="console=ttyS0,115200n8 root=LABEL=/"\nIMAGE_URL="http://images.example.org/pub"\n'
    )
    found = read(paths, text)
    assert (found.image_type, found.image_name, found.image_dir) == ("qemu", "debian-12", "/srv/ganeti/images")
    assert (found.swap, found.nomount, found.image_debug) == (False, True, True)
    assert found.kernel_args == "console=ttyS0,115200n8 root=LABEL=/"
    assert found.image_url == "http://images.example.org/pub"
    assert [record.getMessage() for record in caplog.records] == [
        f"{paths.settings_file}:23: FDISK has no effect: no program makes the partitions"
    ]


@pytest.mark.parametrize(("text", "debug"), [("0", False), ("1", True), ("yes", True), ("no", False), ('""', False)])
def test_image_debug(paths: Paths, text: str, debug: bool) -> None:
    assert read(paths, f"IMAGE_DEBUG={text}\n").image_debug == debug


def test_its_variants(paths: Paths, tmp_path: Path) -> None:
    """It installs an empty default.conf, and sources a variant after the settings file."""
    directory = tmp_path / "ganeti/instance-image/variants"
    directory.mkdir(parents=True)
    (directory / "default.conf").touch()
    (directory / "etch.conf").write_text('IMAGE_NAME="debian-4.0"\nSWAP_SIZE="256"\nOVERLAY=etch\n')
    Path(paths.settings_file).write_text('IMAGE_NAME="debian-5.0"\n')
    assert read_settings(paths, variant="default").image_name == "debian-5.0"
    found = read_settings(paths, variant="etch")
    assert (found.image_name, found.swap_size_mib, found.overlay) == ("debian-4.0", 256, "etch")
