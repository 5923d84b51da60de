# SPDX-License-Identifier: MIT
"""The option -o of convert and create: key=value,key=value in qemu-img's spelling."""

from __future__ import annotations

from pydiskimg.images import FORMATS
from pydiskimg.startup import TYPE_CHECKING, ValueObject
from pydiskimg.units import parse_size

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from typing import Any

    from pydiskimg.cli import Arguments
    from pydiskimg.images.qcow2.options import Qcow2Options

_VERSIONS = {"0.10": 2, "v2": 2, "1.1": 3, "v3": 3}
_COMPRESSION_TYPES = ("zlib", "zstd")
_CLUSTER_SIZES = tuple(1 << bits for bits in range(9, 22))

_PREALLOCATIONS = ("off", "metadata", "falloc", "full")
_REFCOUNT_BITS = tuple(str(1 << order) for order in range(7))

# Options whose only accepted value is their default.
_OFF, _ON = ("off", "false", "no"), ("on", "true", "yes")
_FIXED = {
    "encryption": _OFF,
    "nocow": _OFF,
    "extent_size_hint": ("0",),
}
# Options that are on or off: as for QEMU, the name alone is on, and the name after "no" is off.
_FLAGS = ("data_file_raw", "encryption", "extended_l2", "lazy_refcounts", "nocow")
_OF_FILES = ("nocow", "extent_size_hint")  # raw images have them, too
_ELSEWHERE = {
    "size": "a copy has the size of what is copied",
}
_KEYS = {
    "cluster_size": "512, 1k, 2k ... 2M (default: 64k)",
    "compat": "1.1 or v3 (default), 0.10 or v2",
    "compression_type": "zlib (default), zstd (needs compat=1.1)",
    "preallocation": "off (default), metadata, falloc, full",
    "refcount_bits": "1, 2, 4, 8, 16 (default), 32, 64",
    "lazy_refcounts": "off (default), on",
    "extended_l2": "off (default), on (clusters of 16k or more)",
    "data_file": "the new file that gets the data",
    "data_file_raw": "off (default), on: the data file is a raw image, too",
    "backing_file": "as the option for it",
    "backing_fmt": "as the option for it",
    **{key: f"{values[0]} only" for key, values in _FIXED.items()},
}
_KEYS_OF_EMPTY = {"size": "as SIZE"}


class ImageOptions(ValueObject):
    """The options in -o for a new image; cluster_size and size are bytes.

    given tells whether any option was requested that only qcow2 has. backing_file and backing_format are None if they
    were not given.
    """

    def __init__(  # noqa: PLR0913 - each option is independent, optional and named
        self,
        cluster_size: int = 65536,
        version: int = 3,
        compression_type: str = "zlib",
        *,
        refcount_bits: int = 16,
        lazy_refcounts: bool = False,
        extended_l2: bool = False,
        data_file: str = "",
        data_file_raw: bool = False,
        preallocation: str = "off",
        size: int | None = None,
        given: bool = False,
        backing_file: str | None = None,
        backing_format: str | None = None,
    ) -> None:
        self.cluster_size = cluster_size
        self.version = version
        self.compression_type = compression_type
        self.refcount_bits = refcount_bits
        self.lazy_refcounts = lazy_refcounts
        self.extended_l2 = extended_l2
        self.data_file = data_file
        self.data_file_raw = data_file_raw
        self.preallocation = preallocation
        self.size = size
        self.given = given
        self.backing_file = backing_file
        self.backing_format = backing_format

    def of_qcow2(self) -> Qcow2Options:
        """Return the options of a qcow2 image, for create_qcow2()."""
        return {
            "cluster_size": self.cluster_size,
            "version": self.version,
            "compression_type": self.compression_type,
            "refcount_bits": self.refcount_bits,
            "lazy_refcounts": self.lazy_refcounts,
            "extended_l2": self.extended_l2,
            "data_file": self.data_file,
            "data_file_raw": self.data_file_raw,
        }


def option_keys(*, empty: bool = False) -> dict[str, str]:
    """Return the keys of -o, with the values of each, for an empty image or for a copy."""
    return _KEYS | _KEYS_OF_EMPTY if empty else _KEYS


def options_type(title: str, keys: dict[str, str]) -> Callable[[str], str]:
    """Return the type of -o for argparse: the text as it is; help in it prints the keys and values, and ends."""

    def checked(text: str) -> str:
        from argparse import ArgumentTypeError  # imported here: the common forms do not use argparse

        try:
            parts = split_options(text)
        except ValueError as error:
            raise ArgumentTypeError(str(error)) from None
        if "help" in parts or "?" in parts:
            print(title, *(f"  {key + '=':18}{values}" for key, values in keys.items()), sep="\n")
            raise SystemExit(0)
        return text

    return checked


def add_image_options(parser: argparse.ArgumentParser, *, empty: bool = False) -> None:
    """Declare -o, for an empty image or for a copy; image_options(arguments) returns its value."""
    parser.add_argument(
        "-o",
        dest="image_options",
        action="append",
        type=options_type("Options of a new qcow2 image:", option_keys(empty=empty)),
        metavar="OPTIONS",
        help="options of a new qcow2 image: key=value,key=value (a comma in a value is written ,,); -o help lists them",
    )
    parser.set_defaults(_image_options_error=parser.error)


def image_options(arguments: Arguments, *, empty: bool = False) -> ImageOptions:
    """Return the options of every -o; the last of each kind is used; ends with a usage error for a wrong one.

    empty means that size is among them.
    """
    options = ImageOptions()
    try:
        for text in arguments.image_options or ():
            options = parse_image_options(text, options, empty=empty)
        _check_version(options)
    except ValueError as error:
        end: Callable[[str], Any] = arguments._image_options_error  # noqa: SLF001 - a namespace's attribute, set above
        end(f"argument -o: {error}")
    return options


def parse_image_options(text: str, options: ImageOptions | None = None, *, empty: bool = False) -> ImageOptions:
    """Return options changed by text; empty as for image_options().

    Raises ValueError with a sentence for a wrong one.
    """
    options = options or ImageOptions()
    for key, value in option_pairs(text):
        if key == "size" and empty:
            options = options.replaced(size=parse_size(value))
        elif key == "backing_file":
            options = options.replaced(given=True, backing_file=value)
        elif key == "backing_fmt":
            options = options.replaced(given=True, backing_format=_one_of(key, value, FORMATS))
        elif key == "preallocation":
            options = options.replaced(preallocation=_one_of(key, value, _PREALLOCATIONS))
        else:
            options = _changed(options.replaced(given=options.given or key not in _OF_FILES), key, value)
    return options


def _check_version(options: ImageOptions) -> None:
    if options.version > 2:
        return
    for key, default in (
        ("compression_type", "zlib"),
        ("refcount_bits", 16),
        ("lazy_refcounts", False),
        ("extended_l2", False),
    ):
        if (value := getattr(options, key)) != default:
            raise ValueError(f"{key}={'on' if value is True else value} needs compat=1.1")


def option_pairs(text: str) -> list[tuple[str, str]]:
    """Return the keys and values of a list of options; of a flag, key alone is key=on and nokey is key=off.

    Raises ValueError if the list is malformed, and for any other option without a value.
    """
    return [_pair(part) for part in split_options(text)]


def _pair(part: str) -> tuple[str, str]:
    key, separator, value = part.partition("=")
    if separator:
        return key, value
    if key in _FLAGS:
        return key, "on"
    if key.startswith("no") and key[2:] in _FLAGS:
        return key[2:], "off"
    raise ValueError(f"{part!r} has no value; expected key=value")


def split_options(text: str) -> list[str]:
    """Return the parts of a list with commas, split as by QEMU: two commas are one inside a part.

    Raises ValueError if the list is empty, or begins or ends with a separating comma.
    """
    parts = [part.replace("\0", ",") for part in text.replace(",,", "\0").split(",")]
    if not text:
        raise ValueError("the list of options is empty; expected key=value,key=value")
    if text.startswith(",") or not parts[-1]:
        raise ValueError(f"{text!r} begins or ends with a comma; expected key=value,key=value")
    return parts


def _changed(options: ImageOptions, key: str, value: str) -> ImageOptions:
    if key in READERS:
        name, read = READERS[key]
        return options.replaced(**{name: read(key, value)})
    if key in _FIXED:
        if value not in _FIXED[key]:
            raise ValueError(f"{key}={value} is not written by pydiskimg; expected {' or '.join(_FIXED[key])}")
        return options
    if key in _ELSEWHERE:
        raise ValueError(f"{key} is not an option here: {_ELSEWHERE[key]}")
    if key.partition(".")[0] == "encrypt":
        raise ValueError(f"{key}: an encrypted image is not written by pydiskimg")
    raise ValueError(f"the option {key!r} is not known; expected one of {', '.join(_KEYS)}")


def _cluster_size(_: str, value: str) -> int:
    size = parse_size(value)
    if size not in _CLUSTER_SIZES:
        raise ValueError(f"cluster_size={value} is not possible; expected a power of two from 512 to 2M")
    return size


def _one_of(key: str, value: str, allowed: Any) -> str:
    if value not in allowed:
        raise ValueError(f"{key}={value} is not possible here; expected {' or '.join(allowed)}")
    return value


def _on_or_off(key: str, value: str) -> bool:
    return _one_of(key, value, (*_ON, *_OFF)) in _ON


def _file_name(key: str, value: str) -> str:
    if not value:
        raise ValueError(f"{key}= has no value; expected the name of a file")
    return value


# How the value of an option is read, and its name in ImageOptions.
READERS: dict[str, tuple[str, Callable[[str, str], object]]] = {
    "cluster_size": ("cluster_size", _cluster_size),
    "compat": ("version", lambda key, value: _VERSIONS[_one_of(key, value, _VERSIONS)]),
    "compression_type": ("compression_type", lambda key, value: _one_of(key, value, _COMPRESSION_TYPES)),
    "refcount_bits": ("refcount_bits", lambda key, value: int(_one_of(key, value, _REFCOUNT_BITS))),
    "lazy_refcounts": ("lazy_refcounts", _on_or_off),
    "extended_l2": ("extended_l2", _on_or_off),
    "data_file": ("data_file", _file_name),
    "data_file_raw": ("data_file_raw", _on_or_off),
}
