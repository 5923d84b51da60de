# SPDX-License-Identifier: MIT
"""Results on standard output: JSON for programs, lines for people."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence


def add_output_option(parser: argparse.ArgumentParser) -> None:
    """Add --output human|json."""
    parser.add_argument("--output", choices=("human", "json"), default="human", help="form of the result")


def printable(text: str) -> str:
    """Show names from images and file systems without letting them speak to the terminal."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return shown.encode("utf-8", "backslashreplace").decode("utf-8")


def show(result: Mapping[str, object], lines: Sequence[str], output: str) -> None:
    """Print the result as one JSON object, or the lines."""
    if output == "json":
        print(json.dumps(result, indent=4, ensure_ascii=True))
    else:
        for line in lines:
            print(printable(line))
