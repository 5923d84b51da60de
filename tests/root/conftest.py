# SPDX-License-Identifier: MIT
"""What several tests need that run as root."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conftest import need
from tests.fixtures.programs import Tool
from tests.fixtures.read_errors import failing_file


@pytest.fixture
def failing(tool: Tool) -> Iterator[Callable[..., Path]]:
    """Give a function that makes a failing file of a file."""
    need(os.access("/dev/fuse", os.R_OK | os.W_OK), "needs /dev/fuse")
    daemon = tool("qemu-storage-daemon")
    with ExitStack() as opened:
        yield lambda path, *offsets: opened.enter_context(failing_file(path, offsets, daemon=daemon))
