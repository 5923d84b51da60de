# SPDX-License-Identifier: MIT
"""What a short command imports, which determines how long it takes (docs/adr/0007)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pydiskimg.cli.commands import COMMANDS
from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.images.create import new_image
from pydiskimg.images.open_store import open_qcow2_store
from pydiskimg.images.qcow2.switch.snapshots import take_snapshot
from pydiskimg.partitions.make import Content, NewPartition, plan_partition_table
from pydiskimg.units import MIB
from tests.fixtures.checkout import ROOT
from tests.fixtures.made_entries import filled, regular
from tests.fixtures.qcow2_images import Craft

SLOW = {"argparse", "collections", "contextlib", "dataclasses", "enum", "functools", "json", "re", "signal", "typing"}

# Beyond what the interpreter has loaded itself. A new name here costs every `pydiskimg info` 0.1 ms and more.
INFO = {
    "__future__",
    "errno",
    "gc",
    "pydiskimg",
    "pydiskimg.cli",
    "pydiskimg.cli.info",
    "pydiskimg.cli.options",
    "pydiskimg.cli.output",
    "pydiskimg.errors",
    "pydiskimg.images",
    "pydiskimg.images.raw",
    "pydiskimg.linux",
    "pydiskimg.linux.fileio",
    "pydiskimg.linux.stdio",
    "pydiskimg.protocols",
    "pydiskimg.startup",
    "pydiskimg.units",
}
QCOW2 = {
    "_struct",
    "pydiskimg.images.qcow2",
    "pydiskimg.images.qcow2.header",
    "pydiskimg.images.qcow2.layout",
    "pydiskimg.records",
}

VERSION = {
    *("__future__", "errno", "gc", "pydiskimg", "pydiskimg.cli", "pydiskimg.errors", "pydiskimg.linux"),
    *("pydiskimg.linux.stdio", "pydiskimg.startup"),
}
ARRAY = {  # array, and what it imports
    *("_collections", "_operator", "array", "collections", "collections.abc", "itertools", "keyword", "operator"),
    "reprlib",
}
_ARGUMENTS = {"pydiskimg.cli.arguments", "pydiskimg.cli.references", "pydiskimg.cli.signals"}
_TABLES = {"pydiskimg.images.qcow2.l2_tables", "pydiskimg.images.qcow2.runs", "pydiskimg.images.qcow2.words"}
# What opening a qcow2 image imports.
READ = {
    *((INFO - {"pydiskimg.cli.info"}) | QCOW2 | _ARGUMENTS | _TABLES),
    "_collections",
    "pydiskimg.images.open",
    *("pydiskimg.images.qcow2.cache", "pydiskimg.images.qcow2.mapping", "pydiskimg.images.qcow2.reader"),
    "pydiskimg.images.qcow2.runs_in_table",
}
MEASURE = {"pydiskimg.cli.image_options", "pydiskimg.cli.measure", "pydiskimg.images.measure"}
MEASURE |= {"pydiskimg.images.qcow2.sizes"}
MAP = {
    *("pydiskimg.images.map", "pydiskimg.images.qcow2.host_offsets", "pydiskimg.images.qcow2.refcount_reader"),
}
MEASURE_QCOW2 = {"pydiskimg.images.measure_qcow2", "pydiskimg.images.qcow2.options"}
SNAPSHOT = {
    *("itertools", "pydiskimg.cli.arguments", "pydiskimg.cli.signals", "pydiskimg.cli.snapshot"),
    *("pydiskimg.images.qcow2.snapshots", "pydiskimg.text"),
}
# What opening a file to be changed imports; same_bytes, where some file is attached to a loop device.
CHANGE = {
    "pydiskimg.linux.loopctl",  # only where other files are attached to loop devices
    "fcntl",
    *("pydiskimg.disks", "pydiskimg.disks.descriptor", "pydiskimg.disks.file", "pydiskimg.disks.open"),
    "pydiskimg.disks.store",
    *("pydiskimg.host", "pydiskimg.host.claims", "pydiskimg.host.same_bytes", "pydiskimg.linux.locks"),
    *("pydiskimg.images.qcow2.words", "pydiskimg.images.qcow2.write", "pydiskimg.images.qcow2.write.head"),
}
_REFCOUNTS = {f"pydiskimg.images.qcow2.write.{name}" for name in ("refcount_entries", "refcounts", "tables")}
SWITCH = {
    *(_REFCOUNTS | _TABLES),
    *("pydiskimg.images.open_store", "pydiskimg.images.qcow2.cache"),
    *("pydiskimg.images.qcow2.switch", "pydiskimg.images.qcow2.switch.counts", "pydiskimg.images.qcow2.switch.layer"),
    *("pydiskimg.images.qcow2.switch.snapshots", "pydiskimg.images.qcow2.switch.switch"),
}
RESIZE = {
    *(_ARGUMENTS | {"pydiskimg.cli.resize", "pydiskimg.images.resize"}),
    *("pydiskimg.images.qcow2.sizes", "pydiskimg.images.qcow2.write.grow"),
}
GROW = {
    *(_REFCOUNTS | _TABLES),
    *("pydiskimg.images.qcow2.write.disk", "pydiskimg.images.qcow2.write.l2_map"),
    "pydiskimg.images.qcow2.write.l2_words",
}

# What finding and reading a file of an ext4 imports, where that has the whole disk and a clean journal.
CAT = {
    *(INFO - {"pydiskimg.cli.info", "pydiskimg.cli.output", "pydiskimg.units"}),
    "_bisect",
    "_struct",
    *("pydiskimg.cli.cat", "pydiskimg.cli.signals", "pydiskimg.cli.tree_argument"),
    "pydiskimg.crc32c",
    *("pydiskimg.regions", "pydiskimg.regions.region"),
    *("pydiskimg.fs", "pydiskimg.fs.ext4"),
    "pydiskimg.fs.ext4.checksums",
    "pydiskimg.fs.ext4.contents",
    "pydiskimg.fs.ext4.descriptors",
    "pydiskimg.fs.ext4.directory_entries",
    "pydiskimg.fs.ext4.features",
    "pydiskimg.fs.ext4.file_system",
    "pydiskimg.fs.ext4.geometry",
    "pydiskimg.fs.ext4.inode_table",
    "pydiskimg.fs.ext4.inodes",
    "pydiskimg.fs.ext4.layout",
    "pydiskimg.fs.ext4.map_reader",
    "pydiskimg.fs.ext4.superblock",
    *("pydiskimg.fs.ext4.tree", "pydiskimg.fs.ext4.tree.files", "pydiskimg.fs.ext4.tree.steps"),
    "pydiskimg.fs.ext4.tree.tree",
    *("pydiskimg.fs.probe", "pydiskimg.fs.probe.ext", "pydiskimg.fs.probe.kind"),
    "pydiskimg.images.open",
    *("pydiskimg.partitions", "pydiskimg.partitions.partition"),
    "pydiskimg.records",
    *("pydiskimg.volumes", "pydiskimg.volumes.find", "pydiskimg.volumes.tree"),
}
SUBCOMMANDS = {f"pydiskimg.cli.{name.replace('-', '_')}" for name in COMMANDS}
LISTED = {"pydiskimg.cli.file_facts", "pydiskimg.cli.output", "pydiskimg.text"}  # beyond what cat needs
PARTITIONED = {"encodings.utf_16_le", "pydiskimg.partitions.layout", "pydiskimg.partitions.read", "zlib"}

# What only the work of a command needs, with all that is in it.
WORK = {
    *("ctypes", "dataclasses", "hashlib", "inspect", "json", "logging", "mmap", "threading", "typing", "uuid", "xml"),
    *(
        f"pydiskimg.{room}"
        for room in ("boot", "disks", "files", "fs", "host", "partitions", "regions", "system", "transfer")
    ),
    *("pydiskimg.volumes", "pydiskimg.web", "pydiskimg.images.qcow2"),
}
# The modules with what --help lists: types of file systems and partitions, kinds of checksums.
_FS_TYPES = {"pydiskimg.fs", "pydiskimg.fs.probe", "pydiskimg.fs.probe.kind"}
LISTS = {
    "build": _FS_TYPES,
    "mkfs": _FS_TYPES,
    "hash": {"pydiskimg.transfer", "pydiskimg.transfer.digest"},
    "partition": {"pydiskimg.partitions", "pydiskimg.partitions.types"},
}

TELL = """import os, sys
before = set(sys.modules)
from pydiskimg.cli import main
try:
    status = main({words!r})
except SystemExit as ended:
    status = ended.code
print(*(set(sys.modules) - before), file=sys.stderr)
sys.exit(status)
"""


def imported(*words: str) -> set[str]:
    """The modules that a command imports, in an interpreter without site."""
    command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"]
    command[-1] += TELL.format(words=words)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


@pytest.fixture(scope="module")
def loaded() -> set[str]:
    """The modules that every interpreter has loaded before our code: os imports errno since Python 3.13."""
    command = [sys.executable, "-I", "-S", "-c", "import os, sys; print(*sys.modules)"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.fixture
def image(tmp_path: Path) -> str:
    path = tmp_path / "image.qcow2"
    path.write_bytes(Craft().build())
    return str(path)


@pytest.mark.parametrize(
    "options", [[], ["--output=json"], ["-f", "qcow2"], ["-U", "--output", "human"], ["-f", "raw"]]
)
def test_info_imports_what_it_needs(image: str, options: list[str]) -> None:
    modules = imported("info", *options, image)
    assert modules <= (INFO if options[-1:] == ["raw"] else INFO | QCOW2)
    assert not modules & SLOW


@pytest.fixture
def full_image(tmp_path: Path) -> str:
    """An image with data in its one L2 table, and a snapshot."""
    path = tmp_path / "full.qcow2"
    with new_image(path, MIB, format="qcow2") as disk:
        disk.write(0, b"x" * 65536)
        disk.flush()
    with open_qcow2_store(path) as store:
        take_snapshot(store, "one", now_ns=0)
    return str(path)


@pytest.mark.parametrize(
    ("words", "needed"),
    [
        (["--version"], VERSION),
        (["measure", "-O", "raw", "{}"], READ | MEASURE),
        (["measure", "-O", "qcow2", "{}"], READ | MEASURE | MAP | ARRAY | MEASURE_QCOW2),
        (["map", "{}"], READ | MAP | ARRAY | {"pydiskimg.cli.map", "pydiskimg.text"}),
        (["snapshot", "-l", "{}"], INFO | QCOW2 | SNAPSHOT),
        (["snapshot", "{}"], INFO | QCOW2 | SNAPSHOT),
        (["snapshot", "-c", "new", "{}"], INFO | QCOW2 | SNAPSHOT | CHANGE | ARRAY | SWITCH),
        (["snapshot", "-a", "one", "{}"], INFO | QCOW2 | SNAPSHOT | CHANGE | ARRAY | SWITCH),
        (["snapshot", "-d", "one", "{}"], INFO | QCOW2 | SNAPSHOT | CHANGE | ARRAY | SWITCH),
        (["resize", "-q", "{}", "1M"], INFO | QCOW2 | CHANGE | RESIZE),
        (["resize", "-q", "{}", "+1M"], INFO | QCOW2 | CHANGE | RESIZE | ARRAY | GROW),
        (["resize", "-q", "{}", "+1G"], INFO | QCOW2 | CHANGE | RESIZE | ARRAY | GROW),
    ],
)
def test_short_commands_import_what_they_need(full_image: str, words: list[str], needed: set[str]) -> None:
    assert imported(*(word.format(full_image) for word in words)) <= needed


def test_a_disk_that_grows_by_its_header_imports_no_tables(tmp_path: Path) -> None:
    path = tmp_path / "image.qcow2"
    with new_image(path, MIB, format="qcow2"):
        pass
    assert imported("resize", "-q", str(path), "+1M") <= INFO | QCOW2 | CHANGE | RESIZE


def test_a_difference_below_zero_needs_no_argparse(tmp_path: Path) -> None:
    path = tmp_path / "image.qcow2"
    with new_image(path, 2 * MIB, format="qcow2"):
        pass
    assert not {"argparse", "re", "enum"} & imported("resize", "-q", "--shrink", str(path), "-1M")


@pytest.mark.parametrize("words", [["check", "{}"], ["compare", "{}", "{}"]])
def test_longer_commands_import_nothing_that_is_slow(full_image: str, words: list[str]) -> None:
    modules = imported(*(word.format(full_image) for word in words))
    assert not modules & {"argparse", "dataclasses", "inspect", "json", "typing"}


def test_a_rare_form_of_info_imports_argparse(image: str) -> None:
    assert "argparse" in imported("info", "--backing-chain", image)


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["help"]])
def test_the_list_of_commands_needs_no_parser(words: list[str], loaded: set[str]) -> None:
    assert imported(*words) == (VERSION | {"pydiskimg.cli.commands", "pydiskimg.cli.help_text"}) - loaded


@pytest.mark.parametrize("words", [["--version", "--help"], ["--help", "rm"]])
def test_help_imports_no_subcommand_that_is_not_named(words: list[str]) -> None:
    ours = {name for name in imported(*words) if name.startswith("pydiskimg.cli.")}
    named = {f"pydiskimg.cli.{word}" for word in words if not word.startswith("-")}
    assert ours & SUBCOMMANDS == named


@pytest.fixture(scope="module")
def of_argparse() -> set[str]:
    """The modules that argparse imports to print a help; they are more since Python 3.14."""
    code = "import sys; from argparse import ArgumentParser; ArgumentParser().format_help(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_help_imports_nothing_that_the_work_needs(command: str, of_argparse: set[str]) -> None:
    modules = imported(command, "--help") - of_argparse - LISTS.get(command, set())
    assert not {name for name in modules if any(f"{name}.".startswith(f"{work}.") for work in WORK)}


def test_the_package_alone_imports_next_to_nothing() -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); before = set(sys.modules); import pydiskimg\n"
    code += "print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == {"__future__", "pydiskimg", "pydiskimg.startup"}


def test_map_leaves_the_slow_ones_alone(image: str) -> None:
    slow = {"inspect", "json", "logging", "pathlib"}
    assert not imported("map", "--output", "json", image) & slow


@pytest.fixture
def disk(tmp_path: Path) -> str:
    path = tmp_path / "disk"
    path.write_bytes(filled([regular("hello", b"world\n")], size=8 * MIB).data)
    return str(path)


@pytest.fixture
def partitioned_disk(disk: str) -> str:
    contents = Path(disk).read_bytes()
    made = MemoryDisk(16 * MIB)
    table = plan_partition_table(made.size, 512, [NewPartition(Content.LINUX)], label="gpt")
    made.write(table.partitions[-1].start, contents)
    table.write(made)
    Path(disk).write_bytes(made.data)
    return disk


@pytest.mark.parametrize("options", [[], ["-f", "raw"], ["--partition=0"]])
def test_cat_imports_what_it_needs(disk: str, options: list[str], loaded: set[str]) -> None:
    assert imported("cat", *options, disk, "/hello") == CAT - loaded


def test_cat_of_a_partition_imports_what_it_needs(partitioned_disk: str, loaded: set[str]) -> None:
    assert imported("cat", partitioned_disk, "hello") == (CAT | PARTITIONED) - loaded


@pytest.mark.parametrize(
    ("command", "more"),
    [("ls", {"pydiskimg.cli.ls"}), ("stat", {"pydiskimg.cli.stat", "pydiskimg.fs.ext4.xattrs"})],
)
@pytest.mark.parametrize("options", [[], ["--output", "json"]])
def test_ls_and_stat_import_what_they_need(
    disk: str, command: str, more: set[str], options: list[str], loaded: set[str]
) -> None:
    needed = (CAT - {"pydiskimg.cli.cat"}) | LISTED | more
    assert imported(command, *options, disk, "/hello") == needed - loaded


def test_a_rare_form_of_cat_imports_argparse(disk: str) -> None:
    assert "argparse" in imported("cat", disk, "-f", "raw", "/hello")


def test_asking_a_loop_device_what_it_shows_imports_little() -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); before = set(sys.modules)\n"
    code += "import pydiskimg.linux.loopctl; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & (SLOW | {"inspect"})


def test_create_has_a_disk_image_copied_without_what_tarballs_need() -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {{}}; print(*sys.modules)"
    mounting = {"pydiskimg.host.mount"}
    for module, needed in (("ganeti_os.verbs.create", set[str]()), ("ganeti_os.install.from_tarball", mounting)):
        command = [sys.executable, "-c", code.format(module)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert set(done.stdout.split()) & {*mounting, "parted", "_ped", "libarchive"} == needed
