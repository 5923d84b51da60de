# SPDX-License-Identifier: MIT
"""A YAML document as nodes with their locations, so that one value can be replaced and all else stays.

Only this module imports PyYAML. A guest's document is bounded: bytes, depth and nodes. An alias is the node of its
anchor, and counts with all its contents, because readers process it again. Objects are never constructed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.system.edits.span import Span

if TYPE_CHECKING:
    import yaml

SIZE_LIMIT = 64 << 10  # bytes; PyYAML reads about 200 KB a second
_DEPTH = 32
_NODES = 10_000


class YamlError(Exception):
    """The text is not YAML, or too large. The text of the error says why; line counts from 1."""

    def __init__(self, message: str, line: int = 1) -> None:
        super().__init__(message)
        self.line = line


@dataclass(slots=True)
class Scalar:
    """span is the location of the value, None if the file spells it in another way (escapes, folded lines)."""

    value: str
    span: Span | None


@dataclass(slots=True)
class Sequence:
    items: list[Node] = field(default_factory=list)


@dataclass(slots=True)
class Mapping:
    """pairs in the order of the file; a key may occur twice."""

    pairs: list[tuple[Node, Node]] = field(default_factory=list)

    def get(self, key: str) -> Node | None:
        """Return the last value of a key."""
        return next(
            (value for name, value in reversed(self.pairs) if isinstance(name, Scalar) and name.value == key), None
        )

    def items(self) -> list[tuple[Scalar, Node]]:
        """Return the pairs whose key is a scalar."""
        return [(name, value) for name, value in self.pairs if isinstance(name, Scalar)]


Node = Scalar | Sequence | Mapping


def yaml_document(data: bytes) -> Node | None:
    """Return the first document, None for an empty one. Raises YamlError; ModuleNotFoundError without PyYAML."""
    import yaml  # an optional dependency; only guests with netplan need it

    if len(data) > SIZE_LIMIT:
        raise YamlError(f"it is larger than {SIZE_LIMIT} bytes")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise YamlError("it is not UTF-8", data.count(b"\n", 0, error.start) + 1) from error
    try:
        return _Builder(text).build(yaml.parse(text, Loader=yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise YamlError(f"it is not YAML: {error.problem or error.context or 'unknown error'}", line) from error
    except yaml.YAMLError as error:  # a character that YAML does not allow
        raise YamlError(f"it is not YAML: {' '.join(str(error).split())}"[:200]) from error
    except (ValueError, OverflowError) as error:  # of %YAML 1.99999..., or \UFFFFFFFF
        raise YamlError(f"it is not YAML: {error}"[:200]) from error


class _Builder:
    """Makes nodes of events, without recursion."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._is_ascii = text.isascii()
        self._anchors: dict[str, tuple[Node, int]] = {}  # with the count of the nodes in each
        self._open: list[tuple[Sequence | Mapping, list[Node], str | None, int]] = []
        self._count = 0

    def build(self, events: Iterable[yaml.Event]) -> Node | None:
        for event in events:
            node = self._node(event)
            if node is None:
                continue
            if self._count > _NODES:
                raise YamlError(f"it has more than {_NODES} values", _line(event))
            if not self._open:
                return node
            self._open[-1][1].append(node)
        return None

    def _node(self, event: yaml.Event) -> Node | None:
        """Return the node that an event completes."""
        import yaml

        match event:
            case yaml.ScalarEvent():
                scalar = Scalar(event.value, self._span(event))
                self._name(event.anchor, scalar, self._count)
                return scalar
            case yaml.AliasEvent():
                found = self._anchors.get(str(event.anchor))
                if found is None:
                    raise YamlError(f"*{str(event.anchor)[:40]} has no anchor", _line(event))
                node, size = found
                self._count += size
                return node
            case yaml.SequenceStartEvent() | yaml.MappingStartEvent():
                node = Sequence() if isinstance(event, yaml.SequenceStartEvent) else Mapping()
                self._open.append((node, [], event.anchor, self._count))
                if len(self._open) > _DEPTH:
                    raise YamlError(f"it has more than {_DEPTH} nested levels", _line(event))
            case yaml.CollectionEndEvent():
                return self._close()
        return None

    def _close(self) -> Node:
        node, items, anchor, before = self._open.pop()
        if isinstance(node, Sequence):
            node.items = items
        else:
            node.pairs = list(zip(items[::2], items[1::2], strict=True))
        self._name(anchor, node, before)
        return node

    def _name(self, anchor: str | None, node: Node, before: int) -> None:
        """Count a complete node, and record its anchor only now, so that it cannot contain itself."""
        self._count += 1
        if anchor is not None:
            self._anchors[anchor] = node, self._count - before

    def _span(self, event: yaml.ScalarEvent) -> Span | None:
        assert event.start_mark is not None
        assert event.end_mark is not None
        value = event.value
        end = event.end_mark.index - (1 if event.style in ("'", '"') else 0)
        start = end - len(value)
        if event.style in ("|", ">") or start < event.start_mark.index or self._text[start:end] != value:
            return None
        first = start if self._is_ascii else len(self._text[:start].encode("utf-8"))
        encoded = value.encode("utf-8")
        return Span(first, first + len(encoded), encoded)


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark is not None else 1
