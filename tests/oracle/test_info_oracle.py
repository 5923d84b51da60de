# SPDX-License-Identifier: MIT
"""pydiskimg info and snapshot -l, judged by qemu-img: the same names and the same values.

Differences, all of them meant: the external data file is not opened, so its blocks are not counted into actual-size;
a raw file's virtual-size is exact, where QEMU rounds up to 512.
"""

from __future__ import annotations

import io
import json
import re
import subprocess
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from pydiskimg.cli import main
from pydiskimg.fs import luks
from pydiskimg.images.qcow2.snapshots import SNAPSHOT
from pydiskimg.text import LINE, printable
from tests.fixtures.both_programs import by_pydiskimg, by_qemu_img
from tests.fixtures.qcow2_images import SHAPES, make_image, qemu_info, run
from tests.fixtures.random_chains import make_chain

pytestmark = pytest.mark.oracle


def ours(*arguments: str | Path) -> Any:
    out = io.StringIO()
    with redirect_stdout(out):
        status = main([*map(str, arguments)])
    assert status == 0
    return json.loads(out.getvalue())


def assert_equal_info(path: Path, *options: str) -> dict[str, Any]:
    theirs: dict[str, Any] = qemu_info(path, *options)
    theirs.get("format-specific", {}).get("data", {}).get("encrypt", {}).pop("detached-header", None)  # since QEMU 9
    found: dict[str, Any] = ours("info", *options, "--output=json", path)
    for facts in found, theirs:
        if "data-file" in facts.get("format-specific", {}).get("data", {}):
            del facts["actual-size"]
    assert found == theirs
    assert json.dumps(found) == json.dumps(theirs), "the order of the names"
    assert_equal_words("info", *options, path, without="disk size" if "actual-size" not in found else None)
    return found


def assert_equal_words(*words: object, without: str | None = None) -> None:
    """What both print is equal, apart from the line of that name; control characters are escaped by ours."""
    mine, theirs = by_pydiskimg(*words), by_qemu_img(*words)
    found, expected = (
        [line for line in said.out.split("\n") if without is None or not line.startswith(f"{without}: ")]
        for said in (mine, theirs)
    )
    assert found == [printable(line, limit=LINE) for line in expected]
    assert (mine.status, mine.err) == (theirs.status, "")


@pytest.mark.parametrize(
    "options",
    [
        "compat=0.10,cluster_size=512",
        "compat=1.1,lazy_refcounts=on,refcount_bits=1",
        "compression_type=zstd,refcount_bits=64",
        "extended_l2=on,cluster_size=2M",
        "data_file=FILE.data,data_file_raw=on",
        "data_file=FILE.data",
        "preallocation=metadata",
        "preallocation=falloc",
    ],
)
def test_features(tmp_path: Path, options: str) -> None:
    path = tmp_path / "a b.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", options.replace("FILE", str(path)), str(path), "3M")
    run("qemu-io", "-f", "qcow2", "-c", "write 1M 100k", str(path))
    assert_equal_info(path)
    assert_equal_info(path, "-f", "qcow2")
    assert_equal_info(path, "-f", "raw")


@pytest.mark.parametrize("shape", SHAPES[::4])
def test_written_images(tmp_path: Path, shape: tuple[str, int, str]) -> None:
    path, _ = make_image(tmp_path, shape, seed=1)
    assert_equal_info(path)


@pytest.mark.parametrize("seed", range(12))
def test_chains(tmp_path: Path, seed: int) -> None:
    path, kind = make_chain(tmp_path, seed)
    assert_equal_info(path, "-f", kind)
    chain = qemu_info(path, "--backing-chain", "-f", kind)
    found = ours("info", "--output", "json", "--backing-chain", "-f", kind, "--allow-references", tmp_path, path)
    mine = by_pydiskimg("info", "--backing-chain", "-f", kind, "--allow-references", tmp_path, path).out
    theirs = by_qemu_img("info", "--backing-chain", "-f", kind, path).out
    assert re.sub("disk size: .*", "", mine) == re.sub("disk size: .*", "", theirs)
    for facts in (*chain, *found):
        del facts["actual-size"]
    assert found == chain


@pytest.mark.parametrize("backing", ["/dev/null", "../x y/é", "nbd://host:10809/disk", 'json:{"driver":"raw"}', "a:b"])
def test_backing_names(tmp_path: Path, backing: str) -> None:
    path = tmp_path / "image"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b", backing, "-F", "raw", str(path), "1M")
    found = ours("info", "--output=json", path)
    theirs = qemu_info(path)
    assert found == theirs


def test_relative_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)
    for name in ("image", "./sub/image", "sub/../image"):
        run("qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b", "base", "-F", "qcow2", name, "1M")
        assert_equal_info(Path(name))


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A LUKS image; QEMU measures how fast it is in order to make one, and gives up on a busy machine."""
    path = tmp_path_factory.mktemp("luks") / "image"
    options = "encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=10"
    command = ("qemu-img", "create", "-q", "-f", "qcow2", "--object", "secret,id=key,data=secret", "-o", options)
    for _ in range(5):
        if subprocess.run([*command, str(path), "1M"], capture_output=True, check=False).returncode == 0:
            break
    return path.read_bytes()


@pytest.mark.parametrize(
    ("name", "mode", "hash_name", "key_bytes"),
    [
        (b"aes", b"xts-plain64", b"sha256", 64),
        (b"aes", b"cbc-essiv:sha256", b"sha1", 32),
        (b"serpent", b"cbc-plain", b"sha512", 16),
        (b"twofish", b"xts-plain64", b"sha256", 32),
    ],
)
def test_luks(tmp_path: Path, encrypted: bytes, name: bytes, mode: bytes, hash_name: bytes, key_bytes: int) -> None:
    path = tmp_path / "image"
    at = encrypted.index(luks.MAGIC)
    header = bytearray(encrypted)
    luks.LUKS1.put(header, {"cipher-name": name, "cipher-mode": mode, "hash-spec": hash_name}, at)
    luks.LUKS1.put(header, {"key-bytes": key_bytes}, at)
    path.write_bytes(header)
    assert assert_equal_info(path)["encrypted"] is True


def test_bitmaps(tmp_path: Path) -> None:
    path = tmp_path / "image"
    run("qemu-img", "create", "-q", "-f", "qcow2", str(path), "8M")
    run("qemu-img", "bitmap", "--add", str(path), "first")
    run("qemu-img", "bitmap", "--add", "--disable", "-g", "1M", str(path), "the second: é")
    found = assert_equal_info(path)
    assert [bitmap["name"] for bitmap in found["format-specific"]["data"]["bitmaps"]] == ["first", "the second: é"]
    run("qemu-img", "bitmap", "--remove", str(path), "first")
    run("qemu-img", "bitmap", "--remove", str(path), "the second: é")
    assert_equal_info(path)


def test_snapshots(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "image"
    run("qemu-img", "create", "-q", "-f", "qcow2", str(path), "8M")
    assert main(["snapshot", "-l", str(path)]) == 0
    assert capsys.readouterr().out == run("qemu-img", "snapshot", "-l", str(path)) == ""
    for name in ("one", "two words", "é"):
        run("qemu-img", "snapshot", "-c", name, str(path))
    found = assert_equal_info(path)
    assert ours("snapshot", "-l", "--output", "json", path) == found["snapshots"]
    assert main(["snapshot", "-l", str(path)]) == 0
    assert_equal_words("snapshot", "-l", path)


@pytest.mark.parametrize("bit", [0, 1])
def test_dirty_and_corrupt(tmp_path: Path, bit: int) -> None:
    path = tmp_path / "image"
    run("qemu-img", "create", "-q", "-f", "qcow2", str(path), "8M")
    with path.open("r+b") as file:
        file.seek(79)
        file.write(bytes([1 << bit]))
    found = assert_equal_info(path)
    assert found["dirty-flag"] is (bit == 0)
    assert found["format-specific"]["data"]["corrupt"] is (bit == 1)


LONG_NAMES = [
    (b"i" * 300, b"n" * 1000),
    (b"i" * 127, b"n" * 255),
    (b"i" * 128, b"n" * 256),
    (b"a\0b", b"\0name"),
    (b"\x01\x1b[2J", "\N{SNOWMAN}".encode() * 85),
    (b"", b""),
    (b"x" * 65535, b"y" * 65535),
]


def test_long_names_of_snapshots(tmp_path: Path) -> None:
    path = tmp_path / "image"
    run("qemu-img", "create", "-q", "-f", "qcow2", str(path), "64M")
    table = b""
    for snapshot_id, name in LONG_NAMES:
        sizes = {"id_str_size": len(snapshot_id), "name_size": len(name), "extra_data_size": 16}
        table += SNAPSHOT.pack(l1_table_offset=0x30000, l1_size=1, **sizes)
        table += bytes(8) + (64 << 20).to_bytes(8, "big") + snapshot_id + name
        table += bytes(-len(table) % 8)
    with path.open("r+b") as file:
        file.seek(60)
        file.write(len(LONG_NAMES).to_bytes(4, "big") + (1 << 20).to_bytes(8, "big"))
        file.seek(1 << 20)
        file.write(table)
    assert_equal_info(path)


@pytest.mark.parametrize(
    "wanted",
    [
        "snapshot.name=a,,b",
        "snapshot.name=a,b",
        "a,b",
        "snapshot.id=1,snapshot.name=a,,b",
        "snapshot.id=2,snapshot.name=a,,b",
        "snapshot.name=x=y",
        "snapshot.name=",
        "snapshot.name=A",
    ],
)
def test_a_snapshot_is_chosen_as_qemu_img_chooses_it(tmp_path: Path, wanted: str) -> None:
    path = tmp_path / "image"
    run("qemu-img", "create", "-q", "-f", "qcow2", str(path), "1M")
    for name in ("a,b", "x=y"):
        run("qemu-img", "snapshot", "-c", name, str(path))
    command = ["convert", "-l", wanted, str(path)]
    theirs = subprocess.run(["qemu-img", *command, str(tmp_path / "theirs")], capture_output=True, check=False)
    assert (main([*command, str(tmp_path / "ours")]) == 0) == (theirs.returncode == 0)
