# SPDX-License-Identifier: MIT
"""Options of qemu-img convert that are refused in a sentence, and -S."""

from __future__ import annotations

import argparse

from pydiskimg.cli.arguments import size_argument
from pydiskimg.cli.image_options import NO_BACKING
from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.units import format_size

if TYPE_CHECKING:
    from typing import Any, NoReturn

_SECTOR = 512
_LARGEST_RUN = 16 << 20  # qemu-img's limit
_LARGEST_UNIT = 2 << 20  # in which zeros are looked for

_REFUSED = {
    "-B": ("FILE", NO_BACKING),
    "-F": ("FORMAT", NO_BACKING),
    "-r": ("RATE", "no rate is kept to; limit what the process may read and write, for example with: systemd-run -p"),
    "-s": ("SNAPSHOT", "a snapshot is chosen by -l"),
    "--object": ("OBJECT", "no secrets are taken, since encrypted images are not read"),
}
_REFUSED_FLAGS = {
    "--salvage": "bytes that cannot be read are an error",
    "--image-opts": "images are named by their path",
    "--target-image-opts": "images are named by their path",
}


def add_refused_options(parser: argparse.ArgumentParser) -> None:
    """Add what qemu-img has, and what is refused with the reason rather than as unknown."""
    for option, (value, reason) in _REFUSED.items():
        parser.add_argument(option, dest="ignored", type=_refusal(reason), metavar=value, help=argparse.SUPPRESS)
    for option, reason in _REFUSED_FLAGS.items():
        parser.add_argument(option, dest=reason, action=_RefusedFlag, help=argparse.SUPPRESS)


def sparse_unit(text: str) -> int:
    """Return the unit (bytes) for copy() that -S asks for."""
    size = size_argument(text)
    if not size:
        raise argparse.ArgumentTypeError("zeros are never written out: a copy is sparse where it can be")
    if size % _SECTOR or size > _LARGEST_RUN:
        raise argparse.ArgumentTypeError(f"{text} is not a multiple of 512 bytes up to {format_size(_LARGEST_RUN)}")
    return min(1 << size.bit_length() - 1, _LARGEST_UNIT)


def _refusal(reason: str) -> Any:
    def refuse(_: str) -> NoReturn:
        raise argparse.ArgumentTypeError(reason)

    return refuse


class _RefusedFlag(argparse.Action):
    """Ends with the reason, which is the dest."""

    def __init__(self, option_strings: list[str], dest: str, help: str | None = None) -> None:  # noqa: A002
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, help=help)

    def __call__(self, *_: object) -> NoReturn:
        raise argparse.ArgumentError(self, self.dest)
