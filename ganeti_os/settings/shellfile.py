# SPDX-License-Identifier: MIT
"""Files of shell assignments, read and never executed.

Supported are NAME=value, several on a line, `;`, `export`, 'single' and "double" quotes, backslashes, comments, lines
continued by a backslash, and $NAME or ${NAME} of a name that an earlier line of the file assigned. Every value is the
one that POSIX sh (XCU 2.2, 2.3, 2.6, 2.9.1) would assign. Everything else is an error with its line, because skipping
or guessing would configure something that the administrator did not write.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass

from pydiskimg.errors import DiskImageError, storage_error
from pydiskimg.text import quoted

SIZE_LIMIT = 1 << 20  # the size of a file, and of all expansions of its $NAMEs: A=$A$A doubles with each line

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=")
_BLANKS = re.compile(r"(?:[ \t]|\\\n)+")
_WORD_ENDS = re.compile(r"(?:\\\n)*(?:[ \t\n;]|\Z)")
_CONTINUED = re.compile(r"\\\n")
_NAME_GOES_ON = re.compile(r"(?:\\\n)+[A-Za-z0-9_]")
_COMMENT = re.compile(r"#[^\n]*")
_PLAIN = re.compile(r"[^\s\\'\"$`;&|<>()~:]+|[^\S \t\n]+")  # characters without a special meaning outside quotes
_PLAIN_QUOTED = re.compile(r"[^\\\"$`]+")
_FIRST_WORD = re.compile(r"\S{0,40}")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_SPECIAL_PARAMETER = re.compile(r"[0-9@*#?$!-]")
# Where one of these is near, a misplaced blank or quote may have made the found text a part of a password.
_SECRET = re.compile(r"pass|pwd|secret|token|key|@", re.IGNORECASE)


class SettingsError(DiskImageError):
    """A settings file cannot be read, or the value of a setting is invalid."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """The last value that a file gives a name.

    line counts from 1. used means that a later value was built from it: the name may be the administrator's own.
    """

    value: str
    line: int
    used: bool = False


def read_shell_file(path: str) -> dict[str, Assignment]:
    """Return the assignments in the file, by name.

    Raises SettingsError for invalid contents, StorageError when the file cannot be read, or FileNotFoundError.
    """
    try:
        data = _contents(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise storage_error(error, path, "cannot read the settings") from error
    if len(data) > SIZE_LIMIT:
        raise SettingsError(f"{path}: the file is larger than {SIZE_LIMIT} bytes; expected a file of assignments")
    return parse_shell_text(data, path)


def _contents(path: str) -> bytes:
    """Return at most one byte more than SIZE_LIMIT."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # opening a FIFO must not block
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise SettingsError(f"{path}: found a directory or special file, expected a file of assignments")
        with open(fd, "rb", closefd=False) as file:
            return file.read(SIZE_LIMIT + 1)
    finally:
        os.close(fd)


def parse_shell_text(data: bytes, path: str) -> dict[str, Assignment]:
    """Return the assignments in the bytes of a file, by name; path is for messages. Raises SettingsError."""
    return _Parser(_decoded(data, path), path).parse()


def _decoded(data: bytes, path: str) -> str:
    """Return the text with Unix line ends; a byte order mark is dropped."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SettingsError(f"{path}:{line}: found byte 0x{data[error.start]:02x}, expected text in UTF-8") from None
    text = text.replace("\r\n", "\n").removesuffix("\r")
    control = _CONTROL.search(text)
    if control:
        line = text.count("\n", 0, control.start()) + 1
        code = ord(control.group())
        raise SettingsError(f"{path}:{line}: found the control character 0x{code:02x}, expected text") from None
    return text


class _Parser:
    """A recursive descent over the text; position only grows."""

    def __init__(self, text: str, path: str) -> None:
        self.text = text
        self.path = path
        self.position = 0
        self.values: dict[str, tuple[str, int]] = {}
        self.used: set[str] = set()
        self.expanded = 0  # characters
        self.counted = 0, 1  # a position and its line

    def parse(self) -> dict[str, Assignment]:
        self.skip_blanks_and_comments()
        while self.position < len(self.text):
            if self.peek() != "\n":
                self.command()
            else:
                self.position += 1
            self.skip_blanks_and_comments()
        return {name: Assignment(value, line, name in self.used) for name, (value, line) in self.values.items()}

    def command(self) -> None:
        """Read the assignments up to the end of the line or a semicolon, as one simple command."""
        export = self.keyword("export")
        pending: dict[str, tuple[str, int]] = {}
        count = 0
        while self.position < len(self.text) and self.peek() not in "\n;":
            self.word(pending if export else self.values, export=export)
            count += 1
            self.skip_blanks_and_comments()
        if not count:
            raise self.error("export without a name" if export else "; without an assignment before it")
        self.values.update(pending)
        if self.peek() == ";":
            self.position += 1

    def keyword(self, word: str) -> bool:
        end = self.position + len(word)
        ends = _WORD_ENDS.match(self.text, end)
        if self.text[self.position : end] != word or not ends:
            return False
        self.position = end
        self.skip_blanks_and_comments()
        return True

    def word(self, values: dict[str, tuple[str, int]], *, export: bool) -> None:
        line = self.line()
        match = _ASSIGNMENT.match(self.text, self.position)
        if match:
            self.position = match.end()
            values[match.group(1)] = self.value(export=export), line
            return
        name = _NAME.match(self.text, self.position)
        known = name and (name.group() in self.values or name.group() in values)
        if export and name and known and _WORD_ENDS.match(self.text, name.end()):
            self.position = name.end()  # `export NAME` marks it for programs, and none are started here
            return
        found = _FIRST_WORD.match(self.text, self.position)
        shown = "text that is not shown" if self.may_be_secret() else quoted(found.group() if found else "")
        raise self.error(
            f"found {shown}, expected NAME=value; the file is read, not executed, and a value with blanks or one of "
            ";&|<>()`$ in it needs quotes"
        )

    def value(self, *, export: bool) -> str:
        """Read one word of a value; quotes are removed and names expanded."""
        start = self.position
        parts: list[str] = []
        while (part := self.part(start, export=export)) is not None:
            parts.append(part)
        return "".join(parts)

    def part(self, start: int, *, export: bool) -> str | None:
        """Read the next run of a value; None at its end."""
        character = self.peek()
        if character in ("", " ", "\t", "\n", ";"):
            return None
        plain = _PLAIN.match(self.text, self.position)
        if plain:
            self.position = plain.end()
            return plain.group()
        if character in "'\"\\$":
            return self.quoted(character, export=export)
        if character == ":" or (character == "~" and not self.tilde_expands(start)):
            self.position += 1
            return character
        hint = "it stands for a home directory" if character == "~" else "only assignments are read here"
        raise self.error(f"found {character!r} outside of quotes, expected a plain value; {hint}")

    def tilde_expands(self, start: int) -> bool:
        before = self.position
        while before > start and self.text[before - 2 : before] == "\\\n":
            before -= 2
        return before == start or self.text[before - 1] == ":"

    def quoted(self, character: str, *, export: bool) -> str:
        if character == "'":
            return self.single_quoted()
        if character == '"':
            return self.double_quoted()
        if character == "\\":
            return self.escaped()
        following = self.text[self.position + 1 : self.position + 2]
        if following and following in "'\"":
            raise self.error(f"found ${following}, expected plain quotes: $'...' and $\"...\" are not read")
        value = self.expansion()
        if export and re.search(r"[\s*?\[]", value):
            raise self.error(
                "after export a value with blanks or wildcards in it must be quoted: found it outside of quotes"
            )
        return value

    def escaped(self) -> str:
        if self.position + 1 >= len(self.text):
            raise self.error("found a backslash at the end of the file, expected a character after it")
        self.position += 2
        character = self.text[self.position - 1]
        return "" if character == "\n" else character

    def single_quoted(self) -> str:
        end = self.text.find("'", self.position + 1)
        if end < 0:
            raise self.error("the single quote opened here is never closed")
        value = self.text[self.position + 1 : end]
        self.position = end + 1
        return value

    def double_quoted(self) -> str:
        opened = self.position
        self.position += 1
        parts: list[str] = []
        while self.peek() != '"':
            if not self.peek():
                self.position = opened
                raise self.error("the double quote opened here is never closed")
            parts.append(self.quoted_part())
        self.position += 1
        return "".join(parts)

    def quoted_part(self) -> str:
        plain = _PLAIN_QUOTED.match(self.text, self.position)
        if plain:
            self.position = plain.end()
            return plain.group()
        if self.peek() == "$":
            return self.expansion()
        if self.peek() == "`":
            raise self.error("found '`' in double quotes, expected a plain value; commands are not executed")
        following = self.text[self.position + 1 : self.position + 2]
        self.position += 1 + len(following)
        if following == "\n":
            return ""
        return following if following in ('"', "\\", "$", "`") else "\\" + following

    def expansion(self) -> str:
        """Read $NAME or ${NAME}; any other dollar sign stands for itself."""
        rest = self.position + 1
        brace = self.text[rest : rest + 1] == "{"
        name = _NAME.match(self.text, rest + brace)
        if name and (self.text[name.end() : name.end() + 1] == "}" if brace else self.is_whole(name.end())):
            value = self.lookup(name.group())
            self.position = name.end() + brace
            return value
        following = self.text[rest : rest + 1]
        if (
            name
            or brace
            or following == "("
            or _SPECIAL_PARAMETER.match(following)
            or _CONTINUED.match(self.text, rest)
        ):
            raise self.error(
                "found a $ that begins neither $NAME nor ${NAME}, expected a name assigned above; write \\$ for itself"
            )
        self.position = rest
        return "$"

    def is_whole(self, end: int) -> bool:
        return not _NAME_GOES_ON.match(self.text, end)

    def lookup(self, name: str) -> str:
        if name not in self.values:
            what = f"${name} is used, but no line above assigns {name}"
            if self.may_be_secret():
                what = "a $ begins a name that no line above assigns; write \\$ for itself, or use single quotes"
            raise self.error(f"{what}; variables of the environment are not read")
        self.used.add(name)
        value = self.values[name][0]
        self.expanded += len(value)
        if self.expanded > SIZE_LIMIT:
            raise self.error(f"the variables used up to here expand to more than {SIZE_LIMIT} characters")
        return value

    def skip_blanks_and_comments(self) -> None:
        blanks = _BLANKS.match(self.text, self.position)
        if blanks:
            self.position = blanks.end()
        comment = _COMMENT.match(self.text, self.position)
        if comment:
            self.position = comment.end()

    def may_be_secret(self) -> bool:
        """True if the text at the position must not be shown: its line, or the one before, is about a secret."""
        start = self.text.rfind("\n", 0, max(0, self.text.rfind("\n", 0, self.position)))
        end = self.text.find("\n", self.position)
        return bool(_SECRET.search(self.text, start + 1, len(self.text) if end < 0 else end))

    def peek(self) -> str:
        return self.text[self.position : self.position + 1]

    def line(self) -> int:
        position, line = self.counted if self.counted[0] <= self.position else (0, 1)
        self.counted = self.position, line + self.text.count("\n", position, self.position)
        return self.counted[1]

    def error(self, what: str) -> SettingsError:
        return SettingsError(f"{self.path}:{self.line()}: {what}")
