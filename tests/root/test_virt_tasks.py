# SPDX-License-Identifier: MIT
"""The tasks from the manuals of virt-*, done by them (make virt) or by the kernel and the system's tools, and by us.

virt-* starts a virtual machine for each command, which takes minutes where it is emulated. In the usual run mount,
blkid, sfdisk, find, tar and df do the same and print it in the form of virt-*.
"""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pydiskimg.host.loop import loop_device
from pydiskimg.host.mount import mounted
from tests.fixtures.ext_files import sized
from tests.fixtures.programs import Tool, run
from tests.fixtures.tasks import ROOT_SIZE, ROOT_START, Outcome, copied, disks_of_tasks, done, is_of_virt, tasks

pytestmark = pytest.mark.root

MIB = 1 << 20
WITH_VIRT = "VIRT" in os.environ
TASKS = {name: task for name, task in tasks().items() if is_of_virt(task)}


@pytest.fixture
def base(tmp_path_factory: pytest.TempPathFactory, tool: Tool) -> Path:
    return disks_of_tasks(tmp_path_factory.getbasetemp(), tool)


@contextmanager
def root_of(image: Path, *, length: int | None = ROOT_SIZE) -> Iterator[Path]:
    """Mount partition 3."""
    with loop_device(image, offset=ROOT_START, length=length) as loop, mounted(loop.path, fs_type="ext4") as target:
        yield Path(target)


def parts(image: Path, tool: Tool) -> list[dict[str, str]]:
    """What blkid and sfdisk say of each partition."""
    rows = json.loads(run(tool("sfdisk"), "-J", str(image)))["partitiontable"]["partitions"]
    found = []
    for number, row in enumerate(rows, 1):
        span = ("-O", str(row["start"] * 512), "-S", str(row["size"] * 512))
        words = run(tool("blkid"), "-p", *span, "-o", "export", str(image)).splitlines()
        found.append(
            {"NAME": f"/dev/sda{number}", "SIZE": str(row["size"] * 512), **dict(one.split("=", 1) for one in words)}
        )
    return found


def in_units(size: str, tool: Tool) -> str:
    return run(tool("numfmt"), "--to=iec", "--round=nearest", size).strip()


def list_file_systems(at: Path, tool: Tool) -> str:
    return "".join(f"{part['NAME']}\n" for part in parts(at / "disk.raw", tool) if part["TYPE"] != "swap")


def list_all(at: Path, tool: Tool) -> str:
    found = parts(at / "disk.raw", tool)
    sizes = {part["NAME"]: in_units(part["SIZE"], tool) for part in found}
    lines = ["Name Type VFS Label MBR Size Parent UUID"]
    for part in found:
        facts = (part["TYPE"], part["LABEL"], "-", sizes[part["NAME"]], "-", part["UUID"])
        lines.append(f"{part['NAME']} filesystem {' '.join(facts)}")
    lines += [f"{name} partition - - - {size} /dev/sda -" for name, size in sizes.items()]
    lines.append("/dev/sda device - - - 64M - -")
    return "\n".join(lines)


def show_space(at: Path, tool: Tool) -> str:
    with root_of(at / "disk.raw") as root:
        line = run(tool("df"), "-B1", "--output=size,used,avail,pcent", str(root)).splitlines()[1]
    *sizes, percentage = line.split()
    fields = [*(in_units(size, tool) for size in sizes), percentage]
    return f"Filesystem Size Used Available Use%\ndisk.raw:/dev/sda3 {' '.join(fields)}\n"


def list_files(at: Path, tool: Tool) -> str:
    with root_of(at / "disk.raw") as root:
        form = "%y %04m %10s /%P"
        lines = run(tool("find"), str(root / "etc"), "-printf", f"{form} -> %l\n").splitlines()
    found = [line.removesuffix(" -> ").replace("f ", "- ", 1).split(None, 3) for line in lines]
    rows = [(kind, mode, size, f"/etc{path}".rstrip("/")) for kind, mode, size, path in found]
    return "".join(
        f"{kind} {mode} {size:>10} {path}\n" for kind, mode, size, path in sorted(rows, key=lambda row: row[3])
    )


def print_file(at: Path, _: Tool) -> str:
    with root_of(at / "disk.raw") as root:
        return (root / "etc" / "fstab").read_text()


def copy_in(at: Path, tool: Tool) -> str:
    with root_of(at / "disk.raw") as root:
        return run(tool("cp"), "-a", str(at / "skel"), str(at / "resolv.conf"), str(root / "home"))


def copy_out(at: Path, tool: Tool) -> str:
    with root_of(at / "disk.raw") as root:
        return run(tool("cp"), "-a", str(root / "home"), str(at / "homes"))


def tar_in(at: Path, tool: Tool) -> str:
    with root_of(at / "disk.raw") as root:
        return run(tool("tar"), "-xf", str(at / "homes.tar"), "--numeric-owner", "-C", str(root / "var"))


def tar_out(at: Path, tool: Tool) -> str:
    with root_of(at / "disk.raw") as root:
        return run(tool("tar"), "-cf", str(at / "packed.tar"), "-C", str(root / "home"), ".")


def list_changed(at: Path, tool: Tool) -> str:
    with root_of(at / "disk.raw") as old, root_of(at / "new.raw") as new:
        sums = []
        for root in (old, new):
            lines = run(tool("find"), str(root), "-type", "f", "-exec", tool("sha256sum"), "{}", "+").splitlines()
            sums.append({line.split(None, 1)[1].removeprefix(str(root)): line.split()[0] for line in lines})
            sums[-1].update((str(path).removeprefix(str(root)), "") for path in root.rglob("*") if path.is_dir())
        found = []
        for path in sorted(sums[0].keys() | sums[1].keys()):
            if sums[0].get(path) != sums[1].get(path):
                sign = "+" if path not in sums[0] else "-" if path not in sums[1] else "="
                facts = ((new if sign == "+" else old) / path.strip("/")).stat()
                kind = "d" if sums[0].get(path, sums[1].get(path)) == "" else "-"
                found.append(f"{sign} {kind} {facts.st_mode & 0o7777:04o} {facts.st_size:>10} {path}\n")
    return "".join(found)


def trim(at: Path, tool: Tool) -> str:
    with root_of(at / "full.raw") as root:
        return run(tool("fstrim"), str(root))


def grow(at: Path, tool: Tool) -> str:
    larger = at / "larger.raw"
    shutil.copyfile(at / "disk.raw", larger)
    run(tool("sfdisk"), "-q", "--relocate", "gpt-bak-std", str(sized(larger, 96 * MIB)))
    run(tool("sfdisk"), "-q", "-N", "3", str(larger), given=",+\n")
    size = int(parts(larger, tool)[2]["SIZE"])
    with loop_device(larger, offset=ROOT_START, length=size) as loop:
        return run(tool("resize2fs"), "-f", str(loop.path))


THEIRS: dict[str, Callable[[Path, Tool], str]] = {
    "list file systems": list_file_systems,
    "list all there is": list_all,
    "show free space": show_space,
    "list files, to be read by a program": list_files,
    "print a file": print_file,
    "copy files into an image": copy_in,
    "copy files out of an image": copy_out,
    "unpack a tarball into an image": tar_in,
    "pack a directory of an image": tar_out,
    "list files that changed": list_changed,
    "give back free space": trim,
    "grow a disk and its last file system": grow,
}


def files(root: Path) -> list[tuple[object, ...]]:
    """All below a directory, with what virt-* and we keep of it; lost+found and times apart."""
    found: list[tuple[object, ...]] = []
    for path in sorted(root.rglob("*")):
        facts = path.lstat()
        contents = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found.append((str(path.relative_to(root)), facts.st_mode, facts.st_uid, facts.st_gid, contents))
    return found


def same_text(theirs: Outcome, ours: Outcome, _: Tool) -> None:
    assert theirs.printed.rstrip() == ours.printed.rstrip()


def same_list(theirs: Outcome, ours: Outcome, _: Tool) -> None:
    """Where we say more: the size of a file system is its partition's; a GPT's names and UUIDs."""
    tables = [
        [line.split() for line in outcome.printed.replace("EFI system", "EFI").splitlines()]
        for outcome in (theirs, ours)
    ]
    assert tables[0][0] == tables[1][0]
    title = tables[0][0]
    unlike = {"filesystem": {"Size"}, "partition": {"Label", "UUID"}, "device": set[str]()}
    shown = [
        [{key: field for key, field in zip(title, row, strict=True) if key not in unlike[row[1]]} for row in rows[1:]]
        for rows in tables
    ]
    assert shown[0] == shown[1]
    assert len(shown[0]) == 7


def same_space(theirs: Outcome, ours: Outcome, _: Tool) -> None:
    """Each line of theirs is in ours; the kernel may not be able to mount the ESP."""
    tables = [[line.split() for line in outcome.printed.splitlines()] for outcome in (theirs, ours)]
    assert tables[0][0] == tables[1][0]
    assert [row for row in tables[1] if row in tables[0]] == tables[0]
    assert tables[1][-1][0] == "disk.raw:/dev/sda3"


def same_changes(theirs: Outcome, ours: Outcome, _: Tool) -> None:
    """virt-diff also prints how a text has changed."""
    lines = [line for line in theirs.printed.splitlines() if line[:2] in ("+ ", "- ", "= ")]
    assert lines == [line.partition(" #")[0] for line in ours.printed.splitlines()]
    assert len(lines) == 4


def same_files(theirs: Outcome, ours: Outcome, tool: Tool) -> None:
    assert in_partition(theirs.directory / "disk.raw") == in_partition(ours.directory / "disk.raw")
    sound(ours.directory / "disk.raw", tool)


def in_partition(image: Path, *, length: int | None = ROOT_SIZE) -> list[tuple[object, ...]]:
    with root_of(image, length=length) as root:
        return files(root)


def sound(image: Path, tool: Tool) -> None:
    run(tool("e2fsck"), "-fn", f"{image}?offset={ROOT_START}")


def same_homes(theirs: Outcome, ours: Outcome, _: Tool) -> None:
    assert files(theirs.directory / "homes") == files(ours.directory / "homes")
    assert len(files(ours.directory / "homes")) == 3


def same_archive(theirs: Outcome, ours: Outcome, _: Tool) -> None:
    found = []
    for outcome in (theirs, ours):
        with tarfile.open(outcome.directory / "packed.tar") as tar:
            found.append(
                sorted((os.path.normpath(one.name), one.mode, one.uid, one.gid, one.size, one.type) for one in tar)
            )
    assert found[0] == found[1]
    assert len(found[0]) == 3


def as_sparse(theirs: Outcome, ours: Outcome, tool: Tool) -> None:
    sizes = [(outcome.directory / "full.raw").stat().st_blocks * 512 for outcome in (theirs, ours)]
    assert sizes[1] <= sizes[0] + MIB
    assert sizes[1] < 10 * MIB
    assert in_partition(theirs.directory / "full.raw") == in_partition(ours.directory / "full.raw")
    sound(ours.directory / "full.raw", tool)


def grown_alike(theirs: Outcome, ours: Outcome, tool: Tool) -> None:
    """The partition ends at the last whole MiB here, at other sectors by sfdisk and virt-resize."""
    tables = [
        json.loads(run(tool("sfdisk"), "-J", str(one.directory / "larger.raw")))["partitiontable"]
        for one in (theirs, ours)
    ]
    first, second = ([(row["start"], row["size"], row["type"]) for row in one["partitions"]] for one in tables)
    assert first[:2] == second[:2]
    assert (first[2][0], first[2][2]) == (second[2][0], second[2][2])
    assert abs(second[2][1] - first[2][1]) < MIB // 512
    sound(ours.directory / "larger.raw", tool)
    trees = [in_partition(one.directory / "larger.raw", length=None) for one in (theirs, ours)]
    assert trees[0] == trees[1]


COMPARED: dict[str, Callable[[Outcome, Outcome, Tool], None]] = {
    "list file systems": same_text,
    "list all there is": same_list,
    "show free space": same_space,
    "list files, to be read by a program": same_text,
    "print a file": same_text,
    "copy files into an image": same_files,
    "copy files out of an image": same_homes,
    "unpack a tarball into an image": same_files,
    "pack a directory of an image": same_archive,
    "list files that changed": same_changes,
    "give back free space": as_sparse,
    "grow a disk and its last file system": grown_alike,
}


def test_every_row_of_virt_is_compared() -> None:
    assert set(COMPARED) == set(THEIRS) == set(TASKS)


@pytest.mark.parametrize("name", TASKS)
def test_both_do_the_same(name: str, base: Path, tmp_path: Path, tool: Tool) -> None:
    task = TASKS[name]
    at = copied(base, tmp_path / "theirs")
    theirs = done(task.theirs, at, tool) if WITH_VIRT else Outcome(at, THEIRS[name](at, tool))
    ours = done(task.ours, copied(base, tmp_path / "ours"), tool)
    COMPARED[name](theirs, ours, tool)
