# SPDX-License-Identifier: MIT
"""A binary record, declared as in its specification: a table of offset, struct code and field name."""

from __future__ import annotations

from _struct import Struct, calcsize  # struct.py only re-exports these, and takes 0.1 ms to import

from pydiskimg.startup import TYPE_CHECKING, cached_property

if TYPE_CHECKING:  # imported by the fastest commands
    from collections.abc import Callable, Mapping
    from typing import Any, TypeAlias

Value: TypeAlias = "int | bytes"


class Record:
    """A fixed-size record with named fields, for reading and writing alike.

    The table has one line per field: byte offset, struct code (I, H, B, Q, 16s, ...), name; the rest of the line is
    a comment. The offsets are checked against the codes, and the size is asserted. The table is parsed on first use: a
    short command uses few of the records that it imports.
    """

    codes: dict[str, str]
    offsets: dict[str, int]
    names: tuple[str, ...]
    values: Callable[..., tuple[Any, ...]]
    """Values in the table's order, without names: called as unpack(), for records read once per file or block."""
    _struct: Struct

    def __init__(self, name: str, byte_order: str, size: int, table: str) -> None:
        self.name = name
        self.size = size
        self._order = byte_order
        self._table = table

    if not TYPE_CHECKING:  # otherwise a type checker would accept any name as one of these

        def __getattr__(self, name):
            """Parse the table when an attribute that depends on it is first used."""
            if "codes" in vars(self):
                raise AttributeError(f"a Record has no {name}")
            self._read_table()
            return getattr(self, name)

    def _read_table(self) -> None:
        self.codes, self.offsets = {}, {}
        at = 0
        for line in filter(str.strip, self._table.splitlines()):
            margin, code, field, *_ = line.split(None, 3)
            where = f"{self.name}.{field}"
            assert int(margin, 16) == at, f"{where}: the table says {margin}, the fields before end at {at:#x}"
            self.offsets[field], self.codes[field] = at, code
            at += calcsize(self._order + code)
        self.names = tuple(self.codes)
        self._struct = Struct(self._order + "".join(self.codes.values()))
        assert self._struct.size == self.size == at, f"{self.name}: {at} bytes, expected {self.size}"
        self.values = self._struct.unpack_from

    @cached_property
    def _empty(self) -> dict[str, Any]:
        return self.unpack(bytes(self.size))

    @cached_property
    def _packers(self) -> dict[str, tuple[int, Callable[..., None]]]:
        """For each field its offset, and the function that writes it there."""
        return {name: (at, Struct(self._order + self.codes[name]).pack_into) for name, at in self.offsets.items()}

    def pack(self, **values: Value) -> bytes:
        """Return the record's bytes; fields that are not given are zero. KeyError for a field that does not exist."""
        fields = {**self._empty, **values}
        if len(fields) != len(self.names):
            unknown = values.keys() - self.offsets.keys()
            raise KeyError(f"{self.name} has no field {', '.join(sorted(unknown))}")
        return self._struct.pack(*fields.values())

    def packer(self, *fields: str) -> Callable[..., bytes]:
        """Return a pack() that takes these fields by position; they are named in the table's order, others are zero.

        For records that are written for each file.
        """
        assert fields == tuple(name for name in self.names if name in fields), f"{self.name}: {fields} are out of order"
        widths = {name: f"{calcsize(self._order + code)}x" for name, code in self.codes.items()}
        return Struct(
            self._order + "".join(self.codes[name] if name in fields else widths[name] for name in widths)
        ).pack

    def unpack(self, data: bytes | bytearray | memoryview, offset: int = 0) -> dict[str, Any]:
        """Return every field of the record at offset in data: bytes if its code ends with s, otherwise a number."""
        return dict(zip(self.names, self._struct.unpack_from(data, offset), strict=True))

    def slice_of(self, field: str) -> slice:
        """Return the field's slice of a record's bytes."""
        start = self.offsets[field]
        return slice(start, start + calcsize(self._order + self.codes[field]))

    def put(self, data: bytearray, values: Mapping[str, Value], offset: int = 0) -> None:
        """Change single fields of a record in place."""
        packers = self._packers
        for field, value in values.items():
            at, pack_into = packers[field]
            pack_into(data, offset + at, value)
