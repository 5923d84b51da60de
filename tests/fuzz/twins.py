# SPDX-License-Identifier: MIT
"""The same commands by pydiskimg and by qemu-img, on twin images: python -m tests.fuzz.twins --sequences 1000

Each sequence makes images, chains of them, snapshots, bitmaps, external data files and copies at random, in two
directories. After each command the images that it changed must be the same to a guest, in `info` and in size, with the
same bits in their bitmaps, and without an error to qemu-img check; and both programs must say the same of ours by map
and measure.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydiskimg.images.qcow2.header import read_header
from tests.fixtures.bitmap_models import bits_of
from tests.fixtures.both_programs import Said, by_pydiskimg, by_qemu_img, with_fields_of
from tests.fixtures.qcow2_images import BytesSource

SECTOR = 512
LARGEST = 3 << 20
NAMES = ("a", "b", "c", "d")
TAKE_REFERENCES = ("amend", "commit", "compare", "convert", "dd", "map", "measure", "rebase", "resize")

_OF_SNAPSHOTS = ("date-sec", "date-nsec")  # when each was taken


class Twins:
    """Two directories with the same images; rng chooses what is done. done counts the commands by name."""

    def __init__(self, directory: Path, rng: random.Random) -> None:
        self.ours, self.theirs = directory / "ours", directory / "theirs"
        for path in (self.ours, self.theirs):
            path.mkdir()
        self.rng = rng
        self.done: Counter[str] = Counter()
        self.log: list[str] = []
        self.resized: set[str] = set()  # info does not tell that a snapshot has another size
        self._infos: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {}
        self.copied: set[str] = set()  # by commands that each program does in pieces of its own, which bitmaps record

    def step(self) -> None:
        """Do one command in both, and compare."""
        images = self.images()
        choices: list[Callable[[dict[str, Any]], None]] = [self.create]
        if images:
            choices += [self.create, self.write, self.convert, self.convert, self.resize, self.snapshot, self.snapshot]
            choices += [self.rebase] + [self.commit, self.commit, self.rebase] * 3 * bool(self._chained(images))
            choices += [self.bitmap, self.bitmap, self.amend, self.dd, self.miscount]
        self.rng.choice(choices)(images)

    def images(self) -> dict[str, Any]:
        """What there is, by name, as qemu-img tells it of the twin that it made."""
        with _inside(self.theirs):
            return {name: self._known(name) for name in NAMES if Path(name).exists()}

    def _known(self, name: str) -> dict[str, Any]:
        """The info of an image, asked for once as long as its file stays the same."""
        status = Path(name).stat()
        key = status.st_ino, status.st_mtime_ns, status.st_size
        if self._infos.get(name, ((), {}))[0] != key:
            self._infos[name] = key, _info(name)
        return copy.deepcopy(self._infos[name][1])

    def create(self, images: dict[str, Any]) -> None:
        name, form = self._new_name(images) or NAMES[0], self.rng.choice(("raw", "qcow2", "qcow2", "qcow2"))
        words = ["-q", "-f", form]
        size = [str(self._size())]
        base = self._other(images, name)
        if form == "qcow2":
            words += self._options(name)
            if base is not None and self.rng.random() < 0.8:
                words += ["-b", base, "-F", images[base]["format"]]
                size = self.rng.choice(([], size))
        self._both("create", *words, name, *size, new=name)
        self._compare(name)

    def write(self, images: dict[str, Any]) -> None:
        """Change a guest's disk, by QEMU in both directories."""
        name = self.rng.choice(sorted(images))
        self._forget_overlays(images, name)
        size = images[name]["virtual-size"]
        commands: list[str] = []
        for _ in range(self.rng.randrange(1, 4) if size else 0):
            start = self.rng.randrange(size // SECTOR) * SECTOR
            length = min(size - start, self.rng.randrange(1, 600) * SECTOR)
            what = self.rng.choice(("write -z", "write -P 1", f"write -P {self.rng.randrange(2, 255)}"))
            commands += ["-c", f"{what} {start} {length}"]
        for directory in (self.ours, self.theirs):
            with _inside(directory):
                _qemu_io("-f", images[name]["format"], *commands, name)
        self._compare(name)

    def convert(self, images: dict[str, Any]) -> None:
        source = self.rng.choice(sorted(images))
        target = self._new_name(images, but=self._chain(images, source))
        if target is None:
            return
        form = self.rng.choice(("raw", "qcow2", "qcow2"))
        words = ["-f", images[source]["format"], "-O", form]
        sources = [source]
        if form == "qcow2":
            words += self._options(target) + self.rng.choice(([], [], ["-c"]))
            words += ["--bitmaps"] if _bitmaps(images[source]) and self.rng.random() < 0.5 else []
        kind = self.rng.randrange(5)
        base = images[source].get("backing-filename")
        snapshots = images[source].get("snapshots", ()) if source not in self.resized else ()
        if kind == 0 and form == "qcow2" and base is not None and target not in self._chain(images, base):
            words += ["-B", base, "-F", images[base]["format"]]
        elif kind == 1 and snapshots:
            words += ["-l", self.rng.choice(snapshots)["name"]]
        elif kind == 2 and "-c" not in words:
            words += ["-S", self.rng.choice(("0", "512", "4k", "64k"))]
        elif kind == 3 and base is None:
            sources.append(source)
        self._forget_overlays(images, target)
        self._both("convert", *words, *sources, target, new=target)
        self._compare(target)

    def resize(self, images: dict[str, Any]) -> None:
        name = self.rng.choice(sorted(images))
        size = self._size()
        smaller = size < images[name]["virtual-size"]
        words = ["-q", "-f", images[name]["format"]]
        if smaller:
            words += self.rng.choice((["--shrink"], ["--shrink"], []))
        elif images[name]["format"] == "qcow2" and "backing-filename" not in images[name]:
            words += [f"--preallocation={self.rng.choice(('off', 'off', 'metadata', 'falloc', 'full'))}"]
        elif "backing-filename" in images[name] and images[name]["format-specific"]["data"]["compat"] == "0.10":
            return  # QEMU cannot hide the longer backing file of an image of version 2
        self._forget_overlays(images, name)
        self._both("resize", *words, name, str(size))
        self.resized.add(name)
        self._compare(name)

    def snapshot(self, images: dict[str, Any]) -> None:
        candidates = [name for name in sorted(images) if images[name]["format"] == "qcow2"]
        if not candidates:
            return
        name = self.rng.choice(candidates)
        snapshots = [found["name"] for found in images[name].get("snapshots", ())]
        if not snapshots or self.rng.random() < 0.4:
            words = ["-c", self.rng.choice((f"s{self.rng.randrange(1000)}", str(self.rng.randrange(9))))]
        else:
            words = [self.rng.choice(("-a", "-d")), self.rng.choice(snapshots)]
        self._forget_overlays(images, name)
        self._both("snapshot", *words, name)
        self._compare(name)

    def commit(self, images: dict[str, Any]) -> None:
        candidates = self._chained(images)
        if not candidates:
            return
        name = self.rng.choice(candidates)
        chain = self._chain(images, name)
        words = self.rng.choice(([], ["-d"], ["-b", self.rng.choice(chain[1:])]))
        for below in chain[1:]:
            self._forget_overlays(images, below, but=chain)
        self._forget_overlays(images, name)
        self._both("commit", "-q", *words, name)
        self.copied.update(chain)
        self.resized.update(chain)  # a smaller base has become larger
        if words:  # what is not emptied shows other files that have changed
            for above in chain if len(words) > 1 else chain[:1]:
                if above not in chain[1:] or (len(words) > 1 and above != words[1]):
                    self._remove(above)
        for image in chain[::-1]:
            if (self.ours / image).exists() and all((self.ours / below).exists() for below in self._below(image)):
                self._compare(image)

    def rebase(self, images: dict[str, Any]) -> None:
        candidates = [name for name in sorted(images) if images[name]["format"] == "qcow2"]
        if not candidates:
            return
        name = self.rng.choice(candidates)
        base = self._other(images, name)
        words = ["-b", ""]
        if base is not None and self.rng.random() < 0.7:
            words = ["-b", base, "-F", images[base]["format"]]
        elif "backing-filename" not in images[name]:
            return
        if "backing-filename" not in images[name] or images[name].get("snapshots"):
            return
        self._both("rebase", "-f", "qcow2", *words, name)
        self.copied.add(name)
        self._compare(name)

    def bitmap(self, images: dict[str, Any]) -> None:
        qcow2 = [name for name in sorted(images) if images[name]["format"] == "qcow2"]
        candidates = [name for name in qcow2 if images[name]["virtual-size"]]  # of no bytes, QEMU loses them
        if not candidates:
            return
        name = self.rng.choice(candidates)
        there = _bitmaps(images[name])
        if not there or self.rng.random() < 0.4:
            words = ["--add", *self.rng.choice(([], ["-g", "512"], ["-g", "64k"], ["--disable"]))]
            bitmap = f"b{self.rng.randrange(5)}"
        else:
            bitmap = self.rng.choice(there)
            actions = (["--remove"], ["--clear"], ["--enable"], ["--disable"], ["--merge", self.rng.choice(there)])
            words = self.rng.choice(actions)
        self._both("bitmap", "-f", "qcow2", *words, name, bitmap)
        self._compare(name)

    def amend(self, images: dict[str, Any]) -> None:
        candidates = [name for name in sorted(images) if images[name]["format"] == "qcow2"]
        if not candidates:
            return
        name = self.rng.choice(candidates)
        # Of which QEMU loses the bitmaps, and wants memory for the L1 table of a snapshot of no bytes.
        is_odd = _bitmaps(images[name]) or (images[name].get("snapshots") and not images[name]["virtual-size"])
        older = [] if is_odd else ["compat=0.10"]
        option = self.rng.choice((*older, "compat=1.1", "lazy_refcounts=on", "lazy_refcounts=off"))
        if self.rng.random() < 0.5:
            option = f"refcount_bits={self.rng.choice((2, 16, 64))}"
        self._both("amend", "-q", "-f", "qcow2", "-o", option, name)
        self._compare(name)

    def dd(self, images: dict[str, Any]) -> None:
        source = self.rng.choice(sorted(images))
        target = self._new_name(images, but=self._chain(images, source))
        if target is None:
            return
        words = ["-f", images[source]["format"], "-O", self.rng.choice(("raw", "qcow2"))]
        words += [f"bs={self.rng.choice((512, 4096, 10240, 65536))}", *self.rng.choice(([], ["count=20"], ["skip=3"]))]
        self._both("dd", *words, f"if={source}", f"of={target}", new=target)
        self._compare(target)

    def miscount(self, images: dict[str, Any]) -> None:
        """Count the header too often in both, and repair that.

        Of an image with bitmaps and snapshots, QEMU 7.2 loses the snapshots in that.
        """
        candidates = [
            name
            for name in sorted(images)
            if _refcount_bits(images[name]) >= 8 and not (_bitmaps(images[name]) and images[name].get("snapshots"))
        ]
        if not candidates:
            return
        name, count = self.rng.choice(candidates), self.rng.choice((2, 3, 200))
        for directory in (self.ours, self.theirs):
            _count_header(directory / name, count)
        words = ["-r", self.rng.choice(("leaks", "all"))]
        self._both("check", "-q", "-f", "qcow2", *words, name)
        self._compare(name)

    def _both(self, command: str, *words: str, new: str | None = None) -> None:
        """Run the command in both; the status must be 0 in both or in none; a failed qemu-img leaves a new file."""
        self.log.append(" ".join((command, *(word or "''" for word in words))))
        self.done[command] += 1
        extra = ["--allow-references", "."] if command in TAKE_REFERENCES else []
        with _inside(self.theirs):
            theirs = by_qemu_img(command, *words)
        with _inside(self.ours):
            ours = by_pydiskimg(command, *extra, *words)
        assert "Traceback" not in ours.err, self._told(ours.err)
        assert bool(ours.status) == bool(theirs.status), self._told(f"{ours.status} {ours.err} / {theirs}")
        if new is not None and theirs.status:
            self._remove(new)

    def _compare(self, name: str) -> None:
        """Compare an image and what both programs say of it."""
        with _inside(self.theirs):
            if not Path(name).exists():
                assert not (self.ours / name).exists(), self._told(f"{name} is ours only")
                return
            expected = _info(name)
        with _inside(self.ours):
            found = _info(name)
            assert _comparable(found) == _comparable(expected), self._told(f"{found} / {expected}")
            form = found["format"]
            if form == "qcow2":
                checked = by_qemu_img("check", "-q", "-f", form, name)
                assert checked.status == 0, self._told(f"check {name}: {checked}")
                assert by_pydiskimg("check", "-q", "-f", form, name).status == 0, self._told(f"check {name}")
            self._same_words("map", "-f", form, "--output=json", name)
            self._same_words("measure", "-f", form, "--output=json", "-O", self.rng.choice(("raw", "qcow2")), name)
            said = by_pydiskimg("info", "-f", form, "--output=json", name)
            assert said.status == 0, self._told(f"info: {said}")
            assert _comparable(_parsed(said)) == _comparable(found), self._told(f"info: {said.out} / {found}")
        if form == "qcow2" and name not in self.copied:
            ours, theirs = (bits_of((directory / name).read_bytes()) for directory in (self.ours, self.theirs))
            assert ours == theirs, self._told(f"bitmaps of {name}: {ours} / {theirs}")
        with _inside(self.theirs):  # QEMU looks for a data file in the current directory
            assert by_qemu_img("convert", "-f", form, "-O", "raw", name, f"{name}.shown").status == 0, self._told(name)
        with _inside(self.ours):
            compared = by_qemu_img("compare", "-f", form, "-F", "raw", name, self.theirs / f"{name}.shown")
        assert compared.status == 0, self._told(f"{name}: {compared}")

    def _same_words(self, command: str, *words: str) -> None:
        """Both programs say the same of our image."""
        extra = ["--allow-references", "."] if command in TAKE_REFERENCES else []
        theirs, ours = by_qemu_img(command, *words), by_pydiskimg(command, *extra, *words)
        assert ours.status == theirs.status == 0, self._told(f"{command}: {ours} / {theirs}")
        expected, found = _parsed(theirs), _parsed(ours)
        if command == "map":
            found = with_fields_of(expected, found)
        assert found == expected, self._told(f"{command} {words}: {ours.out} / {theirs.out}")

    def _told(self, what: str) -> str:
        return f"{what}\nafter: " + "\n       ".join(self.log)

    def _size(self) -> int:
        return self.rng.choice((0, SECTOR, 1 << 20, self.rng.randrange(LARGEST // SECTOR) * SECTOR, LARGEST))

    def _options(self, name: str) -> list[str]:
        """Options of a new image of this name."""
        options = [f"cluster_size={self.rng.choice(('512', '4k', '16k', '64k'))}"]
        options += self.rng.choice(([], [], ["compat=0.10"], [f"refcount_bits={self.rng.choice((2, 8, 64))}"]))
        if options[0] in ("cluster_size=16k", "cluster_size=64k") and len(options) == 1:
            options += self.rng.choice(([], ["extended_l2=on"], ["compression_type=zstd"]))
        if "compat=0.10" not in options:
            options += self.rng.choice(([], [], [], ["lazy_refcounts=on"]))
            data_file = f"data_file={name}.data"
            options += self.rng.choice(([], [], [], [], [data_file], [data_file, "data_file_raw=on"]))
        options += self.rng.choice(([], [], [], ["preallocation=metadata"], ["preallocation=falloc"]))
        return ["-o", ",".join(options)]

    def _new_name(self, images: dict[str, Any], but: Sequence[str] = ()) -> str | None:
        """A name for a new image, that no image of the names in but stands on; None where there is none."""
        free = [name for name in NAMES if name not in images]
        names = free if free and self.rng.random() < 0.8 else [name for name in NAMES if name not in but]
        if not names:
            return None
        name = self.rng.choice(names)
        self._forget_overlays(images, name)
        self.resized.discard(name)
        self.copied.discard(name)
        return name

    def _other(self, images: dict[str, Any], name: str) -> str | None:
        """An image that name may stand on, if there is one."""
        candidates = [other for other in sorted(images) if name not in self._chain(images, other)]
        return self.rng.choice(candidates) if candidates else None

    def _chain(self, images: dict[str, Any], name: str) -> list[str]:
        chain: list[str] = []
        below: str | None = name
        while below is not None and below in images:
            chain.append(below)
            below = images[below].get("backing-filename")
        return chain

    def _chained(self, images: dict[str, Any]) -> list[str]:
        return [name for name in sorted(images) if images[name].get("backing-filename") in images]

    def _below(self, name: str) -> list[str]:
        return self._chain(self.images(), name)[1:]

    def _forget_overlays(self, images: dict[str, Any], name: str, but: Sequence[str] = ()) -> None:
        """Remove what stands on name, which changes: how much of it an overlay stores itself is each program's."""
        for other in sorted(images):
            if other != name and name in self._chain(images, other) and other not in but:
                self._remove(other)
        for other in [other for other in images if not (self.theirs / other).exists()]:
            del images[other]

    def _remove(self, name: str) -> None:
        for directory in (self.ours, self.theirs):
            (directory / name).unlink(missing_ok=True)
            (directory / f"{name}.data").unlink(missing_ok=True)


@contextmanager
def _inside(directory: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(directory)
    try:
        yield
    finally:
        os.chdir(before)


def _info(name: str) -> dict[str, Any]:
    said = by_qemu_img("info", "--output=json", *(["-f", "raw"] if not _is_qcow2(name) else []), name)
    assert said.status == 0, said
    found: dict[str, Any] = json.loads(said.out)
    return found


def _is_qcow2(name: str) -> bool:
    with open(name, "rb") as file:
        return file.read(4) == b"QFI\xfb"


def _bitmaps(info: dict[str, Any]) -> list[str]:
    data = info.get("format-specific", {}).get("data", {})
    return [bitmap["name"] for bitmap in data.get("bitmaps", ())]


def _refcount_bits(info: dict[str, Any]) -> int:
    """Of a qcow2 image; 0 of another one."""
    if info["format"] != "qcow2":
        return 0
    bits: int = info["format-specific"]["data"].get("refcount-bits", 16)
    return bits


def _count_header(path: Path, count: int) -> None:
    """Count the first cluster of the image, its header, so often."""
    with path.open("r+b") as file:
        header = read_header(BytesSource(file.read()))
        file.seek(header.refcount_table_offset)
        block = int.from_bytes(file.read(8), "big")
        file.seek(block)
        file.write(count.to_bytes(header.refcount_bits // 8, "big"))


def _comparable(info: dict[str, Any]) -> dict[str, Any]:
    found = {key: value for key, value in info.items() if key != "actual-size"}
    for snapshot in found.get("snapshots", ()):
        for key in _OF_SNAPSHOTS:
            snapshot.pop(key, None)
    return found


def _parsed(said: Said) -> Any:
    return json.loads(said.out)


def _qemu_io(*words: str) -> None:
    import subprocess

    subprocess.run(["qemu-io", *words], capture_output=True, check=True)


def run_sequence(directory: Path, rng: random.Random, *, steps: int) -> Twins:
    """Do that many commands; raises AssertionError, with all of them, at the first difference."""
    twins = Twins(directory, rng)
    for _ in range(steps):
        twins.step()
    return twins


def main() -> int:
    """Run as many sequences as the command line asks for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sequences", type=int, default=100)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=1e9)
    arguments = parser.parse_args()
    done: Counter[str] = Counter()
    failed, end = [], time.monotonic() + arguments.seconds
    for seed in range(arguments.first, arguments.first + arguments.sequences):
        if time.monotonic() > end:
            break
        directory = Path(tempfile.mkdtemp(prefix="twins"))
        try:
            done += run_sequence(directory, random.Random(seed), steps=arguments.steps).done
            done["sequences"] += 1
            if done["sequences"] % 20 == 0:
                sys.stderr.write(f"{dict(done)}\n")
        except AssertionError as error:
            failed.append(seed)
            sys.stdout.write(f"seed {seed}: {str(error)[:3000]}\n")
        finally:
            shutil.rmtree(directory)
    sys.stdout.write(f"{dict(done)}; failed: {failed}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
