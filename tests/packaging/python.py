# SPDX-License-Identifier: MIT
"""The source distribution and the wheel, built twice, and installed by pip on a bare Debian as README says."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.packaging.root import CHECKOUT, Root, fresh_root

# What README asks for where pip builds pyparted, and where Debian's own packages serve instead.
WITH_COMPILER = ("python3-venv", "python3-dev", "gcc", "libc6-dev", "pkg-config", "libparted-dev")
WITHOUT_COMPILER = ("python3-venv", "python3-parted", "python3-libarchive-c")
LIBARCHIVE = {"bookworm": "libarchive13", "trixie": "libarchive13t64"}

USE = """
import pydiskimg, sys
with pydiskimg.new_image("/tmp/library.qcow2", 64 << 20, format="qcow2") as disk:
    pydiskimg.make_ext(disk, label="root")
with pydiskimg.open_tree("/tmp/library.qcow2") as tree:
    assert list(tree.list("/"))
"""


@dataclass(frozen=True, slots=True)
class Distributions:
    """The two files that a release on a Python index consists of."""

    source: Path
    wheel: Path


def build(work: Path) -> Distributions:
    """Build both, twice; the files must be equal."""
    first, second = (_built(work / "dist", epoch="1767225600"), _built(work / "dist-again", epoch="1767225600"))
    for one, other in ((first.source, second.source), (first.wheel, second.wheel)):
        if one.read_bytes() != other.read_bytes():
            raise SystemExit(f"{one.name}: two builds differ")
    packages = {name.split("/")[0] for name in zipfile.ZipFile(first.wheel).namelist()}
    packages = {name for name in packages if not name.endswith((".dist-info", ".data"))}
    if packages != {"pydiskimg"}:
        raise SystemExit(f"{first.wheel.name}: found the packages {packages}; expected pydiskimg alone")
    unpacked = work / "source"  # what the Debian packages are built from
    shutil.rmtree(unpacked, ignore_errors=True)
    unpacked.mkdir()
    subprocess.run(["tar", "-xf", first.source, "-C", unpacked, "--strip-components=1", "--no-same-owner"], check=True)
    return first


def _built(target: Path, epoch: str) -> Distributions:
    shutil.rmtree(target, ignore_errors=True)
    environment = {
        **os.environ,
        "SOURCE_DATE_EPOCH": epoch,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    command = [sys.executable, "-m", "build", "--outdir", str(target), str(CHECKOUT)]
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    (source,) = target.glob("*.tar.gz")
    (wheel,) = target.glob("*.whl")
    return Distributions(source, wheel)


def check(work: Path, suite: str, distributions: Distributions) -> Iterator[str]:
    """Install the distributions in two fresh roots; yields what was done."""
    root = fresh_root(work, suite, f"{suite}-pip")
    root.install("ca-certificates", *WITH_COMPILER, LIBARCHIVE[suite])
    _install(root, distributions.source, options=[], extra="[fast]")
    yield "pip installed the source distribution; its command and library work"

    root = fresh_root(work, suite, f"{suite}-pip-debian")
    root.install(*WITHOUT_COMPILER)
    if root.run("sh", "-c", "command -v gcc cc").returncode == 0:
        raise SystemExit(f"{suite}: the root that was to have no compiler has one")
    _install(root, distributions.wheel, options=["--system-site-packages"], extra="")
    yield "pip installed the wheel over Debian's own packages, without a compiler and without the network"


def _install(root: Root, file: Path, options: list[str], extra: str) -> None:
    offline = file.suffix == ".whl"
    root.succeed("python3", "-m", "venv", *options, "/opt/venv")
    index = ["--no-index"] if offline else []
    shutil.copy(file, root.inside("/tmp"))
    root.succeed("/opt/venv/bin/pip", "install", "--quiet", *index, f"/tmp/{file.name}{extra}", network=not offline)
    root.succeed("/opt/venv/bin/python", "-c", USE, directory="/tmp")
    command = "/opt/venv/bin/pydiskimg"
    root.succeed(command, "create", "-f", "qcow2", "/tmp/new.qcow2", "64M")
    root.succeed(command, "convert", "-O", "raw", "/tmp/library.qcow2", "/tmp/library.raw")
    root.succeed(command, "compare", "/tmp/library.qcow2", "/tmp/library.raw")
    root.succeed(command, "partition", "create", "--label", "gpt", "/tmp/new.qcow2")
    if root.run("/opt/venv/bin/python", "-c", "import ganeti_os").returncode == 0:
        raise SystemExit(f"{file.name} brings ganeti_os; expected pydiskimg alone")
