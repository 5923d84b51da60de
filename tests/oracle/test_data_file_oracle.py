# SPDX-License-Identifier: MIT
"""Images with an external data file, made and changed here and by QEMU in turns."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from pydiskimg.cli import main
from pydiskimg.images.open_disk import open_disk
from pydiskimg.images.references import allow_references
from tests.fixtures.both_programs import by_pydiskimg, by_qemu_img
from tests.fixtures.qcow2_images import run
from tests.fixtures.used_by_qemu import in_qemu

pytestmark = pytest.mark.oracle

SIZE = (2 << 20) + 1536
SHAPES = (
    "cluster_size=4k",
    "cluster_size=64k,data_file_raw=on",
    "cluster_size=16k,extended_l2=on",
    "cluster_size=16k,extended_l2=on,data_file_raw=on",
)


def check(path: Path) -> None:
    run("qemu-img", "check", "-q", "-f", "qcow2", str(path))


def contents(path: Path) -> bytes:
    raw = path.with_suffix(".out")
    run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(path), str(raw))
    return raw.read_bytes()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_there(path: Path, rng: random.Random, data: bytearray) -> None:
    words = []
    for _ in range(rng.randrange(1, 6)):
        start = rng.randrange(len(data) // 512) * 512
        length = min(len(data) - start, rng.randrange(1, 200) * 512)
        byte = rng.randrange(1, 255)
        word = rng.choice((f"write -P {byte}", "write -z"))
        data[start : start + length] = (bytes([byte]) if "P" in word else b"\0") * length
        words += ["-c", f"{word} {start} {length}"]
    run("qemu-io", "-f", "qcow2", *words, str(path))


def write_here(path: Path, rng: random.Random, data: bytearray) -> None:
    with (
        allow_references(path.parent) as allowed,
        open_disk(path, writable=True, format="qcow2", references=allowed) as disk,
    ):
        for _ in range(rng.randrange(1, 8)):
            start = rng.randrange(len(data))
            length = min(len(data) - start, rng.randrange(1, rng.choice((900, 9000, 200_000))))
            if rng.random() < 0.4:
                disk.zero(start, length)
                data[start : start + length] = bytes(length)
            else:
                data[start : start + length] = new = rng.randbytes(length)
                disk.write(start, new)
            found = bytearray(length)
            disk.read_into(start, found)
            assert found == data[start : start + length]


@pytest.mark.parametrize("shape", SHAPES)
def test_both_programs_in_turns(here: Path, shape: str) -> None:
    rng = random.Random(shape)
    path, data_file = here / "both.qcow2", here / "both.data"
    assert main(["create", "-q", "-f", "qcow2", "-o", f"{shape},data_file=both.data", path.name, str(SIZE)]) == 0
    data = bytearray(SIZE)
    for _ in range(4):
        write_here(path, rng, data)
        write_there(path, rng, data)
        check(path)
        assert contents(path) == data
        if "raw=on" in shape:
            assert data_file.read_bytes() == data
    for size in (1 << 20, (1 << 20) + 512, 3 << 20, 700_416, 1_300_480):
        words = ["--allow-references", ".", "--shrink", path.name, str(size)]
        assert main(["resize", "-q", *words]) == 0
        check(path)
        data = data[:size].ljust(size, b"\0")
        assert contents(path) == data
        if "raw=on" in shape:
            assert data_file.read_bytes() == data
        write_there(path, rng, data)


@pytest.mark.parametrize("preallocation", ["off", "metadata", "falloc", "full"])
@pytest.mark.parametrize("raw", ["on", "off"])
def test_created_as_by_qemu(here: Path, preallocation: str, raw: str) -> None:
    options = f"data_file_raw={raw},preallocation={preallocation}"
    told = []
    for name in ("ours", "theirs"):
        words = ["create", "-q", "-f", "qcow2", "-o", f"data_file={name}.data,{options}", f"{name}.qcow2", "1M"]
        if name == "ours":
            assert main(words) == 0
        else:
            run("qemu-img", *words)
        check(here / f"{name}.qcow2")
        rows = json.loads(run("qemu-img", "map", "--output=json", f"{name}.qcow2"))
        data = json.loads(run("qemu-img", "info", "--output=json", f"{name}.qcow2"))["format-specific"]["data"]
        status = (here / f"{name}.data").stat()
        told.append((rows, {**data, "data-file": ""}, status.st_size, status.st_blocks >= 2048))
    assert told[0] == told[1]


@pytest.mark.parametrize("command", ["write -P 7 0 9k", "write -z 0 512", "write -z 0 64k"])
@pytest.mark.parametrize("shape", SHAPES)
def test_mapped_where_the_first_cluster_is_at_0(here: Path, shape: str, command: str) -> None:
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", f"{shape},data_file=file,preallocation=metadata", "a", "100k")
    run("qemu-io", "-f", "qcow2", "-c", command, "a")
    rows = json.loads(run("qemu-img", "map", "-f", "qcow2", "--output=json", "a"))
    found = json.loads(by_pydiskimg("map", "--allow-references", ".", "-f", "qcow2", "--output=json", "a").out)
    assert [{"compressed": False, **row} for row in rows] == found


@pytest.mark.parametrize("raw", ["on", "off"])
def test_converted(here: Path, raw: str) -> None:
    rng = random.Random(raw)
    source, path = here / "disk.raw", here / "ours.qcow2"
    source.write_bytes(b"".join(rng.randbytes(70_000) + bytes(50_000) for _ in range(8)) + bytes(256))
    options = f"data_file={here}/ours.data,data_file_raw={raw}"
    assert main(["convert", "-O", "qcow2", "-o", options, str(source), str(path)]) == 0
    check(path)
    expected = source.read_bytes() + bytes(256)  # whole sectors
    assert contents(path) == expected
    if raw == "on":
        assert (here / "ours.data").read_bytes() == expected
    back = ["convert", "-O", "raw", "--allow-references", str(here), str(path), str(here / "back.raw")]
    assert main(back) == 0
    assert (here / "back.raw").read_bytes() == expected


def test_in_a_chain(here: Path) -> None:
    """Committed into, committed out of, and standing on another file."""
    rng = random.Random(6)
    chain = [here / f"{name}.qcow2" for name in ("base", "middle", "top")]
    for number, path in enumerate(chain):
        words = [] if not number else ["-b", chain[number - 1].name, "-F", "qcow2"]
        options = f"cluster_size=4k,data_file={path.stem}.data"
        assert main(["create", "-q", "-f", "qcow2", *words, "-o", options, path.name, "1M"]) == 0
        write_there(path, rng, bytearray(1 << 20))
    before, allowed = contents(chain[-1]), ["--allow-references", "."]
    assert main(["rebase", *allowed, "-b", "base.qcow2", "-F", "qcow2", "top.qcow2"]) == 0
    check(chain[2])
    assert contents(chain[2]) == before
    assert main(["commit", "-q", *allowed, "top.qcow2"]) == 0
    for path in (chain[0], chain[2]):
        check(path)
        assert contents(path) == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["create", "-f", "qcow2", "-o", "data_file_raw=on", "new.qcow2", "1M"], "without its name"),
        (["create", "-f", "qcow2", "-o", "data_file=d,compat=0.10", "new.qcow2", "1M"], "no external data files"),
        (["create", "-f", "qcow2", "-o", "data_file=new.qcow2", "new.qcow2", "1M"], "at once"),
        (["create", "-f", "qcow2", "-o", "data_file=nbd:x", "new.qcow2", "1M"], "name of a protocol"),
        (["create", "-f", "qcow2", "-o", "data_file=d", "sub/new.qcow2", "1M"], "by its absolute path"),
        (
            ["create", "-f", "qcow2", "-b", "own.data", "-F", "raw", "-o", "data_file=d,data_file_raw=on", "new.qcow2"],
            "has no backing file",
        ),
        (["convert", "-c", "-O", "qcow2", "-o", "data_file=d", "-f", "raw", "own.data", "new.qcow2"], "compressed"),
        (["convert", "-O", "qcow2", "-o", "data_file=own.data", "-f", "raw", "own.data", "new.qcow2"], "both source"),
        (["convert", "-n", "-O", "qcow2", "-f", "raw", "own.data", "own.qcow2"], "--allow-references"),
        (["snapshot", "-c", "one", "own.qcow2"], "has an external data file"),
        (["rebase", "-u", "-b", "own.data", "-F", "raw", "own.qcow2"], "has no backing file"),
        (["resize", "own.qcow2", "2M"], "--allow-references"),
    ],
)
def test_refused(here: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "sub").mkdir()
    own = ["create", "-q", "-f", "qcow2", "-o", "data_file=own.data,data_file_raw=on", "own.qcow2", "1M"]
    assert main(own) == 0
    before = {name: (here / name).read_bytes() for name in ("own.qcow2", "own.data")}
    try:
        status = main(words)
    except SystemExit as ended:
        status = int(ended.code or 0)
    assert status
    assert said in capsys.readouterr().err.replace("\n", " ")
    assert before == {name: (here / name).read_bytes() for name in before}
    assert not (here / "d").exists()


def test_a_data_file_in_use(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["create", "-q", "-f", "qcow2", "-o", "data_file=own.data", "own.qcow2", "1M"]) == 0
    with in_qemu(here / "own.data", "raw"):
        assert main(["resize", "--allow-references", ".", "own.qcow2", "2M"]) == 1
    assert "in use" in capsys.readouterr().err


DESCRIBED = "driver=qcow2,file.filename=own.qcow2,data-file.filename=moved.data"
ON_A_DESCRIBED = (
    ["info", "--image-opts", DESCRIBED],
    ["info", "--output=json", "--image-opts", DESCRIBED],
    ["info", "--image-opts", "file.filename=own.qcow2,data-file.driver=raw,data-file.file.filename=absent"],
    ["info", "--image-opts", "file.filename=plain.qcow2,data-file.filename=moved.data"],
    ["info", 'json:{"driver": "qcow2", "file": {"filename": "own.qcow2"}, "data-file": {"filename": "moved.data"}}'],
    ["info", 'json:{"driver": "qcow2", "file": {"filename": "top.qcow2"}, "backing": null}'],
    ["info", "--image-opts", "file.filename=top.qcow2,backing.driver=qcow2,backing.file.filename=plain.qcow2"],
    ["check", "--image-opts", DESCRIBED],
    ["check", "--output=json", "--image-opts", DESCRIBED],
    ["check", "--output=json", "file:plain.qcow2"],
    ["check", "--output=json", "--image-opts", "driver=qcow2,file.filename=plain.qcow2"],
    ["snapshot", "-l", "--image-opts", DESCRIBED],
    ["amend", "-o", "lazy_refcounts=on", "--image-opts", DESCRIBED],
    ["amend", "-o", "lazy_refcounts=on", 'json:{"driver": "qcow2", "file.filename": "top.qcow2", "backing": null}'],
    ["amend", "-o", "compat=0.10", "--image-opts", DESCRIBED],
    *(
        [*command, "--image-opts", f"file.filename={image},data-file.filename={data_file}"]
        for command in (["check"], ["snapshot", "-l"], ["amend", "-o", "lazy_refcounts=on"])
        for image, data_file in (("own.qcow2", "absent"), ("plain.qcow2", "moved.data"))
    ),
    ["amend", "-o", "data_file=moved.data", "--image-opts", DESCRIBED],
    ["info", "own.qcow2"],
    ["check", "own.qcow2"],
    ["amend", "-o", "data_file=", "--image-opts", DESCRIBED],
    ["info", "own.qcow2"],
    ["info", "--image-opts", DESCRIBED],
    ["amend", "-o", "data_file=moved.data", "--image-opts", DESCRIBED],
    ["info", "own.qcow2"],
)


def test_a_described_data_file(here: Path) -> None:
    """It stands for the one that the image names, which has moved: where no data is read, and amend gives its name."""
    told = []
    for program in (by_qemu_img, by_pydiskimg):
        for path in here.iterdir():
            path.unlink()
        run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "data_file=own.data", "own.qcow2", "1M")
        run("qemu-img", "create", "-q", "-f", "qcow2", "plain.qcow2", "1M")
        run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "plain.qcow2", "-F", "qcow2", "top.qcow2")
        (here / "own.data").rename("moved.data")
        told.append([(words, *program(*words)[:2]) for words in ON_A_DESCRIBED])
    for theirs, ours in zip(*told, strict=True):
        assert ours == theirs
    before = (here / "own.qcow2").read_bytes(), (here / "moved.data").read_bytes()
    said = by_pydiskimg("amend", "-o", "size=2M", "--image-opts", DESCRIBED)
    assert (said.status, "with the files that it names itself" in said.err) == (1, True)
    assert before == ((here / "own.qcow2").read_bytes(), (here / "moved.data").read_bytes())


def test_what_needs_no_data_file(here: Path) -> None:
    """Our exit status and qemu-img's, as docs/commands.md has them; without the file, and without its name."""
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "data_file=gone", "own.qcow2", "1M")
    (here / "gone").unlink()
    for name in ("absent", ""):
        for words in (["check"], ["snapshot", "-l"], ["amend", "-o", f"data_file={name}"]):
            assert [program(*words, "own.qcow2").status for program in (by_pydiskimg, by_qemu_img)] == [0, 1], words
