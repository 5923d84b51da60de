# SPDX-License-Identifier: MIT
"""Results on standard output: JSON for programs, lines for people; messages on standard error."""

from __future__ import annotations

import sys

from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import TextIO

MARGIN = "    "


def message_text(text: str) -> str:
    """Return a message for printing: an argument that is not UTF-8 is shown with its bytes as \\xNN."""
    shown = _line(text)
    if "\\udc" in shown:  # repr() of such a name, which argparse puts into its messages
        for byte in range(0x80, 0x100):
            shown = shown.replace(f"\\udc{byte:02x}", f"\\x{byte:02x}")
    return shown


def tell(text: str) -> None:
    """Print a message. If that fails, neither the work nor the exit status changes."""
    from contextlib import suppress  # imported here: few commands print messages

    with suppress(OSError):
        print(f"pydiskimg: {message_text(text)}", file=sys.stderr)


def can_print(text: str, stream: TextIO) -> bool:
    """Tell whether the encoding of stream has all characters of text."""
    try:
        text.encode(stream.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def show(result: object, lines: Iterable[str], output: str) -> None:
    """Print the result as one JSON value, or the lines; both lazily, piece after piece."""
    if output == "json":
        for piece in json_pieces(result):
            sys.stdout.write(piece)
        sys.stdout.write("\n")
    else:
        for line in lines:
            print(_line(line))


def _line(text: str) -> str:
    if text.isprintable() and len(text) < 1 << 12:
        return text
    from pydiskimg.text import LINE, printable  # imported here: nearly all lines are printed unchanged

    return printable(text, limit=LINE)


def json_pieces(value: object, margin: str = "") -> Iterator[str]:
    """Yield value, of dict, iterables, str, int, bool and None, as JSON over several lines, in small pieces.

    The module json does the same and takes a millisecond or two to import.
    """
    if isinstance(value, str):
        yield _json_string(value)
    elif value is None or isinstance(value, bool):
        yield {None: "null", False: "false", True: "true"}[value]
    elif isinstance(value, int):
        yield str(value)
    elif isinstance(value, dict):
        yield from _json_items("{", ((f"{_json_string(name)}: ", item) for name, item in value.items()), "}", margin)
    elif hasattr(value, "__iter__"):
        yield from _json_items("[", (("", item) for item in value), "]", margin)
    else:
        raise TypeError(f"{value!r} has no form in JSON here")


def _json_items(start: str, items: Iterable[tuple[str, object]], end: str, margin: str) -> Iterator[str]:
    separator = start + "\n"
    for name, item in items:
        yield f"{separator}{margin}{MARGIN}{name}"
        yield from json_pieces(item, margin + MARGIN)
        separator = ",\n"
    yield start + end if separator.startswith(start) else f"\n{margin}{end}"


def in_qemus_order(value: object) -> object:
    """Return value with its names in qemu-img's order, for programs that compare its JSON as text."""
    if isinstance(value, dict):
        return {name: in_qemus_order(value[name]) for name in sorted(value, key=_bucket)}
    return map(in_qemus_order, value) if hasattr(value, "__iter__") and not isinstance(value, str) else value


def _bucket(name: str) -> int:
    """The bucket, of 512, of a name in QEMU's hash table (QDict)."""
    total = 0x238F13AF * len(name) + sum(byte << index * 5 % 24 for index, byte in enumerate(name.encode()))
    return (1103515243 * total + 12345) % (1 << 32) % 512


def nested_lines(value: dict[str, object], margin: str = "") -> Iterator[str]:
    """Yield value as `name: value` lines; nested values are indented."""
    for name, item in value.items():
        title = f"{margin}{name.replace('-', ' ')}:"
        if isinstance(item, dict):
            yield title
            yield from nested_lines(item, margin + MARGIN)
        elif hasattr(item, "__iter__") and not isinstance(item, str):
            yield title
            for index, entry in enumerate(item):
                yield from nested_lines({f"[{index}]": entry}, margin + MARGIN)
        else:
            yield f"{title} {word(item)}"


def word(value: object) -> str:
    """Return value in a form for people, as qemu-img prints it: true, false, or the value itself."""
    return ("false", "true")[value] if isinstance(value, bool) else str(value)


def _json_string(text: str) -> str:
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    import json

    return json.dumps(text)
