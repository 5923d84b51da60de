# SPDX-License-Identifier: MIT
"""The common forms of `convert`, understood without argparse: importing it takes as long as copying 30 MiB."""

from __future__ import annotations

from types import SimpleNamespace

from pydiskimg.images.formats import FORMATS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

_FLAGS = {"-c": "compress", "-n": "in_place", "-p": "progress", "-q": "quiet"}
WORKERS = tuple(str(number) for number in range(1, 17))
_IGNORED = ("-U", "-W")
CACHE_MODES = ("none", "writeback", "writethrough", "directsync", "unsafe")
_FORMAT_OPTIONS = {"-f": "format", "-O": "output_format"}


class UncommonError(Exception):
    """The words are wrong in some way, and argparse is to say in which."""


def common_form(words: Sequence[str]) -> SimpleNamespace:
    """Return what argparse would for SRC, DST and any of -c -n -p -q -U -W -t -T -f -O -m, in any order.

    Raises UncommonError when the words are anything else, right or wrong.
    """
    found = SimpleNamespace(
        format=None, output_format="raw", compress=False, image_options=None, in_place=False, workers=None,
        progress=False, quiet=False, snapshot=None, verify=False, allow_references=None, is_zero=False,
        sparse_unit=None, usage_error=_uncommon,
    )  # fmt: skip
    names = []
    rest = iter(words)
    for word in rest:
        if word in _FLAGS:
            setattr(found, _FLAGS[word], True)
        elif word in _FORMAT_OPTIONS:
            setattr(found, _FORMAT_OPTIONS[word], _one_of(tuple(FORMATS), next(rest, "")))
        elif word in _IGNORED:
            pass
        elif word in ("-t", "-T"):
            _one_of(CACHE_MODES, next(rest, ""))
        elif word == "-m":
            found.workers = int(_one_of(WORKERS, next(rest, "")))
        elif word.startswith("-") and word != "-":
            _uncommon()
        else:
            names.append(word)
    if len(names) != 2:
        _uncommon()
    found.source, found.destination = names
    return found


def _one_of(allowed: Sequence[str], word: str) -> str:
    if word not in allowed:
        _uncommon()
    return word


def _uncommon(*_: object) -> NoReturn:
    raise UncommonError
