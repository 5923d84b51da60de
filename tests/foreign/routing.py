# SPDX-License-Identifier: MIT
"""Which calls of qemu-img pydiskimg takes: the subcommands and options that both have."""

from __future__ import annotations

import getopt
import re
from dataclasses import dataclass

# By subcommand: short options and long ones in getopt's notation, and how many operands there may be.
GRAMMAR = {
    "info": ("f:U", ("backing-chain", "force-share", "output="), (1,)),
    "convert": ("f:O:co:nS:m:pqUWCt:T:l:", ("target-is-zero",), (2,)),
    "create": ("f:o:b:F:uq", (), (1, 2)),
    "map": ("f:Us:l:", ("force-share", "output=", "start-offset=", "max-length="), (1,)),
    "compare": ("f:F:spqU", ("output=",), (2,)),
    "check": ("f:pqU", ("output=",), (1,)),
    "snapshot": ("lU", ("force-share",), (1,)),
}
FORMATS = ("raw", "qcow2")
_OFF = ("off", "false", "no")
# Keys of -o; with values where pydiskimg has no others.
IMAGE_OPTIONS: dict[str, tuple[str, ...] | None] = {
    "cluster_size": None,
    "compat": None,
    "compression_type": None,
    "preallocation": ("off",),
    "refcount_bits": ("16",),
    "lazy_refcounts": _OFF,
    "extended_l2": _OFF,
    "data_file_raw": _OFF,
    "encryption": _OFF,
    "nocow": _OFF,
}
CREATE_OPTIONS = IMAGE_OPTIONS | {"size": None, "backing_file": None, "backing_fmt": None}
_PROTOCOL = re.compile(r"[^/]*:")


@dataclass(frozen=True)
class Call:
    """A call of qemu-img that pydiskimg takes."""

    command: str
    options: dict[str, str]  # by name with its dashes; the last of a kind
    operands: tuple[str, ...]

    @property
    def target(self) -> tuple[str, str] | None:
        """The file that the call writes, and its format; None where it writes none."""
        if self.command == "create":
            return self.operands[0], self.options.get("-f", "raw")
        if self.command == "convert":
            return self.operands[1], self.options.get("-O", "raw")
        return None


def routed(words: list[str]) -> Call | None:
    """Return what words, the arguments of qemu-img, ask of pydiskimg; None where the real qemu-img has to do it."""
    if not words or words[0] not in GRAMMAR:
        return None
    short, long, counts = GRAMMAR[words[0]]
    try:
        pairs, operands = getopt.gnu_getopt(words[1:], short, list(long))
    except getopt.GetoptError:
        return None
    call = Call(words[0], dict(pairs), tuple(operands))
    if len(operands) not in counts or not all(_value_known(call.command, *pair) for pair in pairs):
        return None
    files = call.operands[:1] if call.command == "create" else call.operands
    if any(_PROTOCOL.match(file) for file in files) or (call.command == "snapshot" and "-l" not in call.options):
        return None
    return call


def _value_known(command: str, name: str, value: str) -> bool:
    if name in ("-f", "-F", "-O"):
        return value in FORMATS
    if name == "-b":
        return not _PROTOCOL.match(value)
    if name == "-o":
        return _image_options_known(value, CREATE_OPTIONS if command == "create" else IMAGE_OPTIONS)
    return True


def _image_options_known(text: str, known: dict[str, tuple[str, ...] | None]) -> bool:
    if ",," in text:
        return False
    for pair in text.split(","):
        key, separator, value = pair.partition("=")
        if not separator:
            continue  # help, ?, and what is wrong: everybody's to say
        values = known.get(key, ())
        if (values is not None and value not in values) or (key == "backing_file" and _PROTOCOL.match(value)):
            return False
    return True
