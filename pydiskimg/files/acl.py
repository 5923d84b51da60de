# SPDX-License-Identifier: MIT
"""POSIX.1e access control lists: the text in pax headers, the attribute of Linux, and the form that ext4 stores.

The text is as acl_to_text(3) writes it, with star's and libarchive's numeric id as a fourth field; the attribute is as
in linux/posix_acl_xattr.h; fs/ext4/acl.py handles ext4's form.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Callable, Iterable
from typing import NamedTuple

from pydiskimg.files.attributes import ACL_ACCESS, ACL_DEFAULT
from pydiskimg.fs.ext4 import layout
from pydiskimg.fs.ext4.acl import acl_attribute
from pydiskimg.linux.openat2 import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, openat2
from pydiskimg.text import quoted

Lookup = Callable[[bytes, bytes], int]
"""Called with b"user" or b"group" and a name; returns its number. Raises ValueError for an unknown name."""

_HEADER = struct.Struct("<I")  # 0  version, 2
_ENTRY = struct.Struct(
    "<H"  # 0  tag
    "H"  # 2  permissions: 4 read, 2 write, 1 execute
    "I"  # 4  user or group id; all ones where the tag needs none
)
assert _ENTRY.size == 8
_VERSION = 2
_NO_ID = 0xFFFFFFFF
_DIGITS = 10  # digits of an id, at most
_LARGEST_LIST = 16 << 20
_NO_LIST = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV)
_LISTS = {b"user": "etc/passwd", b"group": "etc/group"}

# (tag without a qualifier, tag with one)
_TAGS: dict[bytes, tuple[int, int | None]] = {
    b"user": (0x01, 0x02),
    b"group": (0x04, 0x08),
    b"mask": (0x10, None),
    b"other": (0x20, None),
}
_WORDS = {tag: (word, tag != tags[0]) for word, tags in _TAGS.items() for tag in tags if tag is not None}
_BITS = {ord("r"): 4, ord("w"): 2, ord("x"): 1, ord("-"): 0}


class AclEntry(NamedTuple):
    """One entry: the tag's word, its user or group (none, a number or a name), and the permissions."""

    word: bytes
    qualifier: int | bytes | None
    bits: int


def parse(text: bytes) -> list[AclEntry]:
    """Return the entries of a text such as "user::rwx,user:lisa:r-x:1000,group::r-x,mask::r-x,other::r-x".

    Raises ValueError.
    """
    lines = (line.split(b"#", 1)[0].strip() for line in text.replace(b"\n", b",").split(b","))
    return [_entry(line) for line in lines if line]


def acl_text(entries: Iterable[AclEntry]) -> bytes:
    """Return the text of entries, as parse() reads it: qualifiers that are numbers stay numbers."""
    return b",".join(b"%s:%s:%s" % (word, _qualifier(whom), _letters(bits)) for word, whom, bits in entries)


def _qualifier(whom: int | bytes | None) -> bytes:
    if whom is None:
        return b""
    return whom if isinstance(whom, bytes) else b"%d" % whom


def _letters(bits: int) -> bytes:
    return bytes(letter if bits & bit else ord("-") for letter, bit in _BITS.items() if bit)


def decode(value: bytes) -> list[AclEntry]:
    """Return the entries of an ACL in the form of the attribute. Raises ValueError."""
    if len(value) % _ENTRY.size != _HEADER.size or _HEADER.unpack_from(value)[0] != _VERSION:
        raise ValueError("its ACL attribute is malformed")
    entries = []
    for tag, bits, number in _ENTRY.iter_unpack(value[_HEADER.size :]):
        if tag not in _WORDS or bits > 7:
            raise ValueError("its ACL attribute is malformed")
        word, needs_number = _WORDS[tag]
        entries.append(AclEntry(word, number if needs_number else None, bits))
    return entries


def decode_ext4(value: bytes) -> list[AclEntry]:
    """Return the entries of an ACL in the form that ext4 stores. Raises ValueError."""
    return decode(acl_attribute(value))


def encode(entries: list[AclEntry], lookup: Lookup) -> bytes:
    """Return the attribute; lookup returns the number of each qualifier that is a name. Raises ValueError.

    A duplicate entry counts once; two with different permissions are refused, because the kernel would use either.
    """
    ordered = _ordered(entries, lookup)
    return _HEADER.pack(_VERSION) + b"".join(_ENTRY.pack(tag, bits, number) for tag, number, bits in ordered)


def encode_ext4(entries: list[AclEntry], lookup: Lookup) -> bytes:
    """Return the ACL in the form that ext4 stores; arguments and errors are as for encode()."""
    parts = [layout.ACL_HEADER.pack(a_version=layout.ACL_VERSION)]
    for tag, number, bits in _ordered(entries, lookup):
        if number == _NO_ID:
            parts.append(layout.ACL_ENTRY_SHORT.pack(e_tag=tag, e_perm=bits))
        else:
            parts.append(layout.ACL_ENTRY.pack(e_tag=tag, e_perm=bits, e_id=number))
    return b"".join(parts)


def mode_with(mode: int, entries: list[AclEntry]) -> int:
    """Return the mode of a file that has the access ACL entries: Linux keeps the two equal."""
    bits = {entry.word: entry.bits for entry in entries if entry.qualifier is None}
    group = bits.get(b"mask", bits.get(b"group", mode >> 3 & 7))
    return mode & ~0o777 | bits.get(b"user", mode >> 6 & 7) << 6 | group << 3 | bits.get(b"other", mode & 7)


def _ordered(entries: list[AclEntry], lookup: Lookup) -> list[tuple[int, int, int]]:
    """Return tag, number and permissions of each entry in the order that Linux requires. Errors as for encode()."""
    packed: dict[tuple[int, int], int] = {}
    for word, qualifier, bits in entries:
        plain, qualified = _TAGS[word]
        if qualifier is None:
            _add(packed, plain, _NO_ID, bits)
            continue
        number = lookup(word, qualifier) if isinstance(qualifier, bytes) else qualifier
        if qualified is None or not 0 <= number < _NO_ID:
            raise ValueError(f"its ACL gives {word.decode()} the number {number}, which is invalid")
        _add(packed, qualified, number, bits)
    return sorted((tag, number, bits) for (tag, number), bits in packed.items())


def check(name: bytes, entries: list[AclEntry], *, is_directory: bool) -> None:
    """Raise ValueError for an ACL that the kernel would refuse without a reason; name is the attribute's."""
    kind = "default ACL" if name == ACL_DEFAULT else "ACL"
    if name == ACL_DEFAULT and not is_directory:
        raise ValueError("it has a default ACL, which only a directory can have")
    present = {(entry.word, entry.qualifier is not None) for entry in entries}
    for word in (b"user", b"group", b"other"):
        if (word, False) not in present:
            raise ValueError(f"its {kind} has no entry {word.decode()}::, which every ACL has")
    is_extended = (b"user", True) in present or (b"group", True) in present
    if is_extended and (b"mask", False) not in present:
        raise ValueError(f"its {kind} names users or groups but has no entry mask::, which such an ACL needs")


def _add(packed: dict[tuple[int, int], int], tag: int, number: int, bits: int) -> None:
    if packed.setdefault((tag, number), bits) != bits:
        word, is_qualified = _WORDS[tag]
        whom = number if is_qualified else ""
        raise ValueError(f"its ACL has two entries {word.decode()}:{whom}: with different permissions")


def is_minimal(name: bytes, entries: list[AclEntry]) -> bool:
    """True if the ACL adds nothing to the mode."""
    return name == ACL_ACCESS and all(entry.qualifier is None and entry.word != b"mask" for entry in entries)


def _entry(line: bytes) -> AclEntry:
    fields = [field.strip() for field in line.split(b":")]
    if len(fields) == 2 and fields[0] in (b"mask", b"other"):  # "other:r-x", as Solaris writes it
        fields.insert(1, b"")
    if len(fields) not in (3, 4) or fields[0] not in _TAGS or not fields[2] or not set(fields[2]) <= _BITS.keys():
        raise _malformed(line)
    bits = sum({_BITS[letter] for letter in fields[2]})
    if not fields[1]:
        return AclEntry(fields[0], None, bits)
    number = fields[3] if len(fields) == 4 else fields[1]
    if not number.isdigit():
        return AclEntry(fields[0], fields[1], bits)
    if len(number) > _DIGITS:
        raise _malformed(line)
    return AclEntry(fields[0], int(number), bits)


def _malformed(line: bytes) -> ValueError:
    return ValueError(f"its ACL entry {quoted(line)} is malformed")


class AclNames:
    """Numbers of users and groups from the unpacked tree's own /etc/passwd and /etc/group; the host's are never used.

    GNU tar writes ACLs with names, even with --numeric-owner (/var/log/journal has such an ACL on every Debian). read
    returns the contents of the file at a path in the tree, up to a number of bytes, and nothing if it is not a file; it
    is called once for each list, when the first name is requested.
    """

    def __init__(self, read: Callable[[str, int], bytes]) -> None:
        self._read = read
        self._numbers: dict[bytes, dict[bytes, int]] = {}

    def number(self, word: bytes, name: bytes) -> int:
        """Return the number of the user or group (word) of that name. Raises ValueError if there is none."""
        if word not in self._numbers:
            self._numbers[word] = _listed_numbers(self._read(_LISTS.get(word, ""), _LARGEST_LIST))
        found = self._numbers[word].get(name)
        if found is None:
            raise ValueError(
                f"its ACL names the {word.decode()} {quoted(name)} without a number, and "
                f"the tree's {_LISTS.get(word)} does not list it; pack with bsdtar or star, which write the number"
            )
        return found


def read_below(root_fd: int, path: str, limit: int) -> bytes:
    """Return the contents of the file at a path in the tree at root_fd; empty if it is not a file. Raises OSError."""
    try:
        found = openat2(root_fd, path, os.O_PATH, resolve=RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
    except OSError as error:
        if error.errno not in _NO_LIST:
            raise
        return b""
    try:
        if not stat.S_ISREG(os.fstat(found).st_mode):  # never opened: it could be a FIFO
            return b""
        with open(f"/proc/self/fd/{found}", "rb", buffering=0) as file:
            return os.pread(file.fileno(), limit, 0)
    finally:
        os.close(found)


def _listed_numbers(text: bytes) -> dict[bytes, int]:
    """Return the numbers by name; for a name listed twice the first number, as getpwnam(3) does."""
    found: dict[bytes, int] = {}
    for line in text.split(b"\n"):
        fields = line.split(b":")
        if len(fields) >= 4 and fields[2].isdigit() and len(fields[2]) <= 10:
            found.setdefault(fields[0], int(fields[2]))
    return found
