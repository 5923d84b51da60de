# SPDX-License-Identifier: MIT
"""/etc/default/grub: the settings from which the guest's own update-grub (grub-mkconfig) generates grub.cfg."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pydiskimg.system.boot.kernel_arguments import grub_word, is_plain, missing_words, without_old_machine
from pydiskimg.system.edits.draft import Draft
from pydiskimg.system.edits.shell_values import shell_values
from pydiskimg.system.edits.span import Span
from pydiskimg.system.edits.text import decoded, encoded, with_lines

PATH = "/etc/default/grub"
# Debian's and Ubuntu's grub-mkconfig reads these, too, after the first. Their package grub-pc makes /etc/default/grub
# itself, and asks the user if that file already exists.
_DIRECTORY = "/etc/default/grub.d"
_OWN_FILE = f"{_DIRECTORY}/ganeti.cfg"
_DEBIAN = "/etc/debian_version"
_GENERATORS = ("/usr/sbin/grub-mkconfig", "/usr/bin/grub-mkconfig", "/usr/sbin/grub2-mkconfig")
_LINE, _MORE = "GRUB_CMDLINE_LINUX", "GRUB_CMDLINE_LINUX_DEFAULT"
_TERMINALS = ("GRUB_TERMINAL", "GRUB_TERMINAL_INPUT", "GRUB_TERMINAL_OUTPUT")
_SERIAL_COMMAND = "serial --unit=0 --speed=115200"


@dataclass(slots=True)
class _Defaults:
    """The files in the order in which they are read; an assignment in a later one takes precedence."""

    files: dict[str, str]
    own_file: str
    changed: set[str] = field(default_factory=set)

    def last(self, name: str) -> tuple[str, Span | None] | None:
        """Return the last file that assigns to name, and the location of the value if it is plain text."""
        for path in reversed(self.files):
            values = shell_values(encoded(self.files[path]), (name,))
            if values:
                return path, values[-1].span
        return None

    def value(self, name: str) -> str:
        """Return the value of name if it is plain text."""
        last = self.last(name)
        return decoded(last[1].text) if last is not None and last[1] is not None else ""

    def assign(self, name: str, value: str) -> None:
        """Set name to a plain value, in place if it has one already."""
        path, span = self.last(name) or (self.own_file, None)
        if span is None:
            self.append(f'{name}="{value}"', path)
            return
        data = encoded(self.files[path])
        is_quoted = data[span.start - 1 : span.start] in (b'"', b"'")
        text = encoded(value if is_quoted else f'"{value}"')
        self._set(path, decoded(data[: span.start] + text + data[span.end :]))

    def append(self, line: str, path: str | None = None) -> None:
        """Append a line to a file (without a path: to the own one), unless the file has it."""
        path = path or self.own_file
        text = self.files.get(path, "")
        if line in text.split("\n"):
            return
        self._set(path, decoded(with_lines(encoded(text), encoded(line))))

    def _set(self, path: str, text: str) -> None:
        self.files[path] = text
        self.changed.add(path)


def change_defaults(draft: Draft, wanted: Sequence[str], *, serial_console: bool, is_moved: bool) -> None:
    """Give kernels that update-grub finds the wanted arguments, and show GRUB's menu on the serial line, too.

    With is_moved the system was built on new file systems, and arguments that name the old ones are removed. Values
    with variables and escapes are kept, and the arguments are added after them. A system without GRUB's tools and
    settings is not changed.
    """
    defaults = _read(draft)
    if defaults is None:
        return
    if is_moved:
        for name in (_LINE, _MORE):
            _forget_old_machine(defaults, name, wanted)
    _add_arguments(defaults, wanted)
    if serial_console:
        _add_terminal(defaults)
    for path in sorted(defaults.changed):
        draft.change(path, encoded(defaults.files[path]), "settings of update-grub")


def plain_arguments(draft: Draft) -> list[str]:
    """Return the arguments that update-grub gives to kernels if they are plain text, those for all kernels first."""
    defaults = _read(draft)
    if defaults is None:
        return []
    return [word for name in (_LINE, _MORE) for word in defaults.value(name).split() if is_plain(word)]


def _read(draft: Draft) -> _Defaults | None:
    paths = [PATH, *draft.files(_DIRECTORY, "*.cfg")]
    found = {path: decoded(data) for path in paths if (data := draft.read(path)) is not None}
    if PATH not in found and not any(draft.is_file(path) for path in _GENERATORS):
        return None
    return _Defaults(found, _OWN_FILE if PATH not in found and draft.exists(_DEBIAN) else PATH)


def _forget_old_machine(defaults: _Defaults, name: str, wanted: Sequence[str]) -> None:
    old = defaults.value(name)
    kept = [word for word in old.split() if word in wanted or without_old_machine([word])]
    if len(kept) < len(old.split()):
        defaults.assign(name, " ".join(kept))


def _add_arguments(defaults: _Defaults, wanted: Sequence[str]) -> None:
    line = defaults.value(_LINE)
    words = [grub_word(word) for word in wanted]
    missing = missing_words(f"{line} {defaults.value(_MORE)}", words)
    if not missing:
        return
    last = defaults.last(_LINE)
    if all(is_plain(word) for word in missing) and (last is None or last[1] is not None):
        defaults.assign(_LINE, " ".join([*line.split(), *missing]))
        return
    text = "".join("\\" + byte if byte in '\\"$`' else byte for byte in " ".join(missing))
    defaults.append(f'{_LINE}="${_LINE} {text}"', last[0] if last else None)


def _add_terminal(defaults: _Defaults) -> None:
    set_terminals = [name for name in _TERMINALS if defaults.last(name) is not None]
    if not any(word.startswith("serial") for name in set_terminals for word in defaults.value(name).split()):
        defaults.assign(_TERMINALS[0], "console serial")
    if defaults.last("GRUB_SERIAL_COMMAND") is None:
        defaults.assign("GRUB_SERIAL_COMMAND", _SERIAL_COMMAND)
