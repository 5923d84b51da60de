# SPDX-License-Identifier: MIT
"""Regular expressions of a guest, matched against paths in bounded time (ADR 0105).

Python's re tries alternatives one after the other, and a pattern such as (a*)*b has exponentially many of them. Here
all alternatives are followed at the same time, as K. Thompson described in 1968: at most one step for each byte of the
path and each instruction of the pattern, and a Budget limits the total.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

INSTRUCTIONS_LIMIT = 2000  # of one pattern, its counted repetitions written out
LENGTH_LIMIT = 8192  # bytes of one pattern; the longest path has 4096, and each byte of it may be escaped
_START_STEPS = 100  # steps of the shortest pattern before the first byte of the path
_DEPTH_LIMIT = 20  # of nested groups
_COUNT_LIMIT = 255

_ANY = (1 << 256) - 1
_DIGITS = sum(1 << byte for byte in b"0123456789")
_LETTERS = sum(1 << byte for byte in b"abcdefghijklmnopqrstuvwxyz")
_WORD = _DIGITS | _LETTERS | _LETTERS >> 32 | 1 << ord("_")
_BLANKS = sum(1 << byte for byte in b" \t\n\v\f\r")
_CLASSES = {
    "d": _DIGITS,
    "D": _ANY ^ _DIGITS,
    "w": _WORD,
    "W": _ANY ^ _WORD,
    "s": _BLANKS,
    "S": _ANY ^ _BLANKS,
    "n": 1 << 10,
    "t": 1 << 9,
}
_NAMED = {
    "alnum": _WORD ^ 1 << ord("_"),
    "alpha": _LETTERS | _LETTERS >> 32,
    "digit": _DIGITS,
    "lower": _LETTERS,
    "upper": _LETTERS >> 32,
    "space": _BLANKS,
    "xdigit": _DIGITS | sum(1 << byte for byte in b"abcdefABCDEF"),
}
_COUNTS = re.compile(r"\{([0-9]{1,3})(,?)([0-9]{0,3})\}")
_NAMED_CLASS = re.compile(r"\[:([a-z]{5,6}):\]")
# The literal beginning of a pattern; the last byte before a quantifier may be missing or repeated.
_LITERAL = re.compile(rb"(?:[^\\.^$?*+|\[(){}]|\\[^A-Za-z0-9])*+")


class PatternError(ValueError):
    """A pattern is not supported here, or is too large; the text says why."""


class BudgetError(Exception):
    """The patterns together take more steps than allowed."""


class Budget:
    """The remaining steps for all patterns of a guest: about three million take a second."""

    def __init__(self, steps: int) -> None:
        self._left = steps

    def spend(self, steps: int) -> None:
        """Take steps from the budget. Raises BudgetError when none are left."""
        self._left -= steps
        if self._left < 0:
            raise BudgetError


@dataclass(slots=True)
class _Node:
    """kind is set (one byte of the bits in mask), all or one (of parts), or repeat (of parts[0], most None: no end)."""

    kind: str
    parts: list[_Node] = field(default_factory=list)
    mask: int = 0
    least: int = 0
    most: int | None = None

    @property
    def is_empty(self) -> bool:
        """True if it matches only the empty string and needs no instruction."""
        return self.kind == "all" and not self.parts


def literal_beginning(pattern: bytes) -> bytes:
    """Return the beginning that all matching paths share; empty if they have none."""
    found = _LITERAL.match(pattern)
    assert found is not None
    text, end = found.group(), found.end()
    if end < len(pattern) and b"|" in pattern[end:] and b"(" not in pattern[: pattern.index(b"|", end)]:
        return b""
    plain = b"\\".join(part.replace(b"\\", b"") for part in text.split(b"\\\\"))
    return plain[:-1] if pattern[end : end + 1] in (b"?", b"*", b"+", b"{") else plain


def is_literal(pattern: bytes) -> bool:
    """True when the pattern matches one path only."""
    found = _LITERAL.match(pattern)
    return found is not None and found.end() == len(pattern)


def matches(pattern: bytes, path: bytes, budget: Budget) -> bool:
    """True if the whole path matches. Raises PatternError and BudgetError."""
    budget.spend(_START_STEPS + 4 * len(pattern))
    program = _Compiler().compile(_Parser(pattern.decode("latin-1")).parse())
    budget.spend(4 * len(program))
    states = _reachable(program, [0], budget)
    for byte in path:
        following = []
        for state in states:
            kind, mask, _ = program[state]
            if kind == "set" and mask >> byte & 1:
                following.append(state + 1)
        states = _reachable(program, following, budget)
        if not states:
            return False
    return any(program[state][0] == "match" for state in states)


# An instruction and its two numbers: set (mask), split (both next instructions), jump (the next one), match.
_Program = list[tuple[str, int, int]]


def _reachable(program: _Program, states: list[int], budget: Budget) -> list[int]:
    """Return the instructions that take a byte or match, reachable from states without taking a byte."""
    seen = set(states)
    pending, found = list(states), []
    while pending:
        state = pending.pop()
        kind, one, other = program[state]
        if kind in ("set", "match"):
            found.append(state)
            continue
        for following in (one, other) if kind == "split" else (one,):
            if following not in seen:
                seen.add(following)
                pending.append(following)
    budget.spend(len(seen))
    return found


class _Parser:
    """A recursive descent over the pattern; position only grows."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.depth = 0

    def parse(self) -> _Node:
        node = self.alternatives()
        if self.position < len(self.text):
            raise PatternError("a ) without (")
        return node

    def alternatives(self) -> _Node:
        parts = [self.sequence()]
        while self.take("|"):
            parts.append(self.sequence())
        return parts[0] if len(parts) == 1 else _Node("one", parts)

    def sequence(self) -> _Node:
        parts = []
        while self.position < len(self.text) and self.text[self.position] not in "|)":
            node = self.repeated(self.atom())
            if not node.is_empty:  # or ((){255}){255} would be evaluated 65,025 times without a limit by instructions
                parts.append(node)
        return _Node("all", parts)

    def repeated(self, node: _Node) -> _Node:
        simple = {"*": (0, None), "+": (1, None), "?": (0, 1)}
        counts = _COUNTS.match(self.text, self.position)
        if self.text[self.position : self.position + 1] in tuple(simple):
            least, most = simple[self.text[self.position]]
            self.position += 1
        elif counts:
            least, most = int(counts[1]), int(counts[3]) if counts[3] else None if counts[2] else int(counts[1])
            self.position = counts.end()
        else:
            return node
        if self.take("+"):
            raise PatternError("a possessive quantifier")
        self.take("?")  # the order of alternatives does not change whether a whole path matches
        if least > _COUNT_LIMIT or (most is not None and not least <= most <= _COUNT_LIMIT):
            raise PatternError(f"a repetition that is not from 0 to {_COUNT_LIMIT}")
        if self.text[self.position : self.position + 1] in tuple(simple):
            raise PatternError("a quantifier of a quantifier")
        return _Node("all") if most == 0 or node.is_empty else _Node("repeat", [node], least=least, most=most)

    def atom(self) -> _Node:
        character = self.text[self.position]
        self.position += 1
        if character == "(":
            return self.group()
        if character == "[":
            return _Node("set", mask=self.byte_class())
        if character == ".":
            return _Node("set", mask=_ANY)
        if character == "\\":
            return _Node("set", mask=self.escaped())
        if character in "*+?^$":
            raise PatternError(f"a {character} that has nothing to repeat or to end")
        return _Node("set", mask=1 << ord(character))

    def group(self) -> _Node:
        if self.take("?") and not self.take(":"):
            raise PatternError("a group with an extension (?...)")
        self.depth += 1
        if self.depth > _DEPTH_LIMIT:
            raise PatternError(f"more than {_DEPTH_LIMIT} nested groups")
        node = self.alternatives()
        if not self.take(")"):
            raise PatternError("a ( without )")
        self.depth -= 1
        return node

    def escaped(self) -> int:
        character = self.text[self.position : self.position + 1]
        self.position += 1
        if character in _CLASSES:
            return _CLASSES[character]
        if not character or (character.isascii() and character.isalnum()):
            raise PatternError(f"\\{character}")
        return 1 << ord(character)

    def byte_class(self) -> int:
        inverted = self.take("^")
        mask = 0
        first = True
        while first or not self.take("]"):
            if self.position >= len(self.text):
                raise PatternError("a [ without ]")
            mask |= self.class_part()
            first = False
        return _ANY ^ mask if inverted else mask

    def class_part(self) -> int:
        named = _NAMED_CLASS.match(self.text, self.position)
        if named:
            self.position = named.end()
            if named[1] not in _NAMED:
                raise PatternError(f"[:{named[1]}:]")
            return _NAMED[named[1]]
        if self.text[self.position : self.position + 2] in ("[:", "[.", "[="):
            raise PatternError("a class in a class")
        low = self.class_bytes()
        beyond = self.text[self.position + 1 : self.position + 2]
        if self.text[self.position : self.position + 1] != "-" or beyond in ("]", ""):
            return low
        self.position += 1
        high = self.class_bytes()
        if low.bit_count() != 1 or high.bit_count() != 1 or low > high:
            raise PatternError("a range in [] from a larger to a smaller byte")
        return (high << 1) - low

    def class_bytes(self) -> int:
        character = self.text[self.position : self.position + 1]
        self.position += 1
        if not character:
            raise PatternError("a [ without ]")
        return self.escaped() if character == "\\" else 1 << ord(character)

    def take(self, character: str) -> bool:
        found = self.text[self.position : self.position + 1] == character
        self.position += found
        return found


class _Compiler:
    def __init__(self) -> None:
        self.program: _Program = []

    def compile(self, node: _Node) -> _Program:
        self.add(node)
        self.put("match")
        return self.program

    def put(self, kind: str, one: int = 0, other: int = 0) -> int:
        if len(self.program) >= INSTRUCTIONS_LIMIT:
            raise PatternError(f"more than {INSTRUCTIONS_LIMIT} instructions")
        self.program.append((kind, one, other))
        return len(self.program) - 1

    def add(self, node: _Node) -> None:
        if node.kind == "set":
            self.put("set", node.mask)
        elif node.kind == "all":
            for part in node.parts:
                self.add(part)
        elif node.kind == "one":
            self.add_alternatives(node.parts)
        else:
            self.add_repetition(node.parts[0], node.least, node.most)

    def add_alternatives(self, parts: list[_Node]) -> None:
        ends = []
        for part in parts[:-1]:
            split = self.put("split")
            self.add(part)
            ends.append(self.put("jump"))
            self.program[split] = ("split", split + 1, len(self.program))
        self.add(parts[-1])
        for end in ends:
            self.program[end] = ("jump", len(self.program), 0)

    def add_repetition(self, part: _Node, least: int, most: int | None) -> None:
        for _ in range(least):
            self.add(part)
        if most is None:
            split = self.put("split")
            self.add(part)
            self.put("jump", split)
            self.program[split] = ("split", split + 1, len(self.program))
            return
        splits = []
        for _ in range(most - least):
            splits.append(self.put("split"))
            self.add(part)
        for split in splits:
            self.program[split] = ("split", split + 1, len(self.program))
