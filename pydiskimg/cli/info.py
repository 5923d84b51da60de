# SPDX-License-Identifier: MIT
"""pydiskimg info: what an image is, with the field names of `qemu-img info --output=json`."""

from __future__ import annotations

import argparse
import os
from typing import Any

from pydiskimg.cli.output import add_output_option, show
from pydiskimg.formats.qcow2.reader import Qcow2Source
from pydiskimg.image import open_image
from pydiskimg.protocols import ImageSource
from pydiskimg.units import format_bytes, format_size


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "info", help="describe an image", description="Tell the format, the sizes and the features of an image."
    )
    parser.add_argument("-f", dest="format", choices=("raw", "qcow2"), help="format (default: by the contents)")
    add_output_option(parser)
    parser.add_argument("file", metavar="FILE")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Describe the image that the arguments name."""
    with open_image(arguments.file, format=arguments.format) as source:
        facts = _facts(source, arguments.file)
    show(facts, _lines(facts), arguments.output)


def _facts(source: ImageSource, path: str) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "virtual-size": source.size,
        "filename": path,
        "format": source.format,
        "actual-size": os.stat(path).st_blocks * 512,
        "dirty-flag": False,
    }
    if isinstance(source, Qcow2Source):
        header = source.header
        data = {
            "compat": "1.1" if header.version == 3 else "0.10",
            "compression-type": header.compression_type,
            "refcount-bits": 1 << header.refcount_order,
        }
        if header.version == 3:
            data |= {"lazy-refcounts": bool(header.compatible_features & 1), "corrupt": False, "extended-l2": False}
        facts["cluster-size"] = header.cluster_size
        facts["dirty-flag"] = bool(header.incompatible_features & 1)
        facts["format-specific"] = {"type": "qcow2", "data": data}
    return facts


def _lines(facts: dict[str, Any]) -> list[str]:
    lines = [
        f"image: {facts['filename']}",
        f"file format: {facts['format']}",
        f"virtual size: {format_bytes(facts['virtual-size'])}",
        f"disk size: {format_size(facts['actual-size'])}",
    ]
    if "cluster-size" in facts:
        lines.append(f"cluster size: {facts['cluster-size']} bytes")
        lines += [f"{name}: {_word(value)}" for name, value in facts["format-specific"]["data"].items()]
    if facts["dirty-flag"]:
        lines.append("dirty: yes (the reference counts need a repair; reading is not affected)")
    return lines


def _word(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
