# SPDX-License-Identifier: MIT
"""The fields of `ls -lR`, which are those of virt-ls; find(1) and hashlib tell what they have to be."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import socket
import time
from pathlib import Path

import pytest

from pydiskimg.cli import main
from pydiskimg.cli.ls_fields import CHECKSUMS
from pydiskimg.units import MIB
from tests.fixtures.ext_files import made_ext, some_files
from tests.fixtures.programs import Tool, run

pytestmark = pytest.mark.oracle

SPARSE = 3 * MIB + 1


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = some_files(tmp_path, 8) / "source"
    root.mkdir()
    for directory in tmp_path.glob("directory*"):
        directory.rename(root / directory.name)
    with (root / "sparse").open("wb") as file:
        file.truncate(SPARSE)
    (root / 'odd, "name"').write_bytes(b"odd")
    (root / "two\nlines").write_bytes(b"")
    os.mkfifo(root / "fifo", 0o600)
    with socket.socket(socket.AF_UNIX) as named:
        named.bind(str(root / "socket"))
    (root / "link").symlink_to("directory 1/with a space")
    (root / "sparse").chmod(0o4711)
    os.utime(root / "sparse", ns=(5 * 10**17, 10**18))
    return root


@pytest.fixture
def image(source: Path, tool: Tool, tmp_path: Path) -> str:
    return str(made_ext(tool, tmp_path / "image", "-t ext4 -b 1024", 16 * MIB, source))


def of_find(source: Path) -> set[tuple[str, ...]]:
    told = run("find", source, "-printf", r"%y\t%m\t%s\t%U\t%G\t%T@\t/%P\t%l\0")
    found: set[tuple[str, ...]] = set()
    for line in told.split("\0")[:-1]:
        kind, mode, size, uid, gid, mtime, path, target = line.split("\t")
        if kind != "d":  # whose size is that of another file system
            facts = (f"{int(mode, 8):04o}", size, uid, gid, mtime.split(".")[0], path, target)
            found.add((kind.replace("f", "-"), *facts))
    return found


def test_csv_is_what_find_tells(source: Path, image: str, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main(["ls", "-lR", "--csv", "--uids", "--time-t", "--extra-stats", image, "/"]) == 0
    rows = list(csv.reader(io.StringIO(capfdbinary.readouterr().out.decode())))
    assert rows[0][-1] == "/"
    found = set()
    for kind, mode, size, uid, gid, _, mtime, _, device, inode, links, special, blocks, path, *target in rows:
        assert (device, int(inode) > 1, int(links) > 0, special, int(blocks) >= 0) == ("0:0", True, True, "0:0", True)
        if kind != "d":
            named = path.replace("\\x0a", "\n")
            found.add((kind, mode, size, uid, gid, mtime, named, "".join(target)))
    assert found == of_find(source)


@pytest.mark.parametrize("kind", CHECKSUMS)
def test_checksums(source: Path, image: str, kind: str, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main(["ls", "-lR", f"--checksum={kind}", image, "/sparse", "/link", "/directory 2"]) == 0
    sparse, link, _, *others = capfdbinary.readouterr().out.decode().splitlines()
    assert sparse == f"- 4711 {SPARSE:10} {hashlib.new(kind, bytes(SPARSE)).hexdigest()} /sparse"
    assert link == f"l 0777 {len('directory 1/with a space'):10} /link -> directory 1/with a space"
    for line in others:
        *_, checksum, name = line.split(" ", line.count(" ") - 2)
        path = source / "directory 2" / line.partition("/directory 2/")[2]
        assert f" {hashlib.new(kind, path.read_bytes()).hexdigest()} /directory 2/" in line, (checksum, name)
    assert others


def test_times(image: str, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    shown = {}
    for option in ("--times", "--time-t", "--time-relative", "--time-days"):
        assert main(["ls", "-lR", option, image, "/sparse"]) == 0
        shown[option] = capfdbinary.readouterr().out.decode().split()[3:-1]
    age = time.time() - 10**9
    assert shown["--times"][:4] == ["1985-11-05", "00:53:20", "2001-09-09", "01:46:40"]
    assert shown["--time-t"][:2] == ["500000000", "1000000000"]
    assert abs(int(shown["--time-relative"][1]) - age) < 60
    assert abs(int(shown["--time-days"][1]) - age // 86400) <= 1
    assert shown["--time-days"][2] == "0"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--csv"], "--csv belongs to -lR"),
        (["-l", "--uids"], "--uids belongs to -lR"),
        (["-R", "--checksum"], "--checksum belongs to -lR"),
        (["-lR", "--time-t", "--output", "json"], "--time-t belongs to -lR, and JSON has its own fields"),
        (["-lRh", "--csv"], "--csv is for programs, which do not read the sizes of -h"),
        (["-lR", "--checksum=crc"], "--checksum: not one of md5, sha1, sha224, sha256, sha384, sha512: 'crc'"),
    ],
)
def test_what_belongs_to_a_long_recursive_listing(
    image: str, words: list[str], said: str, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["ls", *words, image])
    assert ended.value.code == 2
    assert said in capfdbinary.readouterr().err.decode()


def test_the_image_alone_is_required(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    with pytest.raises(SystemExit):
        main(["ls"])
    said = capfdbinary.readouterr().err.decode()
    assert said.startswith("pydiskimg ls: error: missing: IMAGE\n")


def test_a_checksum_as_json(image: str, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main(["ls", "--output", "json", "--checksum", image, "/sparse"]) == 0
    assert f'"md5": "{hashlib.md5(bytes(SPARSE)).hexdigest()}"' in capfdbinary.readouterr().out.decode()
