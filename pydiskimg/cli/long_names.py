# SPDX-License-Identifier: MIT
"""Names that qemu-img 10 has for options which have only one name in 7.2."""

from __future__ import annotations

from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

_BACKING = {"--backing": "-b", "--backing-format": "-F", "--backing-unsafe": "-u"}
LISTED: dict[str, dict[str, str]] = {
    "amend": {"--cache": "-t", "--options": "-o", "--progress": "-p"},
    "bitmap": {"--source-file": "-b", "--source-format": "-F"},
    "check": {"--cache": "-T"},
    "commit": {"--base": "-b", "--cache": "-t", "--drop": "-d", "--progress": "-p", "--rate": "-r"},
    "compare": {"--a-format": "-f", "--b-format": "-F", "--cache": "-T", "--progress": "-p", "--strict": "-s"},
    "convert": {
        "--source-format": "-f",
        "--source-cache": "-T",
        "--source-image-opts": "--image-opts",
        "--snapshot": "-l",
        "--output-format": "-O",
        "--output-cache": "-t",
        "--options": "-o",
        "--sparse-size": "-S",
        "--rate": "-r",
        "--backing": "-B",
        "--backing-format": "-F",
        "--parallel": "-m",
        "--oob-writes": "-W",
        "--copy-range-offloading": "-C",
    },
    "create": {**_BACKING, "--format": "-f", "--options": "-o"},
    "dd": {"--output-format": "-O"},
    "info": {"-b": "--backing-chain"},
    "measure": {"--options": "-o", "--snapshot": "-l", "--target-format": "-O"},
    "rebase": {**_BACKING, "--backing-cache": "-T", "--cache": "-t", "--compress": "-c", "--progress": "-p"},
    "snapshot": {"--apply": "-a", "--create": "-c", "--delete": "-d", "--list": "-l"},
}
# Accepted, but not listed by --help: those that --help of qemu-img 10.0 names, but 10.0 refuses, and a third name.
UNLISTED: dict[str, dict[str, str]] = {
    "convert": {
        "--source-snapshot": "-l",
        "--target-format": "-O",
        "--target-cache": "-t",
        "--target-options": "-o",
        "--compress": "-c",
        "--no-create": "-n",
        "--progress": "-p",
    },
    "compare": {"--left-format": "-f", "--right-format": "-F"},
    "measure": {"-s": "--size"},
}


def add_long_names(command: str, parser: argparse.ArgumentParser) -> None:
    """Give the options of a subcommand of qemu-img the names that qemu-img 10 has, beside those of 7.2."""
    actions = parser._option_string_actions  # noqa: SLF001 - argparse has no other way to add a name later
    for name, known in LISTED.get(command, {}).items():
        actions[name] = actions[known]
        if name.startswith("--"):
            actions[known].option_strings = [*actions[known].option_strings, name]
        else:
            actions[known].option_strings = [name, *actions[known].option_strings]
    for name, known in UNLISTED.get(command, {}).items():
        actions[name] = actions[known]
