# SPDX-License-Identifier: MIT
"""What make foreign decides of two runs of an iotest, and how it takes what a program says."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from tests.foreign import streams
from tests.foreign.outcomes import PASSED, WORDING
from tests.foreign.qemu_calls import Run, Tally, compared, pairs
from tests.foreign.streams import ERROR, OUTPUT, Pieces


def call(*words: str, status: int = 0, output: str = "", error: str = "", **more: Any) -> dict[str, Any]:
    said = [[stream, text] for stream, text in ((OUTPUT, output), (ERROR, error)) if text]
    return {"words": list(words), "ours": True, "status": status, "said": said, **more}


GOOD = Run("pass", "read 512/512 bytes at offset 0\n", [call("create", "a", made={"format": "raw"})])
TRACEBACK = "Traceback (most recent call last):\n  x\nKeyError: 1\n"


@pytest.mark.parametrize(
    ("ours", "kind"),
    [
        (GOOD, PASSED),
        (Run("pass", GOOD.output, [call("create", "a", error="why", made={"format": "raw"})]), WORDING),
        (Run("pass", GOOD.output, [call("create", "a", output="1", made={"format": "raw"})]), PASSED),
        (Run("fail", GOOD.output + "another line\n", GOOD.calls), "text"),
        (Run("skip", "", GOOD.calls), "text"),
        (Run("fail", "Pattern verification failed at offset 0, 512 bytes\n", GOOD.calls), "wrong data"),
        (Run("pass", GOOD.output, [call("create", "a", status=1)]), "status"),
        (Run("pass", GOOD.output, [call("create", "a", made={"format": "qcow2"})]), "image"),
        (Run("pass", GOOD.output, [call("convert", "a", "b", data="differs: at 0")]), "wrong data"),
        (Run("pass", GOOD.output, [call("create", "a", status=1, error=TRACEBACK)]), "traceback"),
        (Run("hang"), "hang"),
    ],
)
def test_the_worst_difference_counts(ours: Run, kind: str) -> None:
    assert compared(GOOD, ours)[0] == kind


def test_a_text_names_the_calls_that_print_something_else() -> None:
    theirs, ours = (Run("fail", text, [call("map", "/x/a", output=text)]) for text in ("0", "0x0"))
    assert compared(theirs, ours) == ("text", "map a: -0 +0x0")


def test_calls_are_counted_by_subcommand() -> None:
    theirs = Run("pass", "", [call("info", "a", output="1"), call("check", "a"), call("--help"), call("info", "b")])
    ours = Run(
        "pass", "", [call("info", "a", output="2"), call("check", "a", status=1), {**call("--help"), "ours": False}]
    )
    ours.calls.append(call("info", "b", error="why"))
    tally = Tally()
    tally.add(theirs, ours)
    assert tally.table().splitlines()[2:] == [
        "| check | 1 | 1 | 0 | 1 |",
        "| info | 2 | 2 | 2 | 0 |",
        "| none | 1 | 0 | 0 | 0 |",
        "| all | 4 | 3 | 2 | 1 |",
    ]
    assert tally.sentences == 1
    again = Tally()
    again.add(theirs, Run("fail", "", ours.calls))
    assert again.equal == {"info": 1}


def test_a_call_that_one_run_does_not_make_is_left_out() -> None:
    theirs = Run("pass", "", [call("info", "a"), call("check", "a", status=3), call("info", "b", output="1")])
    ours = Run("fail", "", [call("info", "a"), call("info", "b", output="2")])
    assert [(pair.words, pair.difference) for pair in pairs(theirs, ours)] == [("info a", ""), ("info b", "output")]


def test_streams_are_taken_in_the_order_of_writing(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    script = "import os\nfor stream in (1, 2, 1, 1, 2): os.write(stream, b'x')\nos._exit(3)"
    said: Pieces = [(OUTPUT, b"x"), (ERROR, b"x"), (OUTPUT, b"xx"), (ERROR, b"x")]
    assert streams.run([sys.executable, "-c", script], None) == (3, said)
    streams.write(said)
    assert capfdbinary.readouterr() == (b"xxx", b"xx")


@pytest.mark.parametrize(
    ("ours", "theirs", "shown"),
    [
        ([(OUTPUT, b"o")], [(ERROR, b"why")], [(OUTPUT, b"o")]),
        ([(ERROR, b"ours")], [(OUTPUT, b"o")], [(ERROR, b"ours")]),
        ([(OUTPUT, b"o"), (ERROR, b"ours")], [(OUTPUT, b"x"), (ERROR, b"why")], [(OUTPUT, b"o"), (ERROR, b"why")]),
        (
            [(ERROR, b"1"), (OUTPUT, b"o"), (ERROR, b"2")],
            [(ERROR, b"one"), (OUTPUT, b"x"), (ERROR, b"two")],
            [(ERROR, b"one"), (OUTPUT, b"o"), (ERROR, b"two")],
        ),
        (
            [(OUTPUT, b"o"), (ERROR, b"1"), (OUTPUT, b"p"), (ERROR, b"2")],
            [(ERROR, b"why"), (OUTPUT, b"o")],
            [(OUTPUT, b"o"), (ERROR, b"why"), (OUTPUT, b"p"), (ERROR, b"")],
        ),
    ],
)
def test_sentences_are_exchanged_where_both_have_some(ours: Pieces, theirs: Pieces, shown: Pieces) -> None:
    assert streams.with_errors(ours, theirs) == shown
