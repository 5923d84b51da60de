# SPDX-License-Identifier: MIT
"""Wrong values for public functions: ValueError or DiskImageError with a sentence, and nothing is lost."""

from __future__ import annotations

import os
import pickle
import stat
from collections.abc import Callable
from copy import copy as shallow
from pathlib import Path

import pytest

from pydiskimg import (
    Amendment,
    ChangedTree,
    Content,
    DirectoryReader,
    DiskImageError,
    DoesNotFitError,
    Entry,
    InUseError,
    MemoryDisk,
    NewExt,
    NewPartition,
    PacedDisk,
    ReferenceDeniedError,
    Region,
    SourceRegion,
    StorageError,
    Store,
    SystemOptions,
    UnsupportedImageError,
    VerificationError,
    amend_image,
    build_system,
    change_bitmaps,
    check_qcow2,
    commit,
    compare,
    copy,
    make_ext,
    measure,
    new_image,
    new_overlay,
    open_disk,
    open_image,
    open_qcow2_store,
    open_tree,
    plan_partition_table,
    populate,
    populate_joined,
    read_bytes,
    rename_backing,
    repair_qcow2,
    resize_image,
    take_snapshot,
    write_differences,
    write_stream,
)

MIB = 1 << 20


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def made(name: str, size: int = 8 * MIB) -> str:
    with new_image(name, size, format="qcow2") as disk:
        disk.write(0, b"contents")
    return name


@pytest.mark.parametrize("start", [0, 3 * MIB])
@pytest.mark.parametrize("as_file", [True, False])
def test_a_copy_between_regions_that_overlap(as_file: bool, start: int) -> None:
    """The copy has lost bytes before: they were overwritten before they were read."""
    contents = b"".join(bytes([number]) * MIB for number in range(1, 9))
    Path("disk").write_bytes(contents)
    memory = MemoryDisk(8 * MIB)
    memory.write(0, contents)
    with open_disk("disk", writable=True) as file, open_image("disk") as again:
        disk = file if as_file else memory
        for source in (disk, again) if as_file else (disk,):
            with pytest.raises(InUseError, match=r"overlaps the source, .*, whose bytes would be lost before they are"):
                copy(SourceRegion(source, start, 4 * MIB), Region(disk, 3 * MIB - start, 5 * MIB))
        assert read_bytes(disk, 0, disk.size) == contents
        copy(Region(disk, 0, 4 * MIB), Region(disk, 4 * MIB, 4 * MIB), verify=True)
        copy(disk, disk)
        assert read_bytes(disk, 0, disk.size) == contents[: 4 * MIB] * 2


@pytest.mark.parametrize(
    "error",
    [
        StorageError("disk: cannot be read", errno=5, filename="disk"),
        InUseError("disk: is in use", errno=None, filename="disk"),
        DoesNotFitError("disk: is small", needed=3, available=2),
        VerificationError("disk: differs", offset=4),
        ReferenceDeniedError("top: names base", reference="base"),
    ],
)
def test_errors_pass_between_processes(error: DiskImageError) -> None:
    for again in (pickle.loads(pickle.dumps(error)), shallow(error)):
        assert type(again) is type(error)
        assert (str(again), again.__dict__) == (str(error), error.__dict__)
        assert [getattr(again, name, None) for name in ("errno", "filename")] == [
            getattr(error, name, None) for name in ("errno", "filename")
        ]


def test_a_tree_that_outlives_its_disk() -> None:
    for name in ("one", "two"):
        with new_image(name, 8 * MIB) as disk:
            make_ext(disk)
    with open_disk("one", writable=True) as disk:
        kept = open_tree(disk, writable=True)
    with open_tree("two", writable=True) as tree:  # the other image was refused
        tree.write("/new", b"")
    del kept


def test_a_directory_to_copy_that_is_not_one() -> None:
    """An empty file system was made of it."""
    os.mkdir("real")
    os.mkdir("real/inside")
    os.symlink("real", "link")
    os.symlink("nowhere", "dangling")
    Path("file").touch()
    for name in (b"link", b"dangling", b"file"):
        with pytest.raises(StorageError, match="is not a directory"):
            populate(MemoryDisk(16 * MIB), DirectoryReader(name).entries())
    assert populate(MemoryDisk(16 * MIB), DirectoryReader(b"link/").entries()).entries == 1


def test_two_file_systems_in_one_place() -> None:
    disk = MemoryDisk(64 * MIB)
    for root, boot in ((disk, disk), (Region(disk, 0, 40 * MIB), Region(disk, 30 * MIB, 20 * MIB))):
        with pytest.raises(ValueError, match="overlaps "):
            populate_joined(NewExt(disk=root), NewExt(disk=boot), [])
    assert not any(disk.data)
    populate_joined(NewExt(disk=Region(disk, 0, 40 * MIB)), NewExt(disk=Region(disk, 40 * MIB, 20 * MIB)), [])


@pytest.mark.parametrize(
    ("backing", "form", "text"),
    [
        (b"top", b"qcow2", "top: cannot be its own backing file, and top is the same file"),
        (b"./linked", b"qcow2", "top: cannot be its own backing file, and ./linked is the same file"),
        (b"", b"raw", "'' is not the name of a backing file"),
        (b"a\0b", b"raw", r"'a\\x00b' is not the name of a backing file"),
        (b"other", b"", "a backing file of the format '' is not read; expected raw or qcow2"),
        (b"other", b"vmdk", "a backing file of the format 'vmdk' is not read; expected raw or qcow2"),
    ],
)
def test_what_cannot_be_a_backing_file(backing: bytes, form: bytes, text: str) -> None:
    Path("linked").symlink_to(made("top"))
    before = Path("top").read_bytes()
    with pytest.raises(DiskImageError, match=text):
        new_overlay("top", 8 * MIB, backing_file=backing, backing_format=form)
    if backing not in (b"", b"top", b"./linked"):  # which qemu-img rebase -u takes, too
        with pytest.raises(DiskImageError, match=text):
            rename_backing("top", backing.decode(), backing_format=form.decode())
    assert Path("top").read_bytes() == before


def test_an_overlay_of_a_negative_size() -> None:
    with pytest.raises(UnsupportedImageError, match="top: a size of -1 bytes is not possible; expected 0 or more"):
        new_overlay("top", -1, backing_file=b"disk", backing_format=b"raw")
    assert not Path("top").exists()


def test_a_closed_store() -> None:
    with open_qcow2_store(made("disk.qcow2")) as store:
        pass
    operations: list[Callable[[Store], object]] = [
        lambda closed: read_bytes(closed, 0, 4),
        repair_qcow2,
        lambda closed: take_snapshot(closed, "one", now_ns=0),
    ]
    for operation in operations:
        with pytest.raises(DiskImageError, match=r"^disk.qcow2: is closed$"):
            operation(store)


@pytest.mark.parametrize("rate", [0, -1])
def test_a_rate_at_which_nothing_moves(rate: int) -> None:
    with pytest.raises(ValueError, match=f"a rate of {rate} bytes a second is not possible"):
        PacedDisk(MemoryDisk(MIB), rate)
    if rate:
        new_overlay("top", 8 * MIB, backing_file=made("below").encode(), backing_format=b"qcow2")
        with pytest.raises((ValueError, DiskImageError)):
            commit("top", references=None, rate=rate)


@pytest.mark.parametrize(
    "work",
    [
        lambda: copy(MemoryDisk(4 * MIB, fill=1), MemoryDisk(4 * MIB), workers=-1),
        lambda: compare(MemoryDisk(4 * MIB, fill=1), MemoryDisk(4 * MIB), workers=-1),
    ],
)
@pytest.mark.timeout(60)
def test_less_than_no_workers(work: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match="-1 workers are not possible"):
        work()


def changed(change: Callable[[ChangedTree], object]) -> Callable[[], object]:
    """Return a function that makes a change in a tree, which must be sound afterwards."""

    def run() -> None:
        disk = MemoryDisk(8 * MIB)
        make_ext(disk)
        with open_tree(disk, writable=True) as tree:
            tree.write("/file", b"contents")
            try:
                change(tree)
            finally:
                assert tree.list("/") == ["file", "lost+found"]
                assert tree.read("/file") == b"contents"

    return run


def entry(**wrong: object) -> Entry:
    fields = {"kind": stat.S_IFREG, "mode": 0o644, "uid": 0, "gid": 0, "mtime_ns": 0, "atime_ns": 0, "size": 0} | wrong
    return Entry(b"file", **fields)  # type: ignore[arg-type]


def filled(**wrong: object) -> Callable[[], object]:
    return lambda: populate(MemoryDisk(8 * MIB), [entry(**wrong)])


def added(**wrong: object) -> Callable[[], object]:
    return changed(lambda tree: tree.put([entry(**wrong)], "/lost+found"))


def of_store(change: Callable[[Store], object]) -> Callable[[], object]:
    def run() -> None:
        with open_qcow2_store(made("image")) as store:
            change(store)

    return run


BLOCK = memoryview(bytes(4096))
WRONG_ENTRIES: dict[str, dict[str, object]] = {
    "pieces that do not ascend": {"size": 8192, "contents": [(4096, BLOCK), (0, BLOCK)]},
    "pieces that overlap": {"size": 8192, "contents": [(0, BLOCK), (100, BLOCK)]},
    "a type that no file has": {"kind": stat.S_IFREG | stat.S_IFIFO | stat.S_IFDIR},
    "a type that is a mode": {"kind": 0o644},
    "a mode below zero": {"mode": -1},
    "a target with a null byte": {"kind": stat.S_IFLNK, "link": b"a\0b"},
}


def written(view: memoryview) -> Callable[[], object]:
    def run() -> None:
        with new_image("image", MIB, format="qcow2") as disk:
            Region(disk, 0, 1024).write(0, view)  # 1024 items of it would fit

    return run


def filling(view: memoryview) -> Callable[[], object]:
    def run() -> None:
        with new_image("image", MIB, format="qcow2") as disk:
            SourceRegion(disk, 0, 1024).read_into(0, view)

    return run


LARGE = 1 << 63
WRONG: dict[str, Callable[[], object]] = {
    "memory": lambda: MemoryDisk(LARGE),
    "memory below zero": lambda: MemoryDisk(-1),
    "more bytes than there are": lambda: read_bytes(MemoryDisk(512), 0, LARGE),
    "fewer bytes than none": lambda: read_bytes(MemoryDisk(512), 0, -1),
    "the table of a disk that is too large": lambda: plan_partition_table(LARGE, 512, [NewPartition(Content.LINUX)]),
    "the table of less than no disk": lambda: plan_partition_table(-1, 512, [NewPartition(Content.LINUX)]),
    "odd sectors": lambda: plan_partition_table(64 * MIB, 511, [NewPartition(Content.LINUX)]),
    "a table of another name": lambda: build_system(MemoryDisk(64 * MIB), [], SystemOptions(table="dos")),
    "differences without a unit": lambda: write_differences(MemoryDisk(MIB), None, MemoryDisk(MIB), unit=0),
    "differences of an odd unit": lambda: write_differences(MemoryDisk(MIB), None, MemoryDisk(MIB), unit=513),
    "a raw image that is too large": lambda: resize_image(raw(), lambda _: LARGE),
    "widths of counts": lambda: amend_image(made("image"), Amendment(refcount_bits=511)),
    "a negative width of counts": lambda: amend_image(made("image"), Amendment(refcount_bits=-1)),
    "a negative width of new counts": lambda: new_image("new", MIB, format="qcow2", refcount_bits=-1).__enter__(),
    "version 0": lambda: amend_image(made("image"), Amendment(version=0)),
    "version 4": lambda: amend_image(made("image"), Amendment(version=4)),
    "what a new image needs": lambda: measure(-1, format="qcow2"),
    "what another image needs": lambda: measure(MIB, format="vmdk"),
    "a bitmap with a null byte": of_store(lambda store: change_bitmaps(store, lambda maps: maps.add(b"a\0b", None))),
    "a snapshot before 1970": of_store(lambda store: take_snapshot(store, "old", now_ns=-1)),
    "a snapshot after 2106": of_store(lambda store: take_snapshot(store, "new", now_ns=LARGE)),
    "no directory": lambda: list(DirectoryReader(b"missing").entries()),
    "a directory without a name": lambda: list(DirectoryReader(b"").entries()),
    "an image without a name": lambda: open_image(""),
    "a disk without a name": lambda: open_disk(""),
    "an owner below zero": changed(lambda tree: tree.chown("/file", -1, 0)),
    "a group that is too large": changed(lambda tree: tree.chown("/file", 0, 1 << 32)),
    "a size below zero": changed(lambda tree: tree.truncate("/file", -1)),
    "a directory's mode": changed(lambda tree: tree.make_directory("/new", mode=-1)),
    "a directory's type": changed(lambda tree: tree.make_directory("/new", mode=0o100755)),
    "a target with a null byte": changed(lambda tree: tree.symlink("/new", "a\0b")),
    "an attribute with a null byte": changed(lambda tree: tree.set_attribute("/file", "user.a\0b", b"")),
    "an entry of less than no size": filled(size=-1),
    "an entry's owner": filled(uid=1 << 40),
    "an entry's group": filled(gid=-1),
    "an entry's contents": filled(size=10, contents=[(-5, b"contents")]),
    "an entry that is added": added(uid=1 << 40),
    **{
        f"{name} of an entry, {how}": use
        for name, wrong in WRONG_ENTRIES.items()
        for how, use in (("filled", filled(**wrong)), ("added", added(**wrong)))
    },
    "items that are written": written(memoryview(bytes(4096)).cast("I")),
    "items that are read": filling(memoryview(bytearray(4096)).cast("Q")),
}


def raw() -> str:
    Path("raw").write_bytes(bytes(MIB))
    return "raw"


@pytest.mark.parametrize("use", WRONG.values(), ids=WRONG)
def test_wrong_values(use: Callable[[], object]) -> None:
    with pytest.raises((DiskImageError, ValueError)) as refused:
        use()
    assert len(str(refused.value)) > len("math domain error"), "a sentence"
    for image in Path().glob("image"):
        with open_image(image, format="qcow2") as source:
            assert check_qcow2(source.file).corruptions == 0  # type: ignore[attr-defined]


@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_an_open_disk_is_a_source_of_differences(form: str) -> None:
    with new_image("one", 8 * MIB, format=form) as disk:
        disk.write(3 * MIB, b"contents")
    with (
        open_disk("one", format=form, writable=True) as source,
        new_image("other", source.size, format="qcow2") as target,
    ):
        source.write(5 * MIB, b"more")
        write_differences(source, None, target, unit=65536)
        assert compare(source, target).difference is None


@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_a_stream_into_its_own_image(form: str) -> None:
    with new_image("own", 8 * MIB, format=form) as disk:
        disk.write(3 * MIB, b"contents")
    before = Path("own").read_bytes()
    with open_image("own", format=form) as source, Path("own").open("r+b") as own:
        for part in (source, SourceRegion(source, 0, MIB)):
            for out in ("raw", "qcow2"):
                with pytest.raises(InUseError, match=r"is a file that own.* is read from; nothing was written"):
                    write_stream(part, own.fileno(), format=out)
        with Path("other").open("w+b") as other:
            write_stream(source, other.fileno())
    assert Path("own").read_bytes() == before
