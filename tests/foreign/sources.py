# SPDX-License-Identifier: MIT
"""Debian's source packages, fetched by apt-get into a cache; the machine's own lists of sources are only read."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

# The parts of a source package that its suite needs; the rest is not kept.
KEPT = {
    "qemu": ("tests/qemu-iotests", "python"),
    "e2fsprogs": ("tests",),
    "libarchive": ("libarchive/test", "tar/test", "cpio/test"),
    "util-linux": ("tests/ts/blkid", "tests/expected/blkid"),
}
_FETCH_SECONDS = 600


def source(package: str, cache: Path) -> Path:
    """Return the directory of a source package's kept parts below cache, fetched when it is not there yet."""
    kept = cache / package
    if not kept.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix="fetch-") as work:
            whole = _fetched(package, Path(work))
            part = Path(work) / "kept"
            for name in KEPT[package]:
                if (whole / name).exists():
                    shutil.move(whole / name, _made(part / name))
            (part / "VERSION").write_text(next(Path(work).glob("*.dsc")).stem + "\n")
            part.rename(kept)
    return kept


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _fetched(package: str, work: Path) -> Path:
    """Fetch and unpack a source package below work, with lists of its own and the machine's keys and mirrors."""
    parts, lists = work / "parts", work / "lists"
    (lists / "partial").mkdir(parents=True)
    parts.mkdir()
    write_source_parts(parts, Path("/etc/apt"))
    places = {
        "Dir::Etc::sourcelist": "/dev/null",
        "Dir::Etc::sourceparts": f"{parts}/",
        "Dir::State::lists": f"{lists}/",
        "Dir::Cache::pkgcache": "",
        "Dir::Cache::srcpkgcache": "",
        "APT::Sandbox::User": "root",  # _apt cannot write below work
    }
    apt = ["apt-get", "-qq", *(word for key, value in places.items() for word in ("-o", f"{key}={value}"))]
    _run([*apt, "update"], work)
    _run([*apt, "source", "--download-only", package], work)
    _run(["dpkg-source", "--no-check", "-x", str(next(work.glob("*.dsc"))), "source"], work)
    return work / "source"


def _run(command: list[str], work: Path) -> None:
    done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False, timeout=_FETCH_SECONDS)
    if done.returncode:
        raise SystemExit(f"tests.foreign: {' '.join(command[:1] + command[-2:])} failed: {done.stderr.strip()}")


def write_source_parts(parts: Path, apt: Path) -> None:
    """Write into the directory parts what apt, such as /etc/apt, lists, as sources of source packages."""
    for path in [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*"))]:
        if path.suffix not in (".list", ".sources") or not path.is_file():
            continue
        convert = source_stanzas if path.suffix == ".sources" else source_lines
        (parts / path.name).write_text(convert(path.read_text()))


def source_lines(text: str) -> str:
    """Return the one-line entries of text as deb-src entries, each once."""
    found = (re.match(r"\s*deb(?:-src)?\s+(\S.*)", line) for line in text.splitlines())
    entries = dict.fromkeys(match[1].strip() for match in found if match)
    return "".join(f"deb-src {entry}\n" for entry in entries)


def source_stanzas(text: str) -> str:
    """Return the deb822 stanzas of text with the type deb-src."""
    return re.sub(r"(?im)^Types:.*(?:\n[ \t].*)*", "Types: deb-src", text)
