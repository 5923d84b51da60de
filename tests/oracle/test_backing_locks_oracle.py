# SPDX-License-Identifier: MIT
"""The backing files of an image that we write are locked as QEMU locks them: others read them, none writes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fixtures.both_programs import Said, by_pydiskimg, by_qemu_img
from tests.fixtures.qcow2_images import run
from tests.fixtures.used_by_qemu import in_qemu
from tests.fixtures.used_by_us import in_pydiskimg

pytestmark = pytest.mark.oracle

WRITES = (
    ["bitmap", "--add", "FILE", "new"],
    ["check", "-r", "all", "FILE"],
    ["convert", "-n", "-f", "raw", "-O", "qcow2", "raw", "FILE"],
    ["resize", "FILE", "+1M"],
    ["snapshot", "-c", "new", "FILE"],
)
READS = (["convert", "-O", "raw", "FILE", "copy"], ["check", "FILE"], ["compare", "FILE", "FILE"])


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files of a chain: base, middle and top, and a second overlay of middle."""
    monkeypatch.chdir(tmp_path)
    run("qemu-img", "create", "-q", "-f", "qcow2", "base", "2M")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 1 0 200k", "base")
    for name, below in (("middle", "base"), ("top", "middle"), ("beside", "middle"), ("other", "base")):
        run("qemu-img", "create", "-q", "-f", "qcow2", "-b", below, "-F", "qcow2", name)
    run("qemu-io", "-f", "qcow2", "-c", "write -P 2 0 64k", "top")
    Path("raw").write_bytes(b"\3" * (2 << 20))
    return tmp_path


def by_both(words: list[str], name: str) -> tuple[Said, Said]:
    words = [word.replace("FILE", name) for word in words]
    allowed = ["--allow-references", "."] if words[0] in ("commit", "compare", "convert", "rebase", "resize") else []
    return by_pydiskimg(words[0], *allowed, *words[1:]), by_qemu_img(*words)


@pytest.mark.parametrize("name", ["base", "middle"])
def test_no_one_writes_what_we_stand_on(here: Path, name: str) -> None:
    before = Path(name).read_bytes()
    with in_pydiskimg(here / "top"):
        for words in WRITES:
            ours, theirs = by_both(words, name)
            assert (ours.status, theirs.status) == (1, 1), words
            assert f"{name}: is in use" in ours.err
        for words in READS:
            assert [said.status for said in by_both(words, name)] == [0, 0], words
        with in_pydiskimg(here / "beside"), in_qemu("other", "qcow2"):
            pass
    assert Path(name).read_bytes() == before
    assert by_pydiskimg("resize", "--allow-references", ".", name, "+1M").status == 0


@pytest.mark.parametrize("name", ["base", "middle"])
@pytest.mark.parametrize(
    "words",
    [
        ["resize", "top", "+1M"],
        ["rebase", "-b", "", "top"],
        ["rebase", "-b", "middle", "-F", "qcow2", "other"],
        ["commit", "top"],
        ["commit", "-b", "base", "top"],
        ["convert", "-n", "-f", "raw", "-O", "qcow2", "raw", "top"],
    ],
)
def test_what_stands_on_a_file_that_is_written_is_not_written(here: Path, name: str, words: list[str]) -> None:
    before = {path: path.read_bytes() for path in here.iterdir()}
    with in_qemu(name, "qcow2"):
        ours, theirs = by_both(words, name)
        assert (ours.status, theirs.status) == (1, 1)
        assert f"{name}: is in use" in ours.err
        assert by_pydiskimg("convert", "--allow-references", ".", "-O", "raw", "top", "copy").status == 0
        Path("copy").unlink()
    for path in here.iterdir():
        if path.name != name:
            assert path.read_bytes() == before[path], path
