# SPDX-License-Identifier: MIT
"""Sizes on the command line."""

from __future__ import annotations

import argparse

from pydiskimg.units import parse_size


def size_argument(text: str) -> int:
    """Return the bytes that text names, as a type for argparse: what is no size ends in wrong usage."""
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
