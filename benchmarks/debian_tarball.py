# SPDX-License-Identifier: MIT
"""The command line of benchmarks that begin with a whole Debian in a tarball."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.fixtures.bootable_debian import DEBIAN_12, bootable_debian, packed


@contextmanager
def debian_tarball(description: str) -> Iterator[tuple[Path, Path, int]]:
    """Give the tarball, a directory that goes with the context, in memory unless told, and the number of rounds."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--directory", type=Path, default=Path("/dev/shm"))
    parser.add_argument("archive", type=Path, nargs="?")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.directory) as name:
        work = Path(name)
        archive = arguments.archive or packed(bootable_debian(work / "debian", DEBIAN_12))
        yield archive.resolve(), work, arguments.rounds
