# SPDX-License-Identifier: MIT
"""The lock on a backing file where we may only read it: on a read-only file system, as a user without permission."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fixtures.both_programs import by_pydiskimg, by_qemu_img
from tests.fixtures.qcow2_images import run
from tests.fixtures.used_by_us import in_pydiskimg

pytestmark = pytest.mark.root

NOBODY = 65534
READ_ONLY = "mount --bind templates templates && mount -o remount,bind,ro templates"


def test_a_backing_file_that_is_only_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o755)
    Path("templates").mkdir()
    run("qemu-img", "create", "-q", "-f", "qcow2", "templates/base", "2M")
    Path("templates/base").chmod(0o444)
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "templates/base", "-F", "qcow2", "overlay")
    Path("overlay").chmod(0o666)
    within = ["unshare", "--mount", "sh", "-c", f'{READ_ONLY} && exec "$@"', "sh"]
    with in_pydiskimg(tmp_path / "overlay", user=NOBODY, within=within):
        for done in (by_qemu_img("resize", "templates/base", "3M"), by_pydiskimg("resize", "templates/base", "3M")):
            assert done.status == 1
            assert "lock" in done.err
        assert by_qemu_img("check", "templates/base").status == 0
    assert by_qemu_img("resize", "templates/base", "3M").status == 0
