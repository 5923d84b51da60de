# SPDX-License-Identifier: MIT
"""Images fetched from a real web server on this machine: whole, checked, once, or not at all."""

from __future__ import annotations

import hashlib
import logging
import os
import stat
from pathlib import Path

import pytest

from ganeti_os.fetch import FetchError, UnreachableError, fetched
from ganeti_os.log import Messages
from ganeti_os.settings.settings import Layer, Settings
from pydiskimg.errors import StorageError
from pydiskimg.web import client, retries
from tests.fixtures.fetching import DATA, MIB, NAME, fetch, left, refused
from tests.fixtures.image_server import ImageServer


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "var" / "cache"


def test_an_image_is_fetched_checked_and_used_again(server: ImageServer, cache: Path) -> None:
    server.put(NAME, DATA)
    for _ in range(3):
        assert fetch(server.url, cache) == DATA
    assert server.count(NAME) == 1
    assert server.count("SHA256SUMS") == 3
    assert left(cache) == {NAME, f".{NAME}.json"}


def test_modes_do_not_depend_on_the_umask(server: ImageServer, cache: Path) -> None:
    server.put(NAME, b"x")
    before = os.umask(0o077)
    try:
        fetch(server.url, cache)
    finally:
        os.umask(before)
    assert stat.S_IMODE(cache.stat().st_mode) == 0o755
    assert stat.S_IMODE(cache.parent.stat().st_mode) == 0o755
    assert stat.S_IMODE((cache / NAME).stat().st_mode) == 0o644


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("SHA256SUMS", "{sha256} *{name}\n"),
        ("SHA256SUMS", "# all images\n" + "0" * 64 + "  other\n{sha256}  ./{name}\n"),
        (f"{NAME}.sha256", "{sha256}"),
        (f"{NAME}.sha256", "SHA256 (/srv/images/{name}) = {sha256}\n"),
        ("SHA512SUMS", "{sha512}  {name}\n"),
        ("CHECKSUM", "# {name}: 123 bytes\nSHA512 ({name}) = {sha512}\n"),
        (f"{NAME}.CHECKSUM", "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nSHA256 ({name}) = {sha256}\n"),
        (f"{NAME}.sha512", "SHA2-512({name})= {sha512}\n"),
        (f"{NAME}.sig", "{sha1}  {name}\n"),
    ],
)
def test_checksum_files(
    server: ImageServer, cache: Path, caplog: pytest.LogCaptureFixture, source: str, text: str
) -> None:
    server.put(NAME, DATA, checksum=False)
    sums = {algorithm: hashlib.new(algorithm, DATA).hexdigest() for algorithm in ("sha1", "sha256", "sha512")}
    server.sums(text.format(name=NAME, **sums), source)
    assert fetch(server.url, cache) == DATA
    assert ("by SHA-1 only" in caplog.text) == source.endswith(".sig")


def test_without_a_checksum_the_names_are_told(server: ImageServer, cache: Path) -> None:
    server.put(NAME, DATA, checksum=False)
    assert refused(server.url, cache) == (
        f"{server.url}/{NAME}: no checksum was found for it; the server has none of SHA256SUMS, {NAME}.sha256, "
        f"SHA512SUMS, CHECKSUM, {NAME}.sha512, {NAME}.CHECKSUM, {NAME}.sig, {NAME}.SHA256, {NAME}.SHA256SUM, "
        "CHECKSUM.SHA256, sha256sums; put one there, or set IMAGE_VERIFY=no to use the image unchecked"
    )
    assert server.ranges(NAME) == ["bytes=0-0"], "fetched for nothing"
    assert left(cache) == set()


def test_checksum_files_that_do_not_help_are_told(server: ImageServer, cache: Path) -> None:
    server.put(NAME, DATA, checksum=False)
    server.sums("0" * 64 + "  another\n")
    server.sums(f"MD5 ({NAME}) = {'0' * 32}\n", "CHECKSUM")
    assert refused(server.url, cache) == (
        f"{server.url}/{NAME}: no checksum was found for it: SHA256SUMS does not list it; CHECKSUM has a line "
        f"of unknown form: 'MD5 ({NAME}) = {'0' * 32}'; expected 'DIGEST  FILE' or 'SHA256 (FILE) = DIGEST', with "
        "SHA-256 or SHA-512; or set IMAGE_VERIFY=no to use the image unchecked"
    )
    assert server.ranges(NAME) == ["bytes=0-0"], "fetched for nothing"
    assert left(cache) == set()


@pytest.mark.parametrize("sums", ["", "0" * 64 + "  another\n"])
def test_an_image_that_the_server_does_not_have_lacks_no_checksum(server: ImageServer, cache: Path, sums: str) -> None:
    if sums:
        server.sums(sums)
    assert refused(server.url, cache) == (f"{server.url}/{NAME}: the server answers 404 Not Found")


def test_two_checksums_are_none(server: ImageServer, cache: Path) -> None:
    server.put(NAME, DATA)
    server.sums(f"{'0' * 64}  {NAME}\n{'1' * 64}  {NAME}\n")
    assert "SHA256SUMS: has 2 different SHA-256 checksums for" in refused(server.url, cache)


def test_what_differs_from_its_checksum_is_not_used(server: ImageServer, cache: Path) -> None:
    server.put(NAME, DATA, checksum=False)
    server.sums(f"{'0' * 64}  {NAME}\n")
    text = refused(server.url, cache)
    assert f"has SHA-256 {hashlib.sha256(DATA).hexdigest()}, but SHA256SUMS says SHA-256 {'0' * 64}" in text
    assert left(cache) == set()


def test_a_large_checksum_file_is_refused(server: ImageServer, cache: Path) -> None:
    server.put(NAME, DATA)
    server.files["/images/SHA256SUMS"].always = "forever"
    assert "SHA256SUMS: is larger than 1 MiB" in refused(server.url, cache)


@pytest.mark.parametrize("status", [401, 403, 404, 410, 451])
def test_an_image_that_cannot_be_had(server: ImageServer, cache: Path, status: int) -> None:
    server.put(NAME, DATA, always=str(status))
    assert refused(server.url, cache).startswith(f"{server.url}/{NAME}: the server answers {status} ")
    assert server.count(NAME) == 1
    assert left(cache) == set()


def test_a_server_in_trouble_is_asked_again(server: ImageServer, cache: Path) -> None:
    server.put(NAME, DATA, faults=["500", "503", "429", "garbage"])
    assert fetch(server.url, cache) == DATA


def test_but_not_for_ever(server: ImageServer, cache: Path) -> None:
    server.put(NAME, DATA, always="500")
    assert "the server answers 500 Internal Server Error" in refused(server.url, cache)
    assert server.count(NAME) == retries.ATTEMPTS


@pytest.mark.parametrize("fault", ["cut:3000000", "reset:3000000", "chunked-cut:3000000"])
@pytest.mark.parametrize("validator", ["etag", "modified"])
def test_a_connection_that_breaks_is_gone_on_with(server: ImageServer, cache: Path, fault: str, validator: str) -> None:
    file = server.put(NAME, DATA, faults=[fault])
    if validator == "modified":
        file.etag, file.modified = None, "Wed, 21 Oct 2015 07:28:00 GMT"
    assert fetch(server.url, cache) == DATA
    first, second = server.ranges(NAME)
    assert first is None
    assert second is not None
    assert int(second.removeprefix("bytes=").removesuffix("-")) > 2 * MIB


def test_many_breaks_with_something_each_time(server: ImageServer, cache: Path) -> None:
    data = os.urandom(12 * MIB)
    server.put(NAME, data, always=f"cut:{MIB + 7}")
    assert fetch(server.url, cache) == data
    assert server.count(NAME) == 12


def test_breaks_without_getting_on_end(server: ImageServer, cache: Path) -> None:
    server.put(NAME, DATA, etag=None, always="cut:2000000")
    assert "the connection ended after 2000000 of " in refused(server.url, cache)
    assert server.count(NAME) <= retries.ATTEMPTS + 1


def test_the_same_bytes_again_and_again_are_no_getting_on(server: ImageServer, cache: Path) -> None:
    server.put(NAME, DATA, etag=None, faults=["cut:3000000", "cut:1000"] * 20)
    refused(server.url, cache)
    assert server.count(NAME) == retries.ATTEMPTS + 1


@pytest.mark.parametrize("how", ["a weak ETag", "no validator", "no ranges", "a wrong range"])
def test_what_cannot_be_gone_on_with_starts_over(server: ImageServer, cache: Path, how: str) -> None:
    file = server.put(NAME, DATA, faults=["cut:3000000"])
    if how == "a weak ETag":
        file.etag = 'W/"1"'
    elif how == "no validator":
        file.etag = None
    else:
        file.faults.append("no-range" if how == "no ranges" else "lie:10")
    assert fetch(server.url, cache) == DATA
    assert server.ranges(NAME)[-1] == ("bytes=3000000-" if how == "no ranges" else None)


@pytest.mark.parametrize("etag", ['"2"', '"1"'], ids=["new version", "new contents that pretend to be the old version"])
def test_a_part_of_an_earlier_version_is_not_used(server: ImageServer, cache: Path, etag: str) -> None:
    server.put(NAME, DATA, faults=["cut:3000000", "404"])
    refused(server.url, cache)
    assert left(cache) == {f".{NAME}.part", f".{NAME}.from"}
    other = os.urandom(len(DATA))
    server.put(NAME, other, etag=etag)
    assert fetch(server.url, cache) == other
    assert server.ranges(NAME)[2] == "bytes=3000000-"
    assert left(cache) == {NAME, f".{NAME}.json"}


@pytest.mark.parametrize("size", [len(DATA), len(DATA) + 1])
def test_a_part_that_is_complete_or_more(server: ImageServer, cache: Path, size: int) -> None:
    server.put(NAME, DATA, faults=["cut:3000000", "404"])
    refused(server.url, cache)
    (cache / f".{NAME}.part").write_bytes((DATA + b"x")[:size])
    assert fetch(server.url, cache) == DATA
    assert server.count(NAME) == (3 if size == len(DATA) else 4)


@pytest.mark.parametrize("fault", ["short:1", "short:4000000"])
def test_a_body_shorter_than_its_length(server: ImageServer, cache: Path, fault: str) -> None:
    server.put(NAME, DATA, etag=None, always=fault)
    assert "the connection ended after" in refused(server.url, cache)


@pytest.mark.parametrize("fault", ["chunked", "unsized"])
def test_a_body_without_a_length(server: ImageServer, cache: Path, fault: str) -> None:
    server.put(NAME, DATA, always=fault)
    assert fetch(server.url, cache) == DATA


def test_nothing_comes(server: ImageServer, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "TIMEOUT_SECONDS", 0.2)
    server.put(NAME, DATA, etag=None, always="stop:1000")
    assert "no bytes arrived for 0 seconds" in refused(server.url, cache)


def test_next_to_nothing_comes(server: ImageServer, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "STALL_SECONDS", 0.1)
    monkeypatch.setattr(client, "STALL_BYTES", MIB)
    server.put(NAME, DATA, etag=None, always="slow:0.05")
    assert "bytes arrived in 0 seconds" in refused(server.url, cache)


@pytest.mark.parametrize("fault", ["chunk-size", "trailers"])
def test_what_comes_besides_the_body_counts_for_nothing(
    server: ImageServer, cache: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr(client, "STALL_SECONDS", 0.2)
    server.put(NAME, DATA, etag=None).faults += [fault] * 2
    assert fetch(server.url, cache) == DATA
    server.put(NAME + "2", DATA, always=fault)
    with pytest.raises(UnreachableError, match="less than 1024 bytes arrived in 0 seconds"):
        fetch(server.url, cache, name=NAME + "2")


def test_nobody_listens(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "PAUSE_SECONDS", 0.01)
    assert refused("http://127.0.0.1:1/x", cache).endswith("/SHA256SUMS: cannot be fetched: Connection refused")


@pytest.mark.parametrize("url", ["http://[::1/x", "http://host:99999/x", "http:///x", "http://h/x?y", "http://h/#x"])
def test_addresses_that_make_no_sense(cache: Path, url: str) -> None:
    assert "expected" in refused(url, cache)
    assert not cache.exists()


def test_a_changed_image_is_fetched_anew(server: ImageServer, cache: Path) -> None:
    server.put(NAME, DATA)
    fetch(server.url, cache)
    server.put(NAME, b"new", etag='"2"')
    assert fetch(server.url, cache) == b"new"
    assert left(cache) == {NAME, f".{NAME}.json"}


def test_without_the_server_what_was_checked_is_used(
    server: ImageServer, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.put(NAME, DATA)
    fetch(server.url, cache)
    server.files["/images/SHA256SUMS"].always = "502"
    assert fetch(server.url, cache) == DATA
    assert "is used as it was checked before" in caplog.text


@pytest.mark.parametrize("how", ["never checked", "changed since", "of another server"])
def test_without_the_server_nothing_else_is_used(server: ImageServer, cache: Path, how: str) -> None:
    server.put(NAME, DATA)
    fetch(server.url, cache)
    for file in server.files.values():
        file.always = "502"
    if how == "never checked":
        (cache / f".{NAME}.json").unlink()
    elif how == "changed since":
        with (cache / NAME).open("r+b") as image:
            image.write(b"other")
    url = f"{server.address}/elsewhere" if how == "of another server" else server.url
    if how == "of another server":
        server.sums("", "x").always = "502"
        server.files["/elsewhere/SHA256SUMS"] = server.files["/images/SHA256SUMS"]
    with pytest.raises(UnreachableError, match="502"):
        fetch(url, cache)


def test_an_image_that_somebody_put_there_is_checked_and_used(server: ImageServer, cache: Path) -> None:
    server.put(NAME, DATA)
    cache.mkdir(parents=True, mode=0o755)
    (cache / NAME).write_bytes(DATA)
    for _ in range(2):
        assert fetch(server.url, cache) == DATA
    assert server.count(NAME) == 0


@pytest.mark.parametrize("record", [b"", b"[]", b"{}", b"{", b'{"origin": 1, "checksum": 2}', b"\xff" * 100_000])
def test_records_that_are_none(server: ImageServer, cache: Path, record: bytes) -> None:
    server.put(NAME, DATA)
    fetch(server.url, cache)
    (cache / f".{NAME}.json").write_bytes(record)
    (cache / f".{NAME}.from").write_bytes(record)
    (cache / f".{NAME}.part").write_bytes(b"garbage")
    server.put(NAME, DATA + b"more")
    assert fetch(server.url, cache) == DATA + b"more"


def test_unchecked(server: ImageServer, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = server.put(NAME, DATA, checksum=False)
    for _ in range(2):
        assert fetch(server.url, cache, IMAGE_VERIFY="no") == DATA
    assert "IMAGE_VERIFY=no" in caplog.text
    assert [asked.headers.get("if-none-match") for asked in server.asked] == [None, '"1"']
    file.data, file.etag = b"new", '"2"'
    assert fetch(server.url, cache, IMAGE_VERIFY="no") == b"new"
    file.always = "503"
    assert fetch(server.url, cache, IMAGE_VERIFY="no") == b"new"
    assert left(cache) == {NAME, f".{NAME}.json"}
    with pytest.raises(FetchError):
        fetch(server.url, cache)  # unchecked is not checked


def test_unchecked_and_of_unknown_size_is_refused(server: ImageServer, cache: Path) -> None:
    server.put(NAME, DATA, checksum=False, always="unsized")
    assert "the server does not send the size" in refused(server.url, cache, IMAGE_VERIFY="no")
    server.put(NAME, DATA, checksum=False, always="chunked")
    assert fetch(server.url, cache, IMAGE_VERIFY="no") == DATA


def test_unchecked_goes_on_with_nothing_of_an_earlier_run(server: ImageServer, cache: Path) -> None:
    server.put(NAME, DATA, checksum=False, faults=["cut:3000000", "404"])
    refused(server.url, cache, IMAGE_VERIFY="no")
    assert fetch(server.url, cache, IMAGE_VERIFY="no") == DATA
    assert server.ranges(NAME) == [None, "bytes=3000000-", None]


def test_clean_up(server: ImageServer, cache: Path) -> None:
    server.put(NAME, DATA)
    assert fetch(server.url, cache, IMAGE_CLEANUP="yes") == DATA
    assert left(cache) == set()


def test_no_clean_up_after_a_failure(server: ImageServer, cache: Path) -> None:
    server.put(NAME, DATA)
    settings = Settings.from_layers(
        [Layer("test", {"IMAGE_URL": server.url, "CACHE_DIR": str(cache), "IMAGE_CLEANUP": "yes"})]
    )
    with pytest.raises(KeyError), fetched(NAME, settings, Messages(os_name="image", verb="create")):
        raise KeyError
    assert left(cache) == {NAME, f".{NAME}.json"}


def test_names_that_a_url_has_to_quote(server: ImageServer, cache: Path) -> None:
    name = "grün 100%?#.img"
    server.files["/images/gr%C3%BCn%20100%25%3F%23.img"] = server.put("x", DATA, checksum=False)
    server.sums(f"{hashlib.sha256(DATA).hexdigest()}  {name}\n")
    assert fetch(server.url, cache, name=name) == DATA


def test_what_does_not_fit_is_refused_before(server: ImageServer, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.put(NAME, DATA)
    free = os.statvfs("/")
    small = os.statvfs_result((*free[:4], 1, *free[5:]))
    monkeypatch.setattr(os, "fstatvfs", lambda fd: small)
    text = refused(server.url, cache)
    assert f"{NAME} has {len(DATA)} bytes (5.01 MiB), of which 5.01 MiB are missing, and" in text
    assert left(cache) == set()


def test_a_cache_that_takes_no_lock(server: ImageServer, cache: Path) -> None:
    server.put(NAME, DATA)
    fetch(server.url, cache)
    lock = cache / f".{NAME}.lock"
    lock.mkdir()
    with pytest.raises(StorageError, match="CACHE_DIR") as caught:
        fetch(server.url, cache)
    assert str(lock) in str(caught.value)


def test_progress_and_messages(server: ImageServer, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    server.put(NAME, DATA)
    fetch(server.url, cache)
    assert "fetched: 100 %, 5.01 MiB of 5.01 MiB" in caplog.text
    assert "is fetched and checked (SHA-256 " in caplog.text


def test_a_signal_ends_it(server: ImageServer, cache: Path) -> None:
    server.put(NAME, DATA, always="slow:0.02")
    part = cache / f".{NAME}.part"

    class EndedError(Exception):
        pass

    def check() -> None:
        if part.exists() and part.stat().st_size:
            raise EndedError

    settings = Settings.from_layers([Layer("test", {"IMAGE_URL": server.url, "CACHE_DIR": str(cache)})])
    messages = Messages(os_name="image", verb="create", check=check)
    with pytest.raises(EndedError), fetched(NAME, settings, messages):
        pytest.fail("was not ended")
    assert left(cache) == {f".{NAME}.part", f".{NAME}.from"}
    server.files[f"/images/{NAME}"].always = ""
    assert fetch(server.url, cache) == DATA
    assert server.ranges(NAME)[-1] is not None


@pytest.mark.parametrize("tag", ['"2"', 'W/"1"', ""])
def test_a_rest_of_another_version_is_not_joined(server: ImageServer, cache: Path, tag: str) -> None:
    """A server, or a cache before it, that ignores If-Range; without a checksum nothing else would show it."""
    file = server.put(NAME, DATA, checksum=False)
    file.faults += ["cut:3000000", f"tag:{tag}"]
    assert fetch(server.url, cache, IMAGE_VERIFY="no") == DATA
    assert server.ranges(NAME) == [None, "bytes=3000000-", None]


def test_a_rest_that_says_nothing_of_its_version_is_joined_when_it_is_checked(server: ImageServer, cache: Path) -> None:
    server.put(NAME, DATA).faults += ["cut:3000000", "tag:"]
    assert fetch(server.url, cache) == DATA
    assert server.ranges(NAME) == [None, "bytes=3000000-"]


@pytest.mark.parametrize(
    ("name", "encoding", "taken"),
    [
        ("x.img", "gzip", False),
        ("x.img", "br", False),
        ("x.tar.gz", "br", False),
        ("x.img", "Identity", True),
        ("x.tar.gz", "x-gzip", True),  # Apache's AddEncoding says so of the file itself
    ],
)
def test_an_encoding_that_was_not_asked_for(
    server: ImageServer, cache: Path, name: str, encoding: str, taken: bool
) -> None:
    server.put(name, DATA, always=f"encoded:{encoding}")
    if taken:
        assert fetch(server.url, cache, name=name) == DATA
        return
    with pytest.raises(FetchError, match=f"the server sent it with Content-Encoding '{encoding}', which was not req"):
        fetch(server.url, cache, name=name)


@pytest.mark.parametrize("fault", ["silent", "drip"])
def test_headers_have_a_deadline_in_all(
    server: ImageServer, cache: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr(client, "HEADERS_SECONDS", 0.3)
    server.put(NAME, DATA).faults += [fault] * 3
    assert fetch(server.url, cache) == DATA
    server.put(NAME + "2", DATA, always=fault)
    with pytest.raises(UnreachableError, match="the headers of the answer did not arrive within 0 seconds"):
        fetch(server.url, cache, name=NAME + "2")
