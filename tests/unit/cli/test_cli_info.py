# SPDX-License-Identifier: MIT
"""pydiskimg info and snapshot -l: what they show, what they do not open, and what they refuse."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any

import pytest

from pydiskimg.cli import main, run_quickly
from pydiskimg.cli.info import declare_common, run
from pydiskimg.cli.output import json_pieces, nested_lines
from pydiskimg.fs import luks
from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.bitmaps import BITMAP_ENTRY, BITMAPS
from pydiskimg.images.qcow2.header import full_backing_filename
from pydiskimg.images.qcow2.luks import CRYPTO_HEADER
from pydiskimg.images.qcow2.snapshots import SNAPSHOT
from tests.fixtures.checkout import ROOT
from tests.fixtures.qcow2_images import Craft, extension


def facts(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> Any:
    assert main(["info", "--output=json", *map(str, arguments)]) == 0
    return json.loads(capsys.readouterr().out)


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    assert main(["info", *map(str, arguments)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return tmp_path / "image"


def write(path: Path, craft: Craft, tail: bytes = b"") -> Path:
    path.write_bytes(craft.build() + tail)
    return path


def test_a_qcow2_image(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = facts(capsys, write(image, Craft()))
    assert found.pop("actual-size") >= 0
    assert found == {
        "virtual-size": 64 << 9,
        "filename": str(image),
        "cluster-size": 512,
        "format": "qcow2",
        "dirty-flag": False,
        "format-specific": {
            "type": "qcow2",
            "data": {
                "compat": "1.1",
                "compression-type": "zlib",
                "lazy-refcounts": False,
                "refcount-bits": 16,
                "corrupt": False,
                "extended-l2": False,
            },
        },
    }


def test_lines_for_people(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(image, Craft(header={"incompatible_features": 3}))
    assert main(["info", str(image)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [f"image: {image}", "file format: qcow2", "virtual size: 32 KiB (32768 bytes)"]
    assert lines[4:7] == ["cluster_size: 512", "cleanly shut down: no", "Format specific information:"]
    assert lines[-2:] == ["    corrupt: true", "    extended l2: false"]


def with_backing(name: bytes, *, kind: bytes = b"raw") -> bytes:
    """An image whose backing file's name lies after the header extensions."""
    extensions = extension(layout.EXTENSION_BACKING_FORMAT, kind) + extension(0, b"")
    craft = Craft(cluster_bits=12, size=1 << 20, extensions=extensions)
    at = layout.HEADER.size + len(extensions)
    craft.header = {"backing_file_offset": at, "backing_file_size": len(name)}
    data = bytearray(craft.build())
    data[at : at + len(name)] = name
    return bytes(data)


@pytest.mark.parametrize("name", [b"/etc/shadow", b"../../x", b"nbd://host/x", b"json:{}", b"\xff\xfe\x1b[31m"])
def test_references_are_shown_and_not_opened(
    image: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: bytes
) -> None:
    image.write_bytes(with_backing(name))
    opened: list[object] = []

    def spy(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and watching:
            opened.append(arguments[0])

    watching = True
    sys.addaudithook(spy)
    found = facts(capsys, image)
    watching = False
    assert found["backing-filename"].encode("utf-8", "surrogateescape") == name
    assert found["backing-filename-format"] == "raw"
    assert {path for path in opened if isinstance(path, (str, bytes)) and not str(path).endswith((".py", ".pyc"))} <= {
        str(image),
        "/dev/null",
    }
    assert main(["info", str(image)]) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_a_chain_is_followed_only_with_permission(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = tmp_path / "image"
    image.write_bytes(with_backing(b"base"))
    (tmp_path / "base").write_bytes(b"x" * 1024)
    assert "it was not opened" in refusal(capsys, "--backing-chain", image)
    found = facts(capsys, "--backing-chain", "--allow-references", tmp_path, image)
    assert [each["format"] for each in found] == ["qcow2", "raw"]
    (tmp_path / "empty").mkdir()
    assert "not below the directory" in refusal(
        capsys, "--backing-chain", "--allow-references", tmp_path / "empty", image
    )


def test_a_chain_that_bites_its_tail(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image.write_bytes(with_backing(image.name.encode(), kind=b"qcow2"))
    assert "again" in refusal(capsys, "--backing-chain", "--allow-references", image.parent, image)


@pytest.mark.parametrize(
    ("path", "backing", "full"),
    [
        ("a/b", "c", "a/c"),
        ("b", "c", "c"),
        ("./b", "../c", "./../c"),
        ("/x/b", "/c", "/c"),
        ("/x/b", "nbd://h/c", "nbd://h/c"),
        ("/x/b", "json:{}", "json:{}"),
        ("/x/b", "y/c:d", "/x/y/c:d"),
    ],
)
def test_where_a_backing_file_is(path: str, backing: str, full: str) -> None:
    assert full_backing_filename(path, backing) == full


def bitmap_entry(name: bytes, *, flags: int = 2, bits: int = 16, name_size: int | None = None, extra: int = 0) -> bytes:
    size = len(name) if name_size is None else name_size
    entry = BITMAP_ENTRY.pack(type=1, flags=flags, granularity_bits=bits, name_size=size, extra_data_size=extra) + name
    return entry + bytes(-len(entry) % 8)


def with_bitmaps(directory: bytes, *, count: int = 1, size: int | None = None, offset: int | None = None) -> bytes:
    craft = Craft(header={"autoclear_features": 1})
    end = len(craft.build())
    size = len(directory) if size is None else size
    pointer = BITMAPS.pack(
        nb_bitmaps=count, bitmap_directory_size=size, bitmap_directory_offset=end if offset is None else offset
    )
    craft.extensions = extension(layout.EXTENSION_BITMAPS, pointer)
    return craft.build() + directory


def test_bitmaps(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image.write_bytes(with_bitmaps(bitmap_entry(b"one") + bitmap_entry(b"b\x1b", flags=3, bits=9), count=2))
    assert facts(capsys, image)["format-specific"]["data"]["bitmaps"] == [
        {"flags": ["auto"], "name": "one", "granularity": 65536},
        {"flags": ["in-use", "auto"], "name": "b\x1b", "granularity": 512},
    ]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (with_bitmaps(bitmap_entry(b"one"), count=2), "ends inside entry 1 of 2"),
        (with_bitmaps(bitmap_entry(b"one"), count=65536), "65536 entries"),
        (with_bitmaps(bitmap_entry(b"one"), size=1 << 40), "1099511627776 bytes"),
        (with_bitmaps(bitmap_entry(b"one"), offset=(1 << 64) - 1), "beyond the end of the file"),
        (with_bitmaps(bitmap_entry(b"one", name_size=1024)), "a name of 1024 bytes"),
        (with_bitmaps(bitmap_entry(b"one", bits=64)), "the granularity 2^64"),
        (with_bitmaps(bitmap_entry(b"one", extra=0xFFFFFFFF)), "4294967295 bytes of extra data"),
        (
            Craft(header={"autoclear_features": 1}, extensions=extension(layout.EXTENSION_BITMAPS, b"x")).build(),
            "1 bytes",
        ),
    ],
)
def test_bitmaps_that_lie(image: Path, capsys: pytest.CaptureFixture[str], data: bytes, words: str) -> None:
    image.write_bytes(data)
    message = refusal(capsys, image)
    assert f"{image}: bitmap directory: " in message
    assert words in message


def luks_header(magic: bytes = luks.MAGIC) -> bytes:
    fields: dict[str, int | bytes] = {
        "magic": magic,
        "version": 1,
        "cipher-name": b"aes",
        "cipher-mode": b"xts-plain64",
        "hash-spec": b"sha256",
    }
    fields |= {"payload-offset": 8, "key-bytes": 64, "mk-digest-iter": 1000}
    head = luks.LUKS1.pack(**fields, uuid=b"12345678-1234-5678-1234-567812345678")
    slot = {"active": luks.ACTIVE, "iterations": 2000, "key-material-offset": 8, "stripes": 4000}
    unused = {"active": 0xDEAD, "key-material-offset": 9, "stripes": 4000}
    return head + luks.KEY_SLOT.pack(**slot) + luks.KEY_SLOT.pack(**unused) * 7


def with_luks(pointer: bytes | None = None, header: bytes | None = None) -> bytes:
    header = luks_header() if header is None else header
    craft = Craft(header={"crypt_method": 2})
    craft.extensions = extension(
        layout.EXTENSION_CRYPTO, pointer or CRYPTO_HEADER.pack(offset=len(craft.build()), length=4096)
    )
    return craft.build() + header


def test_luks(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image.write_bytes(with_luks())
    found = facts(capsys, image)
    assert found["encrypted"] is True
    encrypt = found["format-specific"]["data"]["encrypt"]
    assert (encrypt["cipher-alg"], encrypt["cipher-mode"], encrypt["ivgen-alg"]) == ("aes-256", "xts", "plain64")
    assert encrypt["slots"][:2] == [
        {"active": True, "iters": 2000, "stripes": 4000, "key-offset": 4096},
        {"active": False, "key-offset": 4608},
    ]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (with_luks(pointer=CRYPTO_HEADER.pack(offset=(1 << 64) - 1, length=4096)), "expected 592 or more"),
        (with_luks(pointer=CRYPTO_HEADER.pack(offset=512, length=100)), "100 bytes at 0x200"),
        (with_luks(pointer=b"short"), "has 5 bytes, expected 16"),
        (with_luks(header=luks_header(b"LUKS\0\0")), "4c 55 4b 53 00 00 at"),
        (with_luks(header=b""), "expected 592 or more"),
    ],
)
def test_luks_that_lies(image: Path, capsys: pytest.CaptureFixture[str], data: bytes, words: str) -> None:
    image.write_bytes(data)
    message = refusal(capsys, image)
    assert f"{image}: LUKS header: " in message
    assert words in message


def test_aes(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(image, Craft(version=2, header={"crypt_method": 1}))
    assert facts(capsys, image)["format-specific"]["data"]["encrypt"] == {"format": "aes"}


def test_snapshots_of_a_raw_image(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image.write_bytes(b"raw")
    assert main(["snapshot", "-l", "--output", "json", str(image)]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert main(["snapshot", str(image)]) == 0  # lists, as qemu-img does by now
    assert capsys.readouterr().out == ""
    for option in ("-c", "-a", "-d"):
        assert main(["snapshot", option, "x", str(image)]) == 1
        assert "is a raw image; expected a qcow2 image" in capsys.readouterr().err
    assert image.read_bytes() == b"raw"


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["a", "b"],
        ["-f"],
        ["-f", "vmdk", "a"],
        ["--output", "xml", "a"],
        ["--output=xml", "a"],
        ["--", "a"],
        ["-h"],
        ["--backing-chain", "a"],
        ["-fraw", "a"],
        ["--output"],
    ],
)
def test_what_is_left_to_argparse(words: list[str]) -> None:
    assert run_quickly(words, declare_common, run) is None


@pytest.mark.parametrize(
    "value",
    [
        {},
        [],
        {"a": [], "b": {}, "c": [1, [2, {"d": None}]], "e": True, "f": False, "g": -1},
        {'quo"te': "back\\slash", "control": "\x1b\n\0", "é": "\udcff €"},
        "text",
        1 << 70,
    ],
)
def test_json_is_what_json_writes(value: object) -> None:
    assert "".join(json_pieces(value)) == json.dumps(value, indent=4)


def test_json_of_what_has_no_form() -> None:
    with pytest.raises(TypeError):
        "".join(json_pieces(1.5))


def test_nested_lines() -> None:
    assert list(nested_lines({"a-b": 1, "c": [{"d": True}, {}], "e": {"f": "g"}})) == [
        "a b: 1",
        "c:",
        "    [0]:",
        "        d: true",
        "    [1]:",
        "e:",
        "    f: g",
    ]


def test_json_is_made_as_it_is_taken() -> None:
    taken: list[int] = []

    def endless() -> Iterator[dict[str, object]]:
        for number in count():
            taken.append(number)
            yield {"number": number}

    pieces = json_pieces({"all": endless()})
    assert json.loads("".join(islice(pieces, 5)) + "]}") == {"all": [{"number": 0}]}
    assert taken == [0]


def with_snapshots(number: int, entry: bytes) -> bytes:
    """An image with as many snapshots as that, which are all the same."""
    header = {"nb_snapshots": number, "snapshots_offset": 9 << 16}
    image = Craft(cluster_bits=16, size=1 << 20, header=header).build()
    return image.ljust(9 << 16, b"\0") + (entry + bytes(-len(entry) % 8)) * number


MEASURED = """
import os, sys
sys.path.insert(0, {root!r})
from pydiskimg.cli import main
status = main({words!r})
sys.stdout.flush()
# ru_maxrss would count what the parent had when it started this.
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM:")), file=sys.stderr)
os._exit(status)
"""


def size_and_memory(tmp_path: Path, *words: str | Path) -> tuple[int, int]:
    """What a command prints in bytes, and how much memory it takes in MiB."""
    command = [sys.executable, "-I", "-S", "-c", MEASURED.format(root=str(ROOT), words=[*map(str, words)])]
    with (tmp_path / "out").open("wb") as out:
        done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=True, check=True)
    return (tmp_path / "out").stat().st_size, int(done.stderr) >> 10


@pytest.mark.parametrize("form", [["info"], ["info", "--output=json"], ["snapshot", "-l"]])
@pytest.mark.parametrize(
    ("number", "size", "byte", "longest"),
    [
        (507, 65535, b"\0", 200_000),
        (507, 65535, b"\x1b", 2_000_000),  # 382 bytes of each, as six characters in JSON
        (507, 65535, b"\xff", 2_000_000),
        (60000, 255, b"\x1b", 200_000_000),
    ],
)
def test_many_snapshots_with_long_names(
    image: Path, tmp_path: Path, form: list[str], number: int, size: int, byte: bytes, longest: int
) -> None:
    """A table of 64 MiB: what is shown is bounded, and what is kept meanwhile is not much more than the table."""
    fields = {"id_str_size": size, "name_size": size, "extra_data_size": 16}
    entry = SNAPSHOT.pack(l1_table_offset=0x30000, l1_size=1, **fields) + bytes(16) + byte * size * 2
    image.write_bytes(with_snapshots(number, entry))
    printed, memory = size_and_memory(tmp_path, *form, image)
    assert printed < longest
    assert memory < 200


@pytest.mark.parametrize("output", ["human", "json"])
def test_many_bitmaps_with_long_names(image: Path, tmp_path: Path, output: str) -> None:
    entry = bitmap_entry(b"\x1b" * 1023)
    image.write_bytes(with_bitmaps(entry * 60000, count=60000))
    assert size_and_memory(tmp_path, "info", "--output", output, image)[1] < 256
