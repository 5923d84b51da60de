# SPDX-License-Identifier: MIT
"""The two locks of an image: which process may delete, and that no process keeps the lock file of a deleted image."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from ganeti_os.fetch.lock import Fetcher, using


def nothing() -> None:
    """Neither ended nor the last one matters."""


def test_the_last_one_is_told_and_takes_the_lock_file_away(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    told = []
    with using(str(path), nothing, lambda: told.append("first")):
        with using(str(path), nothing, lambda: told.append("second")):
            pass
        assert path.exists()
    assert told == ["first"]
    assert not path.exists()


def test_who_comes_while_it_is_deleted_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    waits, entered, release = threading.Event(), threading.Event(), threading.Event()

    def newcomer() -> None:
        with using(str(path), waits.set, nothing):
            entered.set()
            release.wait(10)

    thread = threading.Thread(target=newcomer)

    def last() -> None:
        thread.start()
        assert waits.wait(10)
        assert not entered.is_set()

    with using(str(path), nothing, last):
        pass
    assert entered.wait(10)
    assert path.exists(), "the newcomer holds a lock that nobody else can see"
    told = []
    with using(str(path), nothing, lambda: told.append("deletes")):
        pass
    assert told == []
    release.set()
    thread.join(10)
    assert not path.exists()


def test_a_failure_to_clean_up_is_only_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise PermissionError(13, "no")

    with using(str(tmp_path / "lock"), nothing, fail):
        pass
    assert "lock: cannot clean up: Permission denied" in caplog.text


def test_what_is_told_to_those_who_wait(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    seen = []

    class EnoughError(Exception):
        pass

    def wait(fetcher: Fetcher | None) -> None:
        seen.append(fetcher)
        raise EnoughError

    me = Fetcher(7, "inst1 grün", 12)
    with using(path, nothing, nothing) as first, using(path, nothing, nothing) as second:
        with first.fetching(Fetcher(7, "x" * 1000), wait):
            first.tell(me)
            with pytest.raises(EnoughError), second.fetching(Fetcher(8, ""), wait):
                pytest.fail("two fetch")
        with second.fetching(Fetcher(8, ""), wait):
            pass
    assert seen == [me]
    assert str(me) == "process 7 (instance inst1 grün)"
