# SPDX-License-Identifier: MIT
"""The images that util-linux tests blkid with: what probe says of them, and whether they are overwritten unasked."""

from __future__ import annotations

import lzma
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from pydiskimg.errors import DiskImageError, FileSystemError
from pydiskimg.fs.probe import probe
from pydiskimg.images.open_disk import open_disk
from pydiskimg.partitions.read import read_partition_table
from tests.foreign.apart import all_apart, complaint, pydiskimg
from tests.foreign.outcomes import PASSED, Outcome

Part = tuple[str, str, str]
# What probe knows; of everything else it has to say nothing.
KNOWN = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "vfat", "swap", "swsuspend", "LVM2_member", "crypto_LUKS"})
SMALLEST = 64 << 10  # smaller images have what they are known by at their beginning; a swap area needs 40 KiB
_SECTOR = 512
_PARTITION = re.compile(r"#(\d+): +(\d+) +(\d+) +(0x[0-9a-f]+)")
_EXTENDED = ("0x5", "0xf", "0x85")


class Suite:
    def __init__(self, source: Path, cache: Path) -> None:
        self.tests = source / "tests"
        self.scratch = cache / "scratch"

    def outcomes(self, chosen: Callable[[str], bool], jobs: int) -> Iterator[Outcome]:
        inputs = [
            (path.name.removesuffix(".img.xz"), (path, self._expected(path)))
            for path in sorted((self.tests / "ts/blkid").glob("images-*/*.img.xz"))
        ]
        yield from all_apart("tests.foreign.util_linux", inputs, chosen, self.scratch, jobs)

    def _expected(self, image: Path) -> Path:
        """The file with what blkid, or libblkid's program that lists partitions, says of an image."""
        name = image.name.removesuffix(".img.xz")
        if image.parent.name == "images-pt":
            return self.tests / "expected/blkid" / f"lowprobe-pt-{name}"
        if "-multi-" in name:  # the numbers are sessions, of which blkid is asked one by one
            name = "-".join(word for word in name.split("-") if not word.isdigit()) + "-0"
        return self.tests / "expected/blkid" / f"low-probe-{name}"


def judge(packed: Path, expected: Path, scratch: Path) -> list[Part]:
    """Compare with what is expected of an image, and try to make a swap area over it."""
    image = scratch / "image"
    image.write_bytes(lzma.decompress(packed.read_bytes()))
    told = expected.read_text(errors="replace")
    first = table(image, told) if packed.parent.name == "images-pt" else signature(image, told)
    return [first, guard(image)]


def signature(image: Path, told: str) -> Part:
    values = dict(line.split("=", 1) for line in told.splitlines() if "=" in line)
    wanted = values.get("ID_FS_TYPE")
    if wanted not in KNOWN:
        wanted, values = None, {}
    try:
        with open_disk(image) as disk:
            kind = probe(disk)
    except FileSystemError as error:
        same = "ID_FS_AMBIVALENT" in told
        return ("probe", PASSED if same else "probe", str(error))
    label = values.get("ID_FS_LABEL_ENC")
    expected = (wanted, values.get("ID_FS_UUID"), decoded(label) if label else None)
    found = (kind.type, kind.uuid, kind.label) if kind else (None, None, None)
    return ("probe", PASSED if found == expected else "probe", f"expected {expected}, got {found}")


def decoded(text: str) -> str:
    r"""Return a value of udev's with \xNN for bytes, as probe shows labels."""
    raw = re.sub(rb"\\x([0-9a-f]{2})", lambda match: bytes([int(match[1], 16)]), text.encode())
    shown = raw.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in shown)


def table(image: Path, told: str) -> Part:
    """Compare partitions; of tables other than MBR and GPT, and of disklabels inside MBR's, nothing is to be listed."""
    ours = re.search(r"PT: (?:gpt|dos),", told)
    lines = [line for line in told.splitlines() if ours and "(freebsd)" not in line]
    wanted = [match.groups() for line in lines if (match := _PARTITION.match(line)) and match[4] not in _EXTENDED]
    expected = [(int(number), int(start), int(length)) for number, start, length, _ in wanted]
    try:
        with open_disk(image) as disk:
            found = [
                (item.number, item.start // _SECTOR, item.length // _SECTOR) for item in read_partition_table(disk)
            ]
    except DiskImageError as error:
        return ("table", "table", str(error))
    return ("table", PASSED if found == expected else "table", f"expected {expected}, got {found}")


def guard(image: Path) -> Part:
    """See whether mkswap refuses to overwrite an image, as mkfs does in the same way, which wants 8 MiB of room."""
    if image.stat().st_size < SMALLEST:
        os.truncate(image, SMALLEST)
    before = image.read_bytes()
    done = pydiskimg("mkswap", image)
    if done.returncode == 0:
        return ("guard", "overwritten", "")
    if image.read_bytes() != before:
        return ("guard", "overwritten", f"and refused: {done.stderr}")
    fault = complaint(done) or (None if "use --force" in done.stderr else done.stderr.strip())
    return ("guard", "refusal" if fault else PASSED, fault or done.stderr.strip())
