# SPDX-License-Identifier: MIT
"""Images that are described instead of named: --image-opts driver=qcow2,file.filename=X and json:{...}.

    {"driver": "qcow2", "file": {"driver": "file", "filename": "X"}, "backing": {...}}

These are QEMU's block device options for raw and qcow2 in files and devices. The user of the command line describes
them, so the files that they name are opened; a json: name inside an image is refused like any protocol.
"""

from __future__ import annotations

import re

from pydiskimg.cli.arguments import require_name
from pydiskimg.cli.image_options import split_options
from pydiskimg.errors import UnsupportedImageError
from pydiskimg.images import FORMATS, PROTOCOLS
from pydiskimg.linux.blockdev import is_block_device
from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.units import parse_size

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

JSON = "json:"
_DEEPEST = 40  # levels of a description; chains of images are shorter
_SECTOR = 512
_STRING = re.compile(r"""(?s)"(?:[^"\\]|\\.)*"|'((?:[^'\\]|\\.)*)'""")

# QEMU's reading and caching options, which do not change the bytes.
_WITHOUT_EFFECT = {
    "aio",
    "auto-read-only",
    "cache.direct",
    "cache.no-flush",
    "cache-clean-interval",
    "cache-size",
    "detect-zeroes",
    "discard",
    "drop-cache",
    "force-share",
    "l2-cache-entry-size",
    "l2-cache-size",
    "locking",
    "node-name",
    "overlap-check",
    "read-only",
    "refcount-cache-size",
    "x-check-cache-dropped",
}


class ImageDescription(str):
    """The path of an image's file, and the description of the image in it; text is the original description.

    image_format is its name, None if the contents decide. offset and length (bytes; None: to the end) are the part of
    the file that is a raw disk. inner is the description of the file if it is itself in an image: a part of a file, or
    a part of a qcow2 image's disk. backing is the description of the backing file that replaces the image's own, False
    for none, None for the image's own; data_file is that of the data file.
    """

    text = ""
    image_format: str | None = None
    offset = 0
    length: int | None = None
    inner: ImageDescription | None = None
    backing: ImageDescription | bool | None = None
    data_file: ImageDescription | None = None

    @property
    def is_whole(self) -> bool:
        """True if the path and the format say everything."""
        parts = (self.length, self.inner, self.backing, self.data_file)
        return not self.offset and all(part is None for part in parts)

    @property
    def has_other_files(self) -> bool:
        """True if described files replace those that the image names."""
        return self.backing is not None or self.data_file is not None


def described_image(text: str, *, by_options: bool) -> ImageDescription:
    """Return the description in text: with by_options as key=value,key=value, otherwise as JSON after "json:".

    Raises UnsupportedImageError for unknown and unsupported options, by their names.
    """
    options = _options(text) if by_options and not text.startswith(JSON) else _json(text)
    found = _image(options, shown=text, depth=0)
    found.text = text
    return found


def _options(text: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    try:
        parts = split_options(text)
    except ValueError as error:
        raise UnsupportedImageError(f"{text}: {error}") from None
    for part in parts:
        key, equals, value = part.partition("=")
        if not equals:
            raise UnsupportedImageError(f"{text}: {part!r} has no value; expected driver=FORMAT,file.filename=FILE")
        found[key] = value
    return found


def _json(text: str) -> dict[str, Any]:
    import json  # imported here: most descriptions are options, and most images are named

    try:
        found = json.loads(_double_quoted(text.removeprefix(JSON)))
    except (ValueError, RecursionError) as error:
        raise UnsupportedImageError(f"{text}: cannot be read as JSON: {error}") from None
    if not isinstance(found, dict):
        raise UnsupportedImageError(f'{text}: is not a JSON object; expected json:{{"driver": ...}}')
    return found


def _double_quoted(text: str) -> str:
    """Return text with 'strings', which QEMU also accepts, as "strings"."""
    return _STRING.sub(lambda match: match[0] if match[1] is None else f'"{_requoted(match[1])}"', text)


def _requoted(inside: str) -> str:
    return re.sub(r"\\.|\"", lambda match: {"\\'": "'", '"': '\\"'}.get(match[0], match[0]), inside)


def _unfolded(options: Mapping[str, Any], shown: str) -> dict[str, Any]:
    """Return options with dotted keys as nested dictionaries: {"file.filename": X} as file: filename."""
    found: dict[str, Any] = {}
    for key, value in options.items():
        first, dot, rest = key.partition(".")
        if not dot or key in _WITHOUT_EFFECT:
            rest, first = "", key
        inner = {rest: value} if rest else value
        known = found.setdefault(first, inner)
        if known is inner:
            continue
        if not isinstance(known, dict) or not isinstance(inner, dict):
            raise UnsupportedImageError(f"{shown}: has {first!r} twice")
        found[first] = known | inner
    return {key: value for key, value in found.items() if key not in _WITHOUT_EFFECT and key != "cache"}


def _image(options: Mapping[str, Any], *, shown: str, depth: int) -> ImageDescription:
    """Read the options of an image: of its format, or of its file only."""
    if depth > _DEEPEST:
        raise UnsupportedImageError(f"{shown}: describes a chain of more than {_DEEPEST} images")
    rest = _unfolded(options, shown)
    driver = _driver(rest, None, shown)
    if driver in PROTOCOLS or (driver is None and "filename" in rest):
        found = ImageDescription(_file_name(rest, driver, shown))
        found.image_format = "raw" if driver in PROTOCOLS else None
        return found
    if driver is not None and driver not in FORMATS:
        raise UnsupportedImageError(f"{shown}: driver={driver!s}; expected one of {', '.join((*FORMATS, *PROTOCOLS))}")
    file = _inner(rest, "file", shown)
    if file is None:
        raise UnsupportedImageError(f"{shown}: does not say which file; expected file.filename=FILE")
    found = _file(file, shown, depth)
    if driver is None and rest.keys() & {"backing", "data-file"}:
        driver = "qcow2"  # the only format that has them
    found.image_format = driver
    if driver == "raw":
        found.offset = _size(rest, "offset", shown) or 0
        found.length = _size(rest, "size", shown)
    elif driver == "qcow2":
        found.backing = _backing(rest, shown, depth)
        data_file = _inner(rest, "data-file", shown)
        found.data_file = None if data_file is None else _image(data_file, shown=shown, depth=depth + 1)
    _require_nothing_left(rest, shown)
    return found


def _file(file: Mapping[str, Any], shown: str, depth: int) -> ImageDescription:
    """Read the options of an image's file: it has a name, or is in another image."""
    options = _unfolded(file, shown)
    if options.get("driver") not in FORMATS:
        return ImageDescription(_file_name(options, None, shown))
    inner = _image(file, shown=shown, depth=depth + 1)
    found = ImageDescription(inner)
    found.inner = inner
    return found


def _driver(options: dict[str, Any], default: str | None, shown: str) -> str | None:
    driver = options.pop("driver", default)
    if driver is not None and not isinstance(driver, str):
        raise UnsupportedImageError(
            f"{shown}: driver is not a name; expected one of {', '.join((*FORMATS, *PROTOCOLS))}"
        )
    return driver


def _inner(options: dict[str, Any], key: str, shown: str) -> dict[str, Any] | None:
    value = options.pop(key, None)
    if value is not None and not isinstance(value, dict):
        raise UnsupportedImageError(f"{shown}: {key} is the name of a node, which is not supported here")
    return value


def _backing(options: dict[str, Any], shown: str, depth: int) -> ImageDescription | bool | None:
    if "backing" in options and options["backing"] in (None, ""):
        del options["backing"]
        return False
    inner = _inner(options, "backing", shown)
    return None if inner is None else _image(inner, shown=shown, depth=depth + 1)


def _file_name(options: dict[str, Any], driver: str | None, shown: str) -> str:
    rest = dict(options)
    driver = _driver(rest, driver, shown)
    if driver is not None and driver not in PROTOCOLS:
        raise UnsupportedImageError(
            f"{shown}: file.driver={driver!s}; expected one of {', '.join((*FORMATS, *PROTOCOLS))}"
        )
    name = rest.pop("filename", None)
    if not isinstance(name, str) or "\0" in name:
        raise UnsupportedImageError(f"{shown}: does not say which file; expected file.filename=FILE")
    _require_nothing_left(rest, shown)
    require_name(name)
    if driver == "host_device" and not is_block_device(name):
        raise UnsupportedImageError(f"{name}: is not a block device, which host_device requires")
    return name


def _size(options: dict[str, Any], key: str, shown: str) -> int | None:
    value = options.pop(key, None)
    if value is None:
        return None
    try:
        size = value if isinstance(value, int) and not isinstance(value, bool) else parse_size(str(value))
    except ValueError as error:
        raise UnsupportedImageError(f"{shown}: {key}: {error}") from None
    if size < 0 or (key == "size" and size % _SECTOR):
        raise UnsupportedImageError(f"{shown}: {key}={size}: expected 0 or more bytes, as size whole sectors of 512")
    return size


def _require_nothing_left(options: dict[str, Any], shown: str) -> None:
    for key in options:
        raise UnsupportedImageError(f"{shown}: the option {key!r} is not supported here")
