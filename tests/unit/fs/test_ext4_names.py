# SPDX-License-Identifier: MIT
"""The names of a file system that is filled, against dictionaries."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pydiskimg.fs.ext4.populate.names import NameTable
from pydiskimg.fs.ext4.tree.entry_paths import Named

NAMES = st.sampled_from([bytes([letter]) * count for letter in b"abc" for count in (1, 2)])
Located = tuple[int, bytes]
IN_DIRECTORIES = st.tuples(st.integers(1, 3), NAMES)
STEPS = st.lists(st.tuples(IN_DIRECTORIES, st.booleans(), st.lists(IN_DIRECTORIES, max_size=2)), max_size=60)


@given(steps=STEPS)
def test_names_come_and_go_as_in_dictionaries(steps: list[tuple[Located, bool, list[Located]]]) -> None:
    """Others may be looked for between looking for a name and adding it."""
    table = NameTable()
    model: dict[tuple[int, bytes], Named] = {}
    for number, ((directory, name), add, looked_for) in enumerate(steps, 1):
        assert table.find(directory, name) == model.get((directory, name))
        for one in looked_for:
            assert table.find(*one) == model.get(one)
        if add and (directory, name) not in model:
            model[directory, name] = Named(number, number % 7 + 1)
            table.add(directory, name, *model[directory, name])
        elif not add and (directory, name) in model:
            del model[directory, name]
            table.remove(directory, name)
    for directory in (1, 2, 3):
        expected = {name: named for (above, name), named in model.items() if above == directory}
        assert dict(table.in_directory(directory)) == expected


def test_a_table_that_grows_finds_all_names() -> None:
    table = NameTable()
    names = [(number % 50 + 2, f"{number // 50}".encode() * (number % 3 + 1)) for number in range(20_000)]
    for number, (directory, name) in enumerate(dict.fromkeys(names)):
        table.add(directory, name, number + 1, 1)
    assert [table.find(*name) for name in dict.fromkeys(names)] == [
        Named(number + 1, 1) for number in range(len(dict.fromkeys(names)))
    ]
    assert table.find(1, b"0") is None
    in_order = [name for directory, name in dict.fromkeys(names) if directory == 7]
    assert [name for name, _ in table.in_directory(7)] == in_order[::-1]
