# SPDX-License-Identifier: MIT
"""Invalid command lines: what each subcommand prints, and its exit status."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from pydiskimg.cli import main
from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.snapshots import EXTRA_DATA, SNAPSHOT
from tests.fixtures.partition_tables import gpt
from tests.fixtures.qcow2_images import Craft

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pydiskimg.cli.signals.end_as_interrupted", lambda: None)

    def call(*words: str) -> tuple[int, str, str]:
        try:
            status = main(words)
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else 1
        out, err = capsys.readouterr()
        return status, out, err

    return call


@pytest.fixture
def qcow2(tmp_path: Path) -> Path:
    path = tmp_path / "t"
    path.write_bytes(Craft(cluster_bits=16, size=1 << 20).build().ljust(16 << 20, b"\0"))
    return path


@pytest.mark.parametrize("command", ["mkfs", "mkswap"])
def test_an_image_is_not_overwritten_unasked(run: Run, qcow2: Path, command: str) -> None:
    before = qcow2.read_bytes()
    assert run(command, "t") == (1, "", "pydiskimg: t: holds a qcow2 image; use --force to overwrite it\n")
    assert qcow2.read_bytes() == before
    assert run(command, "--force", "t")[0] == 0


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"KDMV", "holds a VMDK image"),
        (b"vhdxfile", "holds a VHDX image"),
        (bytes(64) + b"\x7f\x10\xda\xbe", "holds a VDI image"),
        (b"# Disk DescriptorFile", "holds the text descriptor of a VMDK image"),
        (b"\xfd7zXZ\0", "holds data compressed with xz"),
    ],
)
def test_other_images_neither(run: Run, tmp_path: Path, head: bytes, words: str) -> None:
    (tmp_path / "t").write_bytes(head.ljust(1 << 20, b"\0"))
    status, _, err = run("mkswap", "t")
    assert status == 1
    assert f"{words}; use --force to overwrite it" in err
    assert (tmp_path / "t").read_bytes().startswith(head)


@pytest.mark.parametrize(
    ("places", "words"),
    [
        ({3: b"NTFS    "}, "looks like NTFS"),
        ({4096: bytes.fromhex("fc4e2ba9")}, "looks like a member of a RAID (md 1.2)"),
        ({32769: b"CD001"}, "looks like ISO 9660"),
        ({450: b"\xee", 454: b"\1\0\0\0\xff\xff", 510: b"\x55\xaa"}, "both copies of the GPT are damaged"),
    ],
)
@pytest.mark.parametrize("command", ["mkfs", "mkswap"])
def test_what_is_known_by_its_signature_alone_stays(
    run: Run, tmp_path: Path, command: str, places: dict[int, bytes], words: str
) -> None:
    data = bytearray(16 << 20)
    for offset, signature in places.items():
        data[offset : offset + len(signature)] = signature
    (tmp_path / "t").write_bytes(data)
    status, _, err = run(command, "t")
    assert (status, err.endswith("; use --force to overwrite it\n"), words in err) == (1, True, True), err
    assert (tmp_path / "t").read_bytes() == data
    assert run(command, "--force", "t")[0] == 0


def test_two_file_systems_at_once_stay(run: Run, tmp_path: Path) -> None:
    assert run("mkfs", "-t", "ext2", "--create", "16M", "t")[0] == 0
    with (tmp_path / "t").open("r+b") as file:
        for offset, part in ((1024, b"\1\0\0\0\x09"), (65526, b"SWAPSPACE2")):
            file.seek(offset)
            file.write(part)
    status, _, err = run("mkswap", "t")
    assert (status, "has the signatures of swap and ext2" in err, "; use --force" in err) == (1, True, True), err


def test_a_partition_table_in_larger_sectors_stays(run: Run, tmp_path: Path) -> None:
    disk = MemoryDisk(16 << 20, sector_size=4096)
    gpt(disk, [(300, 3000)], sectors=4096)
    (tmp_path / "t").write_bytes(disk.data)
    status, _, err = run("mkfs", "t")
    assert (status, "; use --force" in err) == (1, True), err


@pytest.mark.parametrize("command", ["mkfs", "mkswap"])
def test_create_replaces_no_file_unasked(run: Run, tmp_path: Path, command: str) -> None:
    (tmp_path / "t").write_bytes(b"precious")
    words = "pydiskimg: t: already exists; use --force to replace it with a new file\n"
    assert run(command, "--create", "16M", "t") == (1, "", words)
    assert (tmp_path / "t").read_bytes() == b"precious"
    assert run(command, "--create", "16M", "--force", "t")[0] == 0
    assert (tmp_path / "t").stat().st_size == 16 << 20


@pytest.mark.parametrize("command", ["mkfs", "mkswap"])
def test_a_new_file_has_the_name_that_was_given(run: Run, tmp_path: Path, command: str) -> None:
    (tmp_path / "link").symlink_to("t")
    for name in ("t", "./t", "link", str(tmp_path / "t")):
        status, out, _ = run(command, "--create", "16M", "--force", name)
        assert (status, out.partition(":")[0]) == (0, name)
    status, _, err = run(command, "--create", "4k", "new")
    assert (status, err.startswith("pydiskimg: new: ")) == (1, True), err


def test_wrong_usage_of_check_is_not_corruption(run: Run, qcow2: Path) -> None:
    assert run("check", "--nonsense", "t")[0] == 1
    assert run("check")[0] == 1
    assert run("check", "-r", "some", "t")[0] == 1
    assert run("compare", "--nonsense", "t")[0] == 2


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["info", ""], 1),
        (["map", ""], 1),
        (["check", ""], 1),
        (["snapshot", "-l", ""], 1),
        (["compare", "", "t"], 2),
        (["compare", "t", ""], 2),
        (["convert", "", "x"], 1),
        (["create", "-u", "-f", "qcow2", "-b", "", "-F", "raw", "x", "1M"], 1),
        (["commit", "-b", "", "t"], 1),
        (["bitmap", "--merge", "a", "-b", "", "t", "b"], 1),
        (["mkswap", ""], 2),
        (["mkfs", "--create", "16M", ""], 2),
        (["df", "-a", ""], 2),
        (["df", "t", ""], 2),
        (["hash", "t", ""], 2),
        (["hash", "-l", "", "t"], 2),
        (["ls", "-a", "", "/"], 2),
        (["filesystems", "--add="], 2),
        (["show", ""], 2),
        (["show", "-o", "", "t"], 2),
        (["bmap", "-o", "", "t"], 2),
        (["copy-out", "t", "/", ""], 2),
        (["write", "--bmap", "", "t", "x"], 2),
        (["partition", "list", ""], 2),
        (["partition", "add", "--type", "", "t"], 2),
        (["partition", "set", "--type", "", "t", "1"], 2),
    ],
)
def test_empty_names(run: Run, qcow2: Path, tmp_path: Path, words: list[str], status: int) -> None:
    found, out, err = run(*words)
    assert (found, out) == (status, "")
    assert err.startswith("pydiskimg: the name of the ")
    assert err.endswith(" is empty\n")
    assert list(tmp_path.iterdir()) == [qcow2]


def test_an_empty_destination(run: Run, qcow2: Path) -> None:
    assert run("convert", "t", "") == (1, "", "pydiskimg: the name of the destination is empty\n")


def test_where_references_may_be(run: Run, qcow2: Path) -> None:
    status, _, err = run("convert", "--allow-references", "", "t", "x")
    assert (status, "the name of the directory is empty" in err) == (1, True)
    status, _, err = run("convert", "--allow-references", ".", "--allow-references", ".", "t", "x")
    assert (status, "--allow-references: is given once only" in err) == (1, True)
    assert run("convert", "--allow-references", ".", "t", "x")[0] == 0


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["info"], 1),
        (["info", "--output=json"], 1),
        (["map"], 1),
        (["check"], 1),
        (["snapshot", "-l"], 1),
        (["compare", "t"], 2),
    ],
)
def test_pipes_are_for_convert(run: Run, qcow2: Path, words: list[str], status: int) -> None:
    found, out, err = run(*words, "-")
    assert (found, out) == (status, "")
    assert "only convert reads from a pipe; if standard input is a file, name it /dev/stdin" in err


def test_a_file_of_that_name(run: Run, qcow2: Path) -> None:
    qcow2.rename(qcow2.with_name("-"))
    status, out, _ = run("info", "--output=json", "-")
    assert (status, json.loads(out)["format"]) == (0, "qcow2")


def test_quiet_convert_shows_no_progress(run: Run, qcow2: Path) -> None:
    assert run("convert", "-q", "-p", "-U", "-W", "-t", "none", "-T", "none", "t", "x") == (0, "", "")
    status, _, err = run("convert", "-t", "nonsense", "t", "x")
    assert (status, "'nonsense' is not one of " in err) == (1, True)


def test_writing_through_a_descriptor(run: Run, qcow2: Path) -> None:
    with qcow2.with_name("disk").open("wb") as file:
        file.truncate(1 << 20)
        status, _, err = run("convert", "-n", "t", f"/dev/fd/{file.fileno()}")
    assert (status, "name the file by its path" in err) == (1, True)


def test_what_a_failure_leaves_in_place(run: Run, tmp_path: Path) -> None:
    # Its one cluster is compressed, and is no such thing.
    broken = Craft(cluster_bits=16, size=1 << 20, data=b"\xff" * 65536, l2=[[]])
    broken.l2 = [[layout.L2_COMPRESSED | broken.data_offset]]
    (tmp_path / "broken").write_bytes(broken.build())
    (tmp_path / "small").write_bytes(bytes(1000))
    (tmp_path / "disk").write_bytes(bytes(1 << 20))
    status, _, err = run("convert", "-n", "broken", "disk")
    assert (status, err.endswith("; disk is not complete\n")) == (1, True)
    status, _, err = run("convert", "-n", "broken", "small")
    assert (status, err.endswith("nothing was written\n")) == (1, True)
    status, _, err = run("convert", "broken", "new")
    assert (status, "not complete" in err) == (1, False)


def test_that_a_disk_is_not_complete_is_said_once(run: Run, tmp_path: Path) -> None:
    read, write = os.pipe()
    os.write(write, b"x" * 60000)
    os.close(write)
    (tmp_path / "disk").write_bytes(bytes(4096))
    status, _, err = run("convert", "-n", f"/dev/fd/{read}", "disk")
    os.close(read)
    assert (status, err.count("complete")) == (1, 1), err


def test_the_number_of_workers_has_few_digits(run: Run) -> None:
    status, _, err = run("convert", "-m", "9" * 5000, "t", "x")
    assert (status, err.splitlines()[0].endswith("9' is not a number from 1 to 16")) == (1, True)


def test_too_little_memory_is_a_sentence(run: Run, qcow2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("pydiskimg.transfer.compare.compare", no_memory)
    status, out, err = run("compare", "t", "t")
    assert (status, out, err.count("\n")) == (4, "", 1)
    assert "there is not enough memory" in err


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("1", b"o"),
        ("first", b"o"),
        ("snapshot.id=1", b"o"),
        ("snapshot.name=first", b"o"),
        ("snapshot.name=first,snapshot.id=1", b"o"),
        ("snapshot.name=1", b""),
        ("snapshot.id=1,snapshot.name=second", b""),
        ("snapshot.date=1", b""),
        ("snapshot.id=", b""),
    ],
)
def test_a_snapshot_as_qemu_img_names_it(run: Run, tmp_path: Path, wanted: str, found: bytes) -> None:
    # clusters: 3 the snapshot's L1 table, 4 its L2 table, 5 its data, 6 the snapshot table
    entry = SNAPSHOT.pack(l1_table_offset=3 * 512, l1_size=1, id_str_size=1, name_size=5, extra_data_size=16)
    entry += EXTRA_DATA.pack(disk_size=512)[:16]
    clusters = [(4 * 512).to_bytes(8, "big"), (5 * 512).to_bytes(8, "big"), b"o" * 512, entry + b"1first"]
    data = b"".join(cluster.ljust(512, b"\0") for cluster in clusters)
    craft = Craft(size=512, l1=[0], data=data, header={"nb_snapshots": 1, "snapshots_offset": 6 * 512})
    (tmp_path / "t").write_bytes(craft.build())
    status, _, err = run("convert", "-l", wanted, "t", "x")
    if found:
        assert (status, (tmp_path / "x").read_bytes()) == (0, found * 512)
    else:
        assert (status, f"{wanted}" in err) == (1, True)
        assert not (tmp_path / "x").exists()


def test_hostile_names_are_json(run: Run, tmp_path: Path) -> None:
    name = b'\xff"\\\n\x1b\xed\xa0\x80\xf0\x9f\x92\xbe'
    craft = Craft(header={"backing_file_offset": 400, "backing_file_size": len(name)})
    data = bytearray(craft.build())
    data[400 : 400 + len(name)] = name
    (tmp_path / "t").write_bytes(data)
    for words in (["info", "--output=json", "t"], ["map", "--output=json", "-f", "raw", "t"]):
        status, out, _ = run(*words)
        assert status == 0
        assert out.isascii()
        json.loads(out)
    shown = json.loads(run("info", "--output=json", "t")[1])["backing-filename"]
    assert shown.encode("utf-8", "surrogateescape") == name


def test_a_pipe_says_which_backing_file(run: Run, tmp_path: Path) -> None:
    craft = Craft(header={"backing_file_offset": 400, "backing_file_size": 4})
    data = bytearray(craft.build())
    data[400:404] = b"\xc3\xa9.x"
    (tmp_path / "t").write_bytes(data)
    with (tmp_path / "t").open("rb") as file:
        reader, writer = os.pipe()
        os.write(writer, file.read())
        os.close(writer)
        status, _, err = run("convert", "-f", "qcow2", f"/dev/fd/{reader}", "x")
        os.close(reader)
    assert (status, "has the backing file 'é.x'" in err) == (1, True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-X", "t", "o"], "there is no option -X"),
        (["--nothing=7", "t", "o"], "there is no option --nothing"),
        (["-X", "4k", "t", "o"], "there is no option -X"),
        (["-S", "0", "t", "-"], "-S 0: not with a pipe; convert to or from a file"),
        (["-S", "3000", "t", "o"], "argument -S/--sparse-size: 3000 is not a multiple of 512 bytes up to 16 MiB"),
        (["-S", "17M", "t", "o"], "argument -S/--sparse-size: 17M is not a multiple of 512 bytes up to 16 MiB"),
        (["-S", "x", "t", "o"], "argument -S/--sparse-size: 'x' is not a size"),
        (["-r", "much", "t", "o"], "argument -r/--rate: 'much' is not a size"),
        (["-B", "b", "-F", "raw", "t", "o"], "-B is for a qcow2 image: add -O qcow2"),
        (["-O", "qcow2", "-F", "raw", "t", "o"], "-F is the format of the file of -B, which is missing"),
        (["-O", "qcow2", "-o", "backing_file=b", "t", "o"], "-B needs -F: the format of a backing file is not guessed"),
        (["-O", "qcow2", "-B", "b", "-F", "raw", "t", "t", "o"], "-B is for one source"),
        (["-l", "1", "t", "t", "o"], "-l chooses a snapshot of one image, but several are given"),
        (["-C", "--salvage", "t", "o"], "-C lets the kernel copy, which cannot be combined with -c, -S or --salvage"),
        (["t", "-", "t", "o"], "several sources: not with a pipe; convert to or from a file"),
        (["-O", "qcow2", "-o", "size=1M", "t", "o"], "size is not an option here: a copy has the size of what is"),
        (["--target-is-zero", "t", "o"], "--target-is-zero is for an existing DST: add -n"),
    ],
)
def test_convert_says_which_option_it_has_not(run: Run, qcow2: Path, words: list[str], said: str) -> None:
    status, out, err = run("convert", *words)
    assert (status, out) == (1, "")
    assert said in err.splitlines()[0]
    assert err.splitlines()[0].startswith("pydiskimg convert: error: ")
    assert os.listdir() == ["t"]


def test_every_command_names_an_unknown_option_alone(run: Run, qcow2: Path) -> None:
    for command in ("info", "map", "check", "create", "snapshot -l", "mkfs"):
        status, _, err = run(*command.split(), "-Z", "t")
        assert status == (2 if command == "mkfs" else 1)
        assert err.splitlines()[0].endswith("error: there is no option -Z")


def test_convert_looks_for_zeros_as_finely_as_it_is_told(run: Run, tmp_path: Path) -> None:
    data = (b"x" * 4096 + bytes(4096)) * 64
    (tmp_path / "t").write_bytes(data)
    stored = {}
    for size in ("4k", "12k", "64k", "16M"):
        assert run("convert", "-f", "raw", "-S", size, "t", "o")[0] == 0
        assert (tmp_path / "o").read_bytes() == data
        stored[size] = (tmp_path / "o").stat().st_blocks * 512
    assert stored["4k"] <= len(data) * 5 // 8
    assert stored["12k"] >= len(data)
    assert stored["64k"] == stored["16M"] == len(data)


def test_a_target_that_is_zero_is_not_zeroed(run: Run, tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(bytes(1 << 20) + b"x" * 4096)
    for words, format_name in (([], "raw"), (["-O", "qcow2"], "qcow2")):
        assert run("create", "-q", "-f", format_name, "o", "2M")[0] == 0
        assert run("convert", "-n", *words, "-f", "raw", "--target-is-zero", "t", "o")[0] == 0
        assert run("compare", "-q", "-f", "raw", "-F", format_name, "t", "o")[0] == 0
    (tmp_path / "o").write_bytes(b"\xff" * (2 << 20))  # it was said, and is believed
    assert run("convert", "-n", "-f", "raw", "--target-is-zero", "t", "o")[0] == 0
    assert (tmp_path / "o").read_bytes()[: 1 << 20] == b"\xff" * (1 << 20)


def test_create_takes_the_size_as_an_option(run: Run, tmp_path: Path) -> None:
    for words in (["-o", "size=3M", "o"], ["-f", "qcow2", "-o", "compat=v2,size=3M", "o"]):
        assert run("create", "-q", *words)[0] == 0
        assert json.loads(run("info", "--output=json", "o")[1])["virtual-size"] == 3 << 20
    status, _, err = run("create", "-o", "size=3M", "o", "4M")
    assert (status, err.splitlines()[0]) == (
        1,
        "pydiskimg create: error: SIZE and -o size are the same: give one of them",
    )
    assert run("create", "-f", "qcow2", "-o", "cluster_size=4k", "o")[2].splitlines()[0].endswith("SIZE is missing")


def test_create_takes_the_size_behind_options(run: Run, tmp_path: Path) -> None:
    """qemu-img does; argparse, up to Python 3.12.6, takes an operand that may be left out for left out then."""
    assert run("create", str(tmp_path / "a"), "-f", "qcow2", "10M")[0] == 0
    assert run("create", str(tmp_path / "b"), "-q", "3M", "-f", "raw")[0] == 0
    assert (tmp_path / "b").stat().st_size == 3 * 1024 * 1024
    for words in (["-q", "1M", "2M"], ["1M", "-q", "2M"], ["-q", "1X"], ["-q", "-X"]):
        assert run("create", str(tmp_path / "c"), *words)[0] == 1
    assert not (tmp_path / "c").exists()


PYTHON = re.compile(
    r"\bNone\b|\bb'|\bb\"|invalid \w+ value|Traceback|\bTrue\b|\bFalse\b|explicit argument|Errno|<class|object at 0x"
)


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (
            ["mkfs", "--partition", "x", "t"],
            2,
            "argument --partition: 'x' is not the number of a partition; expected 1,",
        ),
        (["mkfs", "--partition", "-1", "t"], 2, "argument --partition: '-1' is not the number of a partition"),
        (["mkfs", "--partition", "0", "t"], 2, "argument --partition: '0' is not the number of a partition"),
        (["mkfs", "--partition", "9" * 5000, "t"], 2, "99' is not the number of a partition"),
        (["mkswap", "--partition", "1.5", "t"], 2, "argument --partition: '1.5' is not the number of a partition"),
        (["mkswap", "--partition", "", "t"], 2, "argument --partition: '' is not the number of a partition"),
        (["mkfs", "-b", "x", "t"], 2, "argument -b: 'x' is not a size"),
        (["mkfs", "-b", "99", "--force", "t"], 1, "t: 99 is not a block size of ext4; expected 1024, 2048 or 4096"),
        (["mkfs", "swap"], 1, "swap: holds swap (no label, UUID "),
        (["mkfs", "named"], 1, "named: holds swap (label 'some', UUID "),
        (["info", "--help=1"], 1, "argument -h/--help: takes no value; found '1'"),
        (["convert", "--verify=yes", "t", "o"], 1, "argument --verify: takes no value; found 'yes'"),
        (["snapshot", "-c", "x", "-U", "t"], 1, "error: -U is only for -l: an image that others use cannot be changed"),
        (
            ["info", "-f", "qcow2", "zeros"],
            1,
            "zeros: not a qcow2 image: it starts with 00 00 00 00, expected 51 46 49 fb",
        ),
    ],
)
def test_what_is_wrong_is_said_in_the_words_of_the_command(
    run: Run, qcow2: Path, tmp_path: Path, words: list[str], status: int, said: str
) -> None:
    (tmp_path / "zeros").write_bytes(bytes(100))
    assert run("mkswap", "--create", "1M", "swap")[0] == 0
    assert run("mkswap", "--create", "1M", "-L", "some", "named")[0] == 0
    found, out, err = run(*words)
    assert (found, out) == (status, "")
    assert said in err
    assert PYTHON.search(err) is None


@pytest.mark.parametrize(("columns", "width"), [("60", 58), ("200", 98), ("0", 78), ("wide", 78)])
def test_help_is_as_wide_as_the_terminal_up_to_100_columns(
    run: Run, monkeypatch: pytest.MonkeyPatch, columns: str, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr(os, "get_terminal_size", lambda _: os.terminal_size((0, 0)))  # as where there is none
    status, told, _ = run("tar-out", "--help")
    longest = max(map(len, told.splitlines()))
    assert status == 0
    assert width - 20 < longest <= width
