# SPDX-License-Identifier: MIT
"""Which calls of qemu-img pydiskimg handles: the subcommands and options that both have."""

from __future__ import annotations

import getopt
import re
from dataclasses import dataclass

# By subcommand: short options and long ones in getopt's notation, and how many operands there may be.
GRAMMAR: dict[str, tuple[str, tuple[str, ...], range]] = {
    "info": ("f:U", ("backing-chain", "force-share", "output=", "image-opts"), range(1, 2)),
    "convert": (
        "f:O:co:nS:m:pqUWCt:T:l:B:F:r:",
        ("target-is-zero", "salvage", "bitmaps", "skip-broken-bitmaps", "image-opts", "target-image-opts"),
        range(2, 100),
    ),
    "create": ("f:o:b:F:uq", (), range(1, 3)),
    "map": ("f:Us:l:", ("force-share", "output=", "start-offset=", "max-length=", "image-opts"), range(1, 2)),
    "compare": ("f:F:spqUT:", ("output=", "image-opts"), range(2, 3)),
    "check": ("f:pqr:UT:", ("output=", "image-opts"), range(1, 2)),
    "bitmap": (
        "f:b:F:g:",
        ("granularity=", "add", "remove", "clear", "enable", "disable", "merge=", "image-opts"),
        range(2, 3),
    ),
    "snapshot": ("lqUc:a:d:", ("force-share", "image-opts"), range(1, 2)),
    "resize": ("f:q", ("shrink", "preallocation=", "image-opts"), range(2, 3)),
    "commit": ("f:b:dpqt:", ("image-opts",), range(1, 2)),
    "rebase": ("f:b:F:upqt:T:U", ("image-opts",), range(1, 2)),
    "measure": ("O:o:f:l:U", ("output=", "size=", "image-opts"), range(3)),
    "amend": ("f:o:pqt:", ("force", "image-opts"), range(1, 2)),
    "dd": ("f:O:U", ("image-opts",), range(1, 6)),
}
CHANGE_IN_PLACE = ("resize", "commit", "rebase", "bitmap", "amend")
FORMATS = ("raw", "qcow2")
_OFF = ("off", "false", "no")
# Keys of -o; with values where pydiskimg has no others.
IMAGE_OPTIONS: dict[str, tuple[str, ...] | None] = {
    "cluster_size": None,
    "compat": None,
    "compression_type": None,
    "preallocation": None,
    "refcount_bits": None,
    "lazy_refcounts": None,
    "extended_l2": None,
    "backing_file": None,
    "backing_fmt": None,
    "data_file": None,
    "data_file_raw": None,
    "encryption": _OFF,
    "nocow": _OFF,
    "extent_size_hint": ("0",),
}
CREATE_OPTIONS = IMAGE_OPTIONS | {"size": None}
_PROTOCOL = re.compile(r"[^/]*:")
_DRIVER = re.compile(r"""driver["']?[=:] ?["']?([\w-]*)""")
_DRIVERS = ("raw", "qcow2", "file", "host_device")


@dataclass(frozen=True)
class Call:
    """A call of qemu-img that pydiskimg handles."""

    command: str
    options: dict[str, str]  # by name with its dashes; the last of a kind
    operands: tuple[str, ...]

    @property
    def target(self) -> tuple[str, str] | None:
        """The file that the call writes, and its format; None where it writes none."""
        if self.command == "create":
            return self.operands[0], self.options.get("-f", "raw")
        if self.command == "convert" and "--target-image-opts" not in self.options:
            return self.operands[-1], self.options.get("-O", "raw")
        if self.command == "dd":
            outputs = [word.removeprefix("of=") for word in self.operands if word.startswith("of=")]
            return (outputs[-1], self.options.get("-O", "raw")) if outputs else None
        if self.command in CHANGE_IN_PLACE and "-f" in self.options:
            return self.operands[0], self.options["-f"]
        return None


def routed(words: list[str]) -> Call | None:
    """Return what words, the arguments of qemu-img, ask of pydiskimg; None where the real qemu-img has to do it."""
    if not words or words[0] not in GRAMMAR:
        return None
    short, long, counts = GRAMMAR[words[0]]
    less = words[-1:] if words[0] == "resize" and re.fullmatch(r"-\d\w*", words[-1]) else []
    try:
        pairs, operands = getopt.gnu_getopt(words[1 : len(words) - len(less)], short, list(long))
        operands += less
    except getopt.GetoptError:
        return None
    call = Call(words[0], dict(pairs), tuple(operands))
    if len(operands) not in counts or not all(_value_known(call.command, *pair) for pair in pairs):
        return None
    files = call.operands[:1] if call.command in ("create", "resize", "bitmap") else call.operands
    if not all(_file_known(call, file) for file in files):
        return None
    return call


def _file_known(call: Call, file: str) -> bool:
    described = file.startswith("json:") and call.command != "create"
    if described or "--image-opts" in call.options or "--target-image-opts" in call.options:
        return "encrypt." not in file and all(driver in _DRIVERS for driver in _DRIVER.findall(file))
    return file.startswith("file:") or not _PROTOCOL.match(file)


def _value_known(command: str, name: str, value: str) -> bool:
    if name == "-F" and command == "rebase":
        return value in (*FORMATS, "file", "host_device")
    if name in ("-f", "-F", "-O"):
        return value in FORMATS
    if name in ("-b", "-B"):
        return not _PROTOCOL.match(value)
    if name == "-o" and command == "amend" and "encrypt." not in value:
        return True  # what cannot be amended is refused by both
    if name == "-o":
        return _image_options_known(value, CREATE_OPTIONS if command in ("create", "amend") else IMAGE_OPTIONS)
    return True


def _image_options_known(text: str, known: dict[str, tuple[str, ...] | None]) -> bool:
    if ",," in text:
        return False
    for pair in text.split(","):
        key, separator, value = pair.partition("=")
        if not separator:
            continue  # help, ?, and what is wrong: everybody's to say
        values = known.get(key, ())
        if (values is not None and value not in values) or (
            key in ("backing_file", "data_file") and _PROTOCOL.match(value)
        ):
            return False
    return True
