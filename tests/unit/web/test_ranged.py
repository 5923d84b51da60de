# SPDX-License-Identifier: MIT
"""Ranges of a file on a server, which may contradict itself or change the file."""

from __future__ import annotations

import os

import pytest

from pydiskimg.web import client as client_module
from pydiskimg.web import retries
from pydiskimg.web.address import parse_address
from pydiskimg.web.client import Client
from pydiskimg.web.errors import FetchError, NoRangesError, NotThereError, UnreachableError
from pydiskimg.web.ranged import RangedFile, open_ranged
from tests.fixtures.image_server import File, ImageServer
from tests.fixtures.limits import assert_sentence

DATA = os.urandom(300_000)
FIRST = 1000


def opened(server: ImageServer, *, name: str = "x") -> RangedFile:
    client = Client(agent="test", kept=4)
    try:
        return open_ranged(client, parse_address(f"{server.url}/{name}"), first=FIRST)
    except BaseException:
        client.close()
        raise


def read(file: RangedFile, offset: int, length: int) -> bytes:
    buffer = bytearray(length)
    file.read_into(offset, memoryview(buffer))
    return bytes(buffer)


@pytest.fixture
def file(server: ImageServer) -> File:
    return server.put("x", DATA, checksum=False)


def refused(server: ImageServer, kind: type[FetchError] = FetchError) -> str:
    """Open the file, which the server serves properly once, read a range, and return what is said."""
    ranged = opened(server)
    with pytest.raises(kind) as caught:
        read(ranged, 5000, 70_000)
    ranged.close()
    assert_sentence(str(caught.value))
    return str(caught.value)


def test_ranges_come_over_one_connection(server: ImageServer, file: File) -> None:
    ranged = opened(server)
    assert ranged.size == len(DATA)
    assert ranged.beginning == DATA[:FIRST]
    assert read(ranged, 5000, 70_000) == DATA[5000:75_000]
    assert read(ranged, len(DATA) - 1, 1) == DATA[-1:]
    assert server.ranges("x") == ["bytes=0-999", "bytes=5000-74999", "bytes=299999-299999"]
    assert [asked.headers.get("if-range") for asked in server.asked] == [None, file.etag, file.etag]
    assert len({asked.port for asked in server.asked}) == 1
    ranged.close()


@pytest.mark.parametrize("size", [0, 1, FIRST, FIRST + 1])
def test_small_files(server: ImageServer, size: int) -> None:
    server.put("x", DATA[:size], checksum=False)
    ranged = opened(server)
    assert (ranged.size, ranged.beginning) == (size, DATA[: min(FIRST, size)])
    ranged.close()


def test_a_connection_that_the_server_has_closed_is_made_again(server: ImageServer, file: File) -> None:
    ranged = opened(server)
    file.faults.append("closing")
    for offset in (5000, 6000, 7000):
        assert read(ranged, offset, 10) == DATA[offset : offset + 10]
    assert server.count("x") == 4
    ranged.close()


@pytest.mark.parametrize("fault", ["cut:100", "reset:100", "short:5", "503", "429", "chunked-cut:1"])
def test_what_passes_is_tried_again_from_where_it_ended(server: ImageServer, file: File, fault: str) -> None:
    ranged = opened(server)
    file.faults += [fault] * 3
    assert read(ranged, 5000, 70_000) == DATA[5000:75_000]
    ranged.close()


def test_a_server_that_breaks_off_each_time_is_given_up(server: ImageServer, file: File) -> None:
    file.faults.append("")
    file.always = "cut:100"
    assert "before the end of the range" in refused(server, UnreachableError)
    assert server.count("x") == 1 + retries.ATTEMPTS


@pytest.mark.parametrize(
    ("change", "etag"),
    [(DATA[::-1], '"2"'), (DATA + b"x", '"2"'), (DATA[:6000], '"2"'), (DATA[:4000], '"2"'), (DATA + b"x", '"1"')],
    ids=["as long", "longer", "shorter", "without the range", "longer with the same ETag"],
)
def test_a_file_that_changes_is_an_error(server: ImageServer, file: File, change: bytes, etag: str) -> None:
    ranged = opened(server)
    file.data, file.etag = change, etag
    with pytest.raises(FetchError, match="changed on the server while it was read") as caught:
        read(ranged, 5000, 70_000)
    assert_sentence(str(caught.value))
    assert not isinstance(caught.value, UnreachableError)
    ranged.close()


@pytest.mark.parametrize("fault", ["tag:", 'tag:"2"', "no-range"])
def test_an_answer_of_another_version(server: ImageServer, file: File, fault: str) -> None:
    file.faults.append("")
    file.always = fault
    assert "changed on the server while it was read" in refused(server)
    assert server.count("x") == 2, "a change is not tried again"


def test_last_modified_serves_where_there_is_no_etag(server: ImageServer) -> None:
    date = "Mon, 30 Nov 2026 12:00:00 GMT"
    file = server.put("x", DATA, checksum=False, etag=None, modified=date)
    ranged = opened(server)
    assert read(ranged, 5000, 10) == DATA[5000:5010]
    assert server.asked[-1].headers["if-range"] == date
    file.modified = "Mon, 30 Nov 2026 12:00:01 GMT"
    with pytest.raises(FetchError, match="file changed"):
        read(ranged, 5000, 10)
    ranged.close()


def test_a_weak_etag_is_compared_and_not_sent(server: ImageServer) -> None:
    file = server.put("x", DATA, checksum=False, etag='W/"1"')
    ranged = opened(server)
    assert read(ranged, 5000, 10) == DATA[5000:5010]
    assert "if-range" not in server.asked[-1].headers
    file.etag = 'W/"2"'
    with pytest.raises(FetchError, match="file changed"):
        read(ranged, 5000, 10)
    ranged.close()


def test_a_server_that_tells_no_version_is_refused(server: ImageServer) -> None:
    server.put("x", DATA, checksum=False, etag=None)
    with pytest.raises(FetchError, match="neither ETag nor Last-Modified") as caught:
        opened(server)
    assert_sentence(str(caught.value))


@pytest.mark.parametrize("fault", ["no-range", "forever"])
def test_a_server_without_ranges_is_told_at_once(server: ImageServer, file: File, fault: str) -> None:
    file.always = fault
    with pytest.raises(NoRangesError, match="only the whole file"):
        opened(server)
    assert server.count("x") == 1


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("lie:1", "another range than was requested"),
        ("content-range:bytes 5000-74998/300000", "another range than was requested"),
        ("content-range:bytes 0-69999/300000", "another range than was requested"),
        ("content-range:bytes 5000-74999/*", "file changed"),
        ("content-range:bytes 5000-74999/300001", "file changed"),
        ("content-range:bytes 5000-74999/99999999999999999999", "file changed"),
        ("content-range:\u00b2", "file changed"),
        ("content-range:", "file changed"),
        ("length:69999", "another range than was requested"),
        ("length:99999999", "another range than was requested"),
        ("encoded:gzip", "Content-Encoding"),
        ("404", "404"),
        ("401", "401"),
        ("416", "416"),
    ],
)
def test_servers_that_contradict_themselves(server: ImageServer, file: File, fault: str, said: str) -> None:
    file.faults.append("")
    file.always = fault
    assert said in refused(server)
    assert server.count("x") == 2, "it is not asked again"


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("content-range:bytes 0-999/*", "does not state the size"),
        ("content-range:", "does not state the size"),
        ("content-range:bytes 1-1000/300000", "another range"),
        ("content-range:bytes 0-999/999", "another range"),
        ("encoded:gzip", "Content-Encoding"),
        ("416", "does not state the size"),
    ],
)
def test_first_answers_that_contradict_themselves(server: ImageServer, file: File, fault: str, said: str) -> None:
    file.always = fault
    with pytest.raises(FetchError, match=said) as caught:
        opened(server)
    assert_sentence(str(caught.value))


@pytest.mark.parametrize("fault", ["silent", "drip", "stop:100", "garbage"])
def test_servers_that_say_next_to_nothing(
    server: ImageServer, file: File, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    for name in ("TIMEOUT_SECONDS", "HEADERS_SECONDS", "STALL_SECONDS"):
        monkeypatch.setattr(client_module, name, 0.1)
    file.faults.append("")
    file.always = fault
    refused(server, UnreachableError)


def test_a_redirection_is_followed_once(server: ImageServer, file: File) -> None:
    moved = server.put("moved", b"", checksum=False, always="to:/images/x")
    ranged = opened(server, name="moved")
    assert read(ranged, 5000, 10) == DATA[5000:5010]
    assert (server.count("moved"), server.count("x")) == (1, 2)
    # An address that is valid for a while only: the first one leads to another.
    server.put("y", DATA, checksum=False)
    del server.files["/images/x"]
    moved.always = "to:/images/y?signature=s3cret"
    server.files["/images/y?signature=s3cret"] = server.files["/images/y"]
    assert read(ranged, 5000, 10) == DATA[5000:5010]
    assert server.count("moved") == 2
    del server.files["/images/y?signature=s3cret"]
    with pytest.raises(NotThereError) as caught:
        read(ranged, 5000, 10)
    assert "s3cret" not in str(caught.value)
    ranged.close()
