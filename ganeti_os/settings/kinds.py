# SPDX-License-Identifier: MIT
"""The kinds of values that settings may have, each with its description and check."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from ganeti_os.settings.authorized_keys import LIMIT, parse_keys
from ganeti_os.settings.image_names import SPELLINGS
from pydiskimg.text import quoted, without_password

MAX_SIZE_MIB = 16 << 20  # 16 TiB, the largest ext4 file system that is made
MAX_NAME_BYTES = 200  # of an image: ARCH, a suffix and the download's additions fit in the 255 bytes of a file name
MAX_LINE = 4096  # characters; Linux takes 2048 bytes of arguments on x86

MAX_RESOLVER_WORDS = 8  # name servers, or domains; glibc uses three of the former
MAX_DOMAIN = 253  # characters

_TRUE = ("yes", "1", "true")
_FALSE = ("no", "0", "false")
_SHOWN = 80  # characters of a wrong value in a message
_DOMAIN = re.compile(
    r"(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.)*[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
)
# As in crypt(5): MD5, bcrypt, SHA-256 and -512, scrypt, yescrypt, gost-yescrypt; or no password at all.
_CRYPT_HASH = re.compile(r"\$(?:1|2[aby]?|5|6|7|y|gy)\$[./A-Za-z0-9$=,]{8,400}|[*!]")


@dataclass(frozen=True, slots=True)
class ValueKind:
    """A kind of values of a setting.

    expected describes it, as in "expected yes or no". check turns a non-empty text into the value and raises
    ValueError. empty is the value if text and default are both empty.
    """

    expected: str
    check: Callable[[str], object]
    empty: object = None


class ReasonError(ValueError):
    """The problem of a text, if "expected ..." would not explain it."""


def shown(text: str) -> str:
    """Return a text for a message: quoted, printable and short."""
    text = without_password(text)
    return quoted(text, limit=_SHOWN) + (f" ({len(text)} characters)" if len(text) > _SHOWN else "")


def _boolean(text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise ValueError


def _size_mib(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,12}", text) or not 0 < int(text) <= MAX_SIZE_MIB:
        raise ValueError
    return int(text)


def _directory(text: str) -> str:
    if not text.startswith("/") or not text.isprintable():
        raise ValueError
    return text.rstrip("/") or "/"


def file_name(text: str) -> str:
    if "/" in text or not text.isprintable() or text.startswith(".") or text != text.strip():
        raise ValueError
    if len(text.encode()) > MAX_NAME_BYTES:
        raise ValueError
    return text


def _url(text: str) -> str:
    if not re.fullmatch(r"https?://[!-~]+", text):
        raise ValueError
    return text.rstrip("/")


def one_line(text: str) -> str:
    if not text.isprintable() or len(text) > MAX_LINE:
        raise ValueError
    return text


def path_of_file(text: str) -> str:
    if not text.startswith("/") or not text.isprintable() or text.endswith("/"):
        raise ValueError
    return text


def password_hash(text: str) -> str:
    if not _CRYPT_HASH.fullmatch(text):
        raise ValueError
    return text


def authorized_keys(text: str) -> str:
    if len(text.encode()) > LIMIT:
        raise ReasonError(f"has more than {LIMIT} bytes")
    try:
        parse_keys(text)
    except ValueError as error:
        raise ReasonError(f"is wrong: {error}") from None
    return text


def one_of(*choices: str) -> ValueKind:
    def check(text: str) -> str:
        if text not in choices:
            raise ValueError
        return text

    return ValueKind(f"{', '.join(choices[:-1])} or {choices[-1]}", check)


def _name_servers(text: str) -> tuple[IPv4Address | IPv6Address, ...]:
    return tuple(ip_address(word) for word in _words(text))


def _search_domains(text: str) -> tuple[str, ...]:
    domains = tuple(word.lower() for word in _words(text))
    if not all(_DOMAIN.fullmatch(word) and len(word) <= MAX_DOMAIN for word in domains):
        raise ValueError
    return domains


def _words(text: str) -> list[str]:
    words = text.replace(",", " ").split()
    if len(words) > MAX_RESOLVER_WORDS:
        raise ReasonError(f"has {len(words)} entries; expected at most {MAX_RESOLVER_WORDS}")
    return words


DNS_SERVERS = ValueKind("IP addresses with blanks between them", _name_servers, ())
DNS_SEARCH = ValueKind("domains with blanks between them", _search_domains, ())
ARCHITECTURES = tuple(name for names in SPELLINGS for name in names)

BOOLEAN = ValueKind("yes or no", _boolean)
SIZE = ValueKind(f"a size in MiB from 1 to {MAX_SIZE_MIB}", _size_mib)
URL = ValueKind("an address that begins with http:// or https://", _url, "")
FILE = ValueKind("the absolute path of a file", _directory, "")
DIRECTORY = ValueKind("the absolute path of a directory", _directory)
ARCHITECTURE = one_of(*ARCHITECTURES)
