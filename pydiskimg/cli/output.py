# SPDX-License-Identifier: MIT
"""Results on standard output: JSON for programs, lines for people; messages on standard error."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

MARGIN = "    "


def add_output_option(parser: argparse.ArgumentParser) -> None:
    """Add --output human|json."""
    parser.add_argument("--output", choices=("human", "json"), default="human", help="form of the result")


def printable(text: str) -> str:
    """Show names from images and file systems without letting them speak to the terminal."""
    shown = text if text.isprintable() else "".join(map(_printable_character, text))
    return shown.encode("utf-8", "backslashreplace").decode("utf-8")


def tell(text: str) -> None:
    """Print a message. That nobody gets it changes neither what is done nor the exit status."""
    from contextlib import suppress  # only here: few commands have anything to tell

    with suppress(OSError):
        print(f"pydiskimg: {printable(text)}", file=sys.stderr)


def show(result: object, lines: Sequence[str], output: str) -> None:
    """Print the result as one JSON value, or the lines."""
    if output == "json":
        print(json_text(result))
    else:
        for line in lines:
            print(printable(line))


def json_text(value: object, margin: str = "") -> str:
    """Return value, of dict, list, str, int, bool and None, as JSON over several lines.

    The module json does the same and takes a millisecond or two to import.
    """
    inner = margin + MARGIN
    if isinstance(value, dict):
        items = [f"{_json_string(name)}: {json_text(item, inner)}" for name, item in value.items()]
        return _joined("{", items, "}", margin)
    if isinstance(value, (list, tuple)):
        return _joined("[", [json_text(item, inner) for item in value], "]", margin)
    if isinstance(value, str):
        return _json_string(value)
    if value is None or isinstance(value, bool):
        return {None: "null", False: "false", True: "true"}[value]
    if isinstance(value, int):
        return str(value)
    raise TypeError(f"{value!r} has no form in JSON here")


def nested_lines(value: dict[str, object], margin: str = "") -> Iterator[str]:
    """Yield value as `name: value` lines, what is inside of it further to the right."""
    for name, item in value.items():
        title = f"{margin}{name.replace('-', ' ')}:"
        if isinstance(item, (dict, list)):
            yield title
            inside = item if isinstance(item, dict) else {f"[{index}]": entry for index, entry in enumerate(item)}
            yield from nested_lines(inside, margin + MARGIN)
        else:
            yield f"{title} {word(item)}"


def word(value: object) -> str:
    """Return value as people read it: yes, no, or what it is."""
    return ("no", "yes")[value] if isinstance(value, bool) else str(value)


def _joined(start: str, items: list[str], end: str, margin: str) -> str:
    if not items:
        return start + end
    separator = f",\n{margin}{MARGIN}"
    return f"{start}\n{margin}{MARGIN}{separator.join(items)}\n{margin}{end}"


def _json_string(text: str) -> str:
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    import json

    return json.dumps(text)


def _printable_character(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()
