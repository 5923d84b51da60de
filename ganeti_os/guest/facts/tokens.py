# SPDX-License-Identifier: MIT
"""Find addresses as whole words of a file of any format, and whether they are in a comment."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from pydiskimg.system.edits.ip_address import IPAddress, parse_address
from pydiskimg.system.edits.span import Span

# Each position is tried once, and each word at one position only: 1 MiB takes a few hundredths of a second.
_V4 = re.compile(rb"(?<![0-9A-Za-z.])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![0-9A-Za-z]|\.[0-9])")
_V6 = re.compile(rb"(?<![0-9A-Za-z:.])[0-9A-Fa-f:]{2,45}+(?![0-9A-Za-z]|\.[0-9])")
_MAC = re.compile(
    rb"(?<![0-9A-Za-z:-])[0-9A-Fa-f]{2}(?:[:-][0-9A-Fa-f]{2}){5}(?![0-9A-Za-z]|[:-][0-9A-Za-z])",
)
PLAIN_MAC = re.compile(r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}")  # in the form of plain_mac()
_PREFIX = re.compile(rb"/([0-9]{1,3})(?![0-9A-Za-z.])")
_COMMENT = re.compile(rb"(?:^[ \t]*+[#;]|(?<=[ \t])#)[^\n]*+", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Token:
    """A word that is an address; prefix is the length after a slash, if any."""

    span: Span
    address: IPAddress
    prefix: Span | None


def address_tokens(data: bytes, wanted: Collection[IPAddress]) -> Iterator[Token]:
    """Yield each word that is one of the addresses, in any spelling."""
    four = {str(address).encode("ascii"): address for address in wanted if address.version == 4}
    six = {address for address in wanted if address.version == 6}
    if four:
        for match in _V4.finditer(data):
            if match[0] in four:
                yield _token(data, Span.of(match), four[match[0]])
    if six:
        ends = {_last_group(address.exploded.encode("ascii")) for address in six}
        for match in _V6.finditer(data):
            text = match[0] if match[0].endswith(b"::") else match[0].removesuffix(b":")
            if _last_group(text) in ends and (address := parse_address(text)) in six:
                assert address is not None
                yield _token(data, Span(match.start(), match.start() + len(text), text), address)


def _last_group(text: bytes) -> bytes:
    return text.rpartition(b":")[2].lower().lstrip(b"0")


def _token(data: bytes, span: Span, address: IPAddress) -> Token:
    prefix = _PREFIX.match(data, span.end)
    return Token(span, address, Span.of(prefix, 1) if prefix else None)


def mac_tokens(data: bytes, wanted: Collection[str]) -> Iterator[tuple[Span, str]]:
    """Yield each word that is one of the hardware addresses, which are given in lower case and with colons."""
    if wanted:
        for match in _MAC.finditer(data):
            if (mac := plain_mac(match[0])) in wanted:
                yield Span.of(match), mac


def plain_mac(text: bytes | str) -> str:
    """Return a hardware address in lower case with colons."""
    found = text.decode("latin-1") if isinstance(text, bytes) else text
    return found.lower().replace("-", ":")


def like(mac: str, old: bytes) -> bytes:
    """Spell a hardware address in the style of another one."""
    text = mac.replace(":", "-") if b"-" in old else mac
    return (text.upper() if old != old.lower() else text).encode("ascii")


class SpanSet:
    """Bytes of a file in spans that do not overlap."""

    def __init__(self, spans: Iterable[tuple[int, int]]) -> None:
        self._spans = sorted(spans)

    def __contains__(self, offset: int) -> bool:
        index = bisect_right(self._spans, (offset, float("inf"))) - 1
        return index >= 0 and self._spans[index][0] <= offset < self._spans[index][1]


def comments(data: bytes) -> SpanSet:
    """Return the comments of a file, as nearly all programs see them."""
    return SpanSet(match.span() for match in _COMMENT.finditer(data))
