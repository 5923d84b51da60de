# SPDX-License-Identifier: MIT
"""interfaces(5) of Debian's ifupdown, and of ifupdown-ng, ifupdown2 and busybox, which read the same files."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator

from ganeti_os.guest.facts.addresses import Interface
from ganeti_os.guest.network.files import NetworkFiles, has_wildcard
from ganeti_os.guest.network.ip_commands import commands
from pydiskimg.system.edits.span import Span

# A backslash continues a line, but not a comment.
_LINE = re.compile(rb"^[ \t]*+([^#\s](?:[^\\\n]|\\(?:[^\n]|\n|\Z))*+)", re.MULTILINE)
_WORD = re.compile(rb"(?:[^\s\\]|\\(?:\n|[^\s]|\Z))++")
_STARTS = (b"iface", b"auto", b"mapping", b"source", b"source-directory", b"no-auto-down", b"no-scripts", b"template")
_STANZAS = (b"iface", b"template")
_INCLUDES = (b"source", b"source-directory")
_KINDS = ("address", "netmask", "network", "broadcast", "gateway")
_COMMANDS = (b"up", b"post-up", b"pre-up", b"down", b"post-down", b"pre-down")
_OWN_NAMES = (None, b"$IFACE", b"${IFACE}", b"--")
_NAME = re.compile(r"[A-Za-z0-9_-]+")  # of a file in a source-directory
_BY_MAC = re.compile(rb"/?mac/([0-9A-Fa-f:]{17})=(\S++)")  # auto mac/ADDRESS=NAME
_FILES = 256
_INHERITED = 1000  # addresses of all templates; a guest may let ten thousand stanzas inherit ten thousand each


def ifupdown_paths(files: NetworkFiles) -> list[str]:
    """Return the files that ifupdown reads, including those named by `source`; at most a few hundred."""
    paths = [*files.files("/etc/network", "interfaces"), *files.files("/etc/network/interfaces.d", "*")]
    named: set[tuple[bytes, str, bytes]] = set()
    for path in paths:  # the list grows
        for keyword, word in _includes(files.read(path)):
            key = (keyword, posixpath.dirname(path), word.text)
            if key not in named and len(named) < _FILES:
                named.add(key)
                included = _included(files, path, word, keyword)
                paths += [found for found in included if found not in paths][: _FILES - len(paths)]
    return paths


def ifupdown_interfaces(files: NetworkFiles) -> Iterator[Interface]:
    """Yield a stanza `iface` as one interface each, and the interfaces that its commands configure."""
    templates: dict[str, Interface] = {}
    stanzas: list[tuple[Interface, bytes | None]] = []
    for path in ifupdown_paths(files):
        for stanza, parent in _stanzas(path, files.read(path)):
            if not stanza.names_only:
                templates[stanza.name] = stanza
            stanzas.append((stanza, parent))
    inherited = 0
    for stanza, parent in stanzas:
        template = templates.get(parent.decode("latin-1")) if parent is not None else None
        if template is not None and template is not stanza and inherited < _INHERITED:
            inherited += len(template.addresses) + len(template.others)
            stanza.addresses += template.addresses if not stanza.addresses else []
            stanza.others += template.others
            template.names_only = True
    yield from (stanza for stanza, _ in stanzas)


def _includes(data: bytes) -> Iterator[tuple[bytes, Span]]:
    """Yield the keyword and the name of each further file or directory to be read."""
    for words in _lines(data) if b"source" in data else ():
        if words[0].text in _INCLUDES:
            yield from ((words[0].text, word) for word in words[1:])


def _lines(data: bytes) -> Iterator[list[Span]]:
    """Yield the words of each line; a continued one is one line."""
    for line in _LINE.finditer(data):
        words = [word for match in _WORD.finditer(data, *line.span(1)) if (word := _word(match)).text]
        if words:
            yield words


def _word(match: re.Match[bytes]) -> Span:
    """Return a word without continuations of lines in it."""
    data, (start, end) = match.string, match.span()
    while data.startswith(b"\\\n", start, end):
        start += 2
    while data.endswith(b"\\\n", start, end):
        end -= 2
    return Span(start, end, data[start:end])


def _included(files: NetworkFiles, path: str, word: Span, keyword: bytes) -> list[str]:
    """Return the files of a line `source` or `source-directory`; a relative name is relative to the file."""
    target = posixpath.normpath(posixpath.join(posixpath.dirname(path), word.text.decode("utf-8", "surrogateescape")))
    directory, _, name = target.rpartition("/")
    if not directory or "\0" in target:  # "/" itself, or no path at all
        return []
    if has_wildcard(directory) or "$" in target or "`" in target:
        files.warn(f"{files.location(path, word.start)}: the files of this {keyword.decode()} are not searched")
        return []
    if keyword == b"source":
        return files.files(directory, name)
    parents = files.directories(directory, name) if has_wildcard(name) else [target]
    found = [found for parent in parents for found in files.files(parent, "*")]
    return [path for path in found if _NAME.fullmatch(path.rpartition("/")[2])]


def _stanzas(path: str, data: bytes) -> Iterator[tuple[Interface, bytes | None]]:
    """Yield each stanza with the name of the one that it inherits from."""
    stanza: Interface | None = None
    static = False
    for words in _lines(data):
        keyword = words[0].text
        if keyword in _STARTS or keyword.startswith(b"allow-"):
            stanza = None
            for named in _named_by_mac(path, words):
                yield named, None
            if keyword in _STANZAS and len(words) > 1:
                texts = [word.text for word in words]
                stanza = Interface(texts[1].decode("latin-1"))
                static = _is_static(texts)
                inherits = texts.index(b"inherits") if b"inherits" in texts[:-1] else None
                yield stanza, texts[inherits + 1] if inherits is not None else None
        elif stanza is None or len(words) < 2:
            continue
        elif keyword in _COMMANDS:
            for other in _add_commands(stanza, path, data, words):
                yield other, None
        elif static and keyword.decode("latin-1") in _KINDS:
            stanza.add(path, keyword.decode("ascii"), words[1])


def _is_static(texts: list[bytes]) -> bool:
    """True for a stanza of static addresses, and for one without a method: `iface eth0` of ifupdown-ng."""
    return texts[3:4] == [b"static"] if texts[2:3] in ([b"inet"], [b"inet6"]) else True


def _named_by_mac(path: str, words: list[Span]) -> Iterator[Interface]:
    for word in words[1:]:
        if match := _BY_MAC.fullmatch(word.text):
            named = Interface(match.group(2).decode("latin-1"), names_only=True)
            start = word.start + match.start(1)
            named.add(path, "mac", Span(start, start + len(match.group(1)), match.group(1)))
            yield named


def _add_commands(stanza: Interface, path: str, data: bytes, words: list[Span]) -> Iterator[Interface]:
    """Add the values of commands for the stanza's interface, and yield those for others.

    An address in addition to the stanza's own is another one of the same interface, not its main one.
    """
    for command in commands(data, words[1].start, words[-1].end):
        is_own = command.device in (*_OWN_NAMES, stanza.name.encode("latin-1"))
        target = stanza if is_own else Interface((command.device or b"").decode("latin-1"))
        if is_own and stanza.addresses and command.gives_address:
            continue
        for kind, span in command.values:
            target.add(path, kind, span)
        if not is_own:
            yield target
