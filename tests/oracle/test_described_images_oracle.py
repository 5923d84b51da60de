# SPDX-License-Identifier: MIT
"""Images that are described (--image-opts, json:), judged by qemu-img; and what descriptions must not open."""

from __future__ import annotations

import json
import random
import re
import subprocess
from pathlib import Path

import pytest

from pydiskimg.cli import main
from tests.fixtures.both_programs import by_pydiskimg, by_qemu_img, with_fields_of
from tests.fixtures.qcow2_chains import contents, made_chain
from tests.fixtures.qcow2_images import run

pytestmark = pytest.mark.oracle

KIB = 1 << 10
MIB = 1 << 20


def ours(*words: object) -> int:
    try:
        return main([*map(str, words)])
    except SystemExit as ended:
        return int(str(ended.code))


@pytest.fixture
def chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    monkeypatch.chdir(tmp_path)
    return made_chain(tmp_path, random.Random(1), sizes=(2 * MIB, 2 * MIB))


DESCRIPTIONS = [
    "driver=qcow2,file.filename=base.qcow2",
    "driver=qcow2,file.driver=file,file.filename=base.qcow2,file.locking=off,cache.direct=on,read-only=on",
    "driver=raw,file.filename=base.qcow2",
    "driver=raw,offset=64k,file.filename=base.qcow2",
    "driver=raw,offset=4096,size=65536,file.filename=base.qcow2",
    "driver=file,filename=base.qcow2",
    "file.filename=base.qcow2",
    'json:{"driver": "qcow2", "file": {"driver": "file", "filename": "base.qcow2"}}',
    'json:{"driver": "qcow2", "file.driver": "file", "file.filename": "base.qcow2", "node-name": "n"}',
    'json:{"driver": "raw", "offset": 512, "size": 1024, "file": {"driver": "file", "filename": "base.qcow2"}}',
    'json:{"driver": "qcow2", "file": {"driver": "file", "filename": "layer0.qcow2"}, '
    '"backing": {"driver": "raw", "file": {"driver": "file", "filename": "base.qcow2"}}}',
    'json:{"driver": "qcow2", "file": {"driver": "file", "filename": "layer0.qcow2"}, '
    '"backing": {"driver": "raw", "offset": 1024, "file": {"driver": "file", "filename": "base.qcow2"}}}',
    'json:{"driver": "qcow2", "file": {"driver": "file", "filename": "layer0.qcow2"}, "backing": null}',
    "driver=qcow2,file.filename=layer0.qcow2,backing.driver=qcow2,backing.file.filename=base.qcow2",
    "file.filename=layer0.qcow2,backing.file.filename=base.qcow2",
]


def test_strings_in_single_quotes(chain: list[Path]) -> None:
    """QEMU's JSON has them."""
    Path("""it's "one\"""").symlink_to("base.qcow2")
    image = """json:{'driver': 'qcow2', "file": {'driver': 'file', 'filename': 'it\\'s "one\\u0022'}}"""
    run("qemu-img", "convert", "-O", "raw", image, "expected")
    assert ours("convert", "-O", "raw", image, "made") == 0
    assert Path("made").read_bytes() == Path("expected").read_bytes()


@pytest.mark.parametrize("image", DESCRIPTIONS)
def test_read_as_described(chain: list[Path], image: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = [] if image.startswith("json:") else ["--image-opts"]
    run("qemu-img", "convert", *words, "-O", "raw", image, "expected")
    assert ours("convert", *words, "-O", "raw", image, "made") == 0
    assert Path("made").read_bytes() == Path("expected").read_bytes()
    assert ours("convert", *words, "-O", "raw", image, image, "twice") == 0
    assert Path("twice").read_bytes() == Path("expected").read_bytes() * 2
    if not words:
        assert ours("compare", "-F", "raw", image, "expected") == 0
    assert ours("dd", *words, f"if={image}", "of=part", "bs=1k", "count=1") == 0
    assert Path("part").read_bytes() == Path("expected").read_bytes()[:KIB]
    capsys.readouterr()
    for command in (["map", "--output=json"], ["measure", "--output=json", "-O", "qcow2"]):
        assert ours(*command, *words, image) == 0
        found = json.loads(capsys.readouterr().out)
        expected = json.loads(run("qemu-img", *command, *words, image))
        if command[0] == "map":
            found = with_fields_of(expected, found)
        assert found == expected


@pytest.mark.parametrize(
    "image",
    [
        "driver=vmdk,file.filename=base.qcow2",
        "driver=qcow2,file.driver=nbd,file.host=h",
        "driver=qcow2,file.driver=https,file.url=https://h/",
        "driver=qcow2,file.filename=base.qcow2,nonsense=1",
        "driver=qcow2,file.filename=base.qcow2,file.nonsense=1",
        "driver=qcow2,file.filename=base.qcow2,offset=4",
        "driver=raw,offset=1G,file.filename=base.qcow2",
        "driver=raw,size=1000,file.filename=base.qcow2",
        "driver=raw,size=many,file.filename=base.qcow2",
        "driver=qcow2",
        "driver=qcow2,file=base.qcow2",
        "driver=host_device,filename=base.qcow2",
        "driver=qcow2,file.filename=missing",
        "driver=qcow2,file.filename=base.qcow2,backing.driver=raw,backing.file.filename=layer0.qcow2",
        "base.qcow2",
        "json:{",
        "json:7",
        'json:{"driver": "qcow2", "file": 7}',
        'json:{"driver": ["qcow2"], "file": {"filename": "base.qcow2"}}',
        'json:{"driver": "qcow2", "file": {"driver": "file", "filename": 7}}',
        "json:" + '{"driver": "qcow2", "file": {"filename": "layer0.qcow2"}, "backing": ' * 600,
    ],
)
def test_refused_by_both(chain: list[Path], image: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--image-opts"]
    for command in ("convert", "map", "info", "resize"):
        last = {"convert": ["made"], "resize": ["3M"]}.get(command, [])
        assert ours(command, *words, image, *last) == 1
        assert capsys.readouterr().err.count("\n") == 1
    said = subprocess.run(["qemu-img", "info", *words, image], capture_output=True, check=False)
    assert said.returncode == 1


PARTS = [
    "driver=raw,offset=64k,size=1M,file.filename=outer",
    "driver=raw,offset=512k,size=1M,file.driver=qcow2,file.file.filename=base.qcow2",
    "driver=raw,offset=300k,file.driver=raw,file.offset=64k,file.file.filename=outer",
    "driver=qcow2,file.driver=raw,file.offset=64k,file.file.filename=outer",
    'json:{"driver": "qcow2", "file": {"driver": "raw", "offset": 65536, "file": {"filename": "outer"}}}',
    "driver=qcow2,file.driver=qcow2,file.file.filename=nested.qcow2",
]


@pytest.fixture
def outer(chain: list[Path]) -> None:
    """An image in the middle of a file, and one on the disk of another one."""
    del chain
    Path("inner").write_bytes(Path("base.qcow2").read_bytes())
    run("qemu-img", "snapshot", "-c", "before", "inner")
    image = Path("inner").read_bytes()
    Path("outer").write_bytes(b"\5" * 64 * KIB + image + bytes(-len(image) % 512))
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", "base.qcow2", "nested.qcow2")


@pytest.mark.usefixtures("outer")
@pytest.mark.parametrize("image", PARTS)
def test_parts_of_files_and_of_disks(image: str, capsys: pytest.CaptureFixture[str]) -> None:
    """info, check and map of a part say what qemu-img says, under the name that it was given."""
    words = [] if image.startswith("json:") else ["--image-opts"]
    run("qemu-img", "convert", *words, "-O", "raw", image, "expected")
    assert ours("convert", *words, "-O", "raw", image, "made") == 0
    assert Path("made").read_bytes() == Path("expected").read_bytes()
    capsys.readouterr()
    for command in ("info", "check", "map", "measure"):
        options = [command, "--output=json", *(["-O", "raw"] if command == "measure" else []), *words, image]
        theirs = by_qemu_img(*options)
        assert ours(*options) == theirs.status
        out = capsys.readouterr().out
        if theirs.status:
            continue
        expected, found = json.loads(theirs.out), json.loads(out)
        if command == "map":
            found = with_fields_of(expected, found)
        if command == "info":  # QEMU names it by JSON of its own, and has the cluster size of what is under a raw one
            assert found.pop("filename") == image
            del expected["filename"]
            expected.pop("cluster-size" if found["format"] == "raw" else "", None)
        assert found == expected
    assert ours("snapshot", "-l", *words, image) == 0
    assert capsys.readouterr().out == by_qemu_img("snapshot", "-l", *words, image).out
    for change in (["check", "-r", "all"], ["snapshot", "-c", "now"], ["snapshot", "-d", "before"]):
        assert ours(*change, *words, image) == 1
        assert "is for a whole image" in capsys.readouterr().err


@pytest.mark.usefixtures("outer")
@pytest.mark.parametrize("image", [image for image in PARTS if image.count("driver") > 1 and image[0] == "d"])
def test_an_image_in_another_one_is_not_written(image: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("source").write_bytes(b"\1" * 64 * KIB)
    before = {path: path.read_bytes() for path in Path().iterdir()}
    for command in (["convert", "-n", "--target-image-opts", "source"], ["resize", "--image-opts"], ["commit"]):
        words = [*command, *(["--image-opts"] if command == ["commit"] else []), image]
        assert ours(*words, *(["+1M"] if command[0] == "resize" else [])) == 1
        assert capsys.readouterr().err.count("\n") == 1
    assert before == {path: path.read_bytes() for path in Path().iterdir()}


@pytest.mark.usefixtures("outer")
def test_what_a_part_is_read_from_is_not_written_over(capsys: pytest.CaptureFixture[str]) -> None:
    for image in PARTS[:2]:
        name = image.rpartition("=")[2]
        before = Path(name).read_bytes()
        assert ours("convert", "--image-opts", image, name) == 1
        assert name in capsys.readouterr().err
        assert Path(name).read_bytes() == before


def test_every_command_takes_one(chain: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    base = 'json:{"driver": "qcow2", "file": {"driver": "file", "filename": "base.qcow2"}}'
    top = "driver=qcow2,file.driver=file,file.filename=layer0.qcow2"
    before = contents(chain[1], "qcow2")
    assert ours("info", "--output=json", base) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(by_qemu_img("info", "--output=json", base).out)
    assert ours("check", base) == 0
    assert ours("resize", "--allow-references", ".", "--image-opts", top, "+1M") == 0
    for words in (["-c", "s"], ["-l"], ["-d", "s"]):
        assert ours("snapshot", *words, base) == 0
    assert ours("rebase", "--allow-references", ".", "--image-opts", "-b", "", top) == 0
    assert contents(chain[1], "qcow2") == before + bytes(MIB)
    assert ours("rebase", "-u", "-b", "base.qcow2", "-F", "qcow2", "--image-opts", top) == 0
    assert ours("commit", "--allow-references", ".", "-d", "--image-opts", top) == 0
    assert contents(chain[0], "qcow2") == before + bytes(MIB)
    run("qemu-img", "check", "-q", "base.qcow2")
    # A part of a file, and -f beside a description.
    part = "driver=raw,offset=512,file.filename=base.qcow2"
    for command in (["commit"], ["resize", "1M"]):
        assert ours(command[0], "--image-opts", part, *command[1:]) == 1
        assert "this command accepts only whole images" in capsys.readouterr().err
    assert ours("map", "--image-opts", "-f", "qcow2", top) == 1
    assert ours("create", "-f", "qcow2", base, "1M") == 1


_OF_LAYOUT = r"disk size.*|.*actual-size.*|Image end offset.*|0x[45]0000"


@pytest.mark.parametrize("name", ["a.qcow2", "a:b", "./a:b", "sub/a"])
def test_names_with_the_protocol_of_files(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both take "file:" off, and call the image by the rest; a colon in that is none after a protocol."""
    monkeypatch.chdir(tmp_path)
    Path("sub").mkdir()
    Path("raw").write_bytes(b"\7" * 64 * KIB)
    image = f"file:{name}"
    steps = (
        ["create", "-f", "qcow2", image, "1M"],
        ["convert", "-n", "-f", "raw", "-O", "qcow2", "file:raw", image],
        ["info", image],
        ["info", "--output=json", image],
        ["map", image],
        ["check", image],
        ["measure", "-O", "raw", image],
        ["resize", "-f", "qcow2", image, "2M"],
        ["snapshot", "-c", "one", image],
        ["bitmap", "--add", image, "new"],
        ["amend", "-o", "lazy_refcounts=on", image],
        ["compare", "-F", "raw", image, "file:raw"],
        ["dd", "-O", "raw", f"if={image}", "of=file:part:1", "bs=512", "count=1"],
        ["convert", "-O", "raw", image, "file:whole"],
    )
    told: list[list[object]] = []
    for run_one in (by_qemu_img, by_pydiskimg):
        said = [run_one(*words) for words in steps]
        assert [each.status for each in said] == [0] * len(steps)
        told.append([re.sub(_OF_LAYOUT, "", each.out) for each in said])
        told[-1] += [Path(each).read_bytes() for each in ("part:1", "whole")]
        for path in (Path(name), Path("part:1"), Path("whole")):
            path.unlink()
    assert told[0] == told[1]


def test_protocols_as_formats_of_a_backing_file(chain: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    """rebase -u writes them, QEMU's word for what is raw; nothing is opened."""
    top = "layer0.qcow2"
    for form in ("host_device", "file"):
        assert ours("rebase", "-u", "-F", form, "-b", "base.qcow2", top) == 0
        assert json.loads(run("qemu-img", "info", "--output=json", top))["backing-filename-format"] == form
    assert ours("convert", "--allow-references", ".", "-O", "raw", top, "made") == 0
    assert Path("made").read_bytes() == contents(Path(top), "qcow2")
    assert ours("rebase", "-F", "host_device", "-b", "base.qcow2", top) == 1
    assert "goes with -u" in capsys.readouterr().err


def test_a_described_target(chain: list[Path]) -> None:
    Path("source").write_bytes(random.Random(2).randbytes(64 * KIB))
    run("qemu-img", "create", "-q", "-f", "qcow2", "target.qcow2", "64k")
    target = ["--target-image-opts", "source", "driver=qcow2,file.filename=target.qcow2"]
    assert ours("convert", *target) == 1
    assert ours("convert", "-n", *target) == 0
    assert contents(Path("target.qcow2"), "qcow2") == Path("source").read_bytes()
    Path("whole").write_bytes(b"\1" * MIB)
    part = 'json:{"driver": "raw", "offset": 65536, "size": 131072, "file": {"driver": "file", "filename": "whole"}}'
    assert ours("convert", "-n", "source", part) == 0
    expected = b"\1" * 65536 + Path("source").read_bytes() + b"\1" * (MIB - 131072)
    assert Path("whole").read_bytes() == expected
    assert ours("convert", "-n", "-O", "raw", "base.qcow2", part) == 1
    assert Path("whole").read_bytes() == expected


@pytest.mark.parametrize("name", ['json:{"driver":"raw","file":{"driver":"file","filename":"base.qcow2"}}', "json:x"])
def test_an_image_that_names_a_description(chain: list[Path], name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It is refused as every protocol is, also below an allowed directory."""
    run("qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "raw", "-b", name, "layer0.qcow2")
    for words in (["map"], ["compare", "base.qcow2"], ["info", "--backing-chain"]):
        assert ours(words[0], "--allow-references", ".", *words[1:], "layer0.qcow2") > 0
        assert "the protocol 'json'" in capsys.readouterr().err
