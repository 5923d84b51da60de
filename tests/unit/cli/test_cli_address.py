# SPDX-License-Identifier: MIT
"""Commands on an image at an address give what they give on the file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pydiskimg.cli import main
from pydiskimg.images.create import new_image
from pydiskimg.images.open import open_image
from pydiskimg.transfer.copy import copy
from pydiskimg.transfer.send import write_stream
from tests.fixtures.image_server import ImageServer
from tests.fixtures.made_entries import filled, regular

SECRET = "s3cret"
TEXT = b"contents of a file\n"


@pytest.fixture
def files(server: ImageServer, tmp_path: Path) -> Iterator[Path]:
    """A file system as raw and as qcow2: one with data and tables where they came, one with its tables first."""
    disk = filled([regular("a file", TEXT), regular("random", os.urandom(700_000))])
    raw, qcow2, stream = (tmp_path / name for name in ("disk.raw", "disk.qcow2", "stream.qcow2"))
    raw.write_bytes(bytes(disk.data))
    with open_image(raw, format="raw") as source:
        with new_image(qcow2, source.size, format="qcow2") as target:
            copy(source, target, unit=target.unit)
        qcow2.write_bytes(qcow2.read_bytes())  # a server does not tell of holes in a file, which map shows
        with stream.open("wb") as file:
            write_stream(source, file.fileno(), compression_type="zlib")
    for path in (raw, qcow2, stream):
        server.put(path.name, path.read_bytes(), checksum=False)
    yield tmp_path
    server.stopping.set()


@pytest.fixture
def address(server: ImageServer) -> str:
    return server.url.replace("//", f"//lisa:{SECRET}@")


def said(capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    capfd.readouterr()
    status = main(words)
    out, err = capfd.readouterr()
    assert SECRET not in out + err
    assert "lisa" not in out + err
    return status, out, err


@pytest.mark.parametrize(
    ("words", "name"),
    [
        *((words, "disk.qcow2") for words in (("map", "--output=json", "{}"), ("measure", "-O", "qcow2", "{}"))),
        *(
            (words, name)
            for words in (("ls", "{}"), ("cat", "{}", "/a file"), ("stat", "{}", "/a file"))
            for name in ("disk.raw", "disk.qcow2")
        ),
    ],
)
def test_as_of_a_file(
    files: Path, address: str, capfd: pytest.CaptureFixture[str], words: tuple[str, ...], name: str
) -> None:
    of_file = said(capfd, *(word.format(files / name) for word in words))
    assert of_file[0] == 0
    assert said(capfd, *(word.format(f"{address}/{name}") for word in words)) == of_file


@pytest.mark.parametrize("name", ["disk.raw", "disk.qcow2"])
def test_info_and_check(
    files: Path, address: str, server: ImageServer, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    found = []
    for place in (files, address):
        facts = json.loads(said(capfd, "info", "--output=json", f"{place}/{name}")[1])
        facts.pop("actual-size", None)
        checked = json.loads(said(capfd, "check", "--output=json", f"{place}/{name}")[1])
        found.append((facts, checked))
    for part in found[1]:
        assert part["filename"] == f"{server.url}/{name}"
        part["filename"] = str(files / name)
    assert found[0] == found[1]
    assert "disk size: unavailable" in said(capfd, "info", f"{address}/{name}")[1]


@pytest.mark.parametrize("name", ["disk.raw", "disk.qcow2", "stream.qcow2"])
def test_convert_and_compare(files: Path, address: str, capfd: pytest.CaptureFixture[str], name: str) -> None:
    new = files / "new.qcow2"
    assert said(capfd, "convert", "-p", "-O", "qcow2", f"{address}/{name}", str(new))[0] == 0
    assert said(capfd, "compare", str(new), f"{address}/{name}")[:2] == (0, "Images are identical.\n")
    assert said(capfd, "compare", str(new), str(files / "disk.raw"))[0] == 0


@pytest.mark.parametrize("name", ["disk.raw", "stream.qcow2"])
@pytest.mark.parametrize("fault", ["no-range", "chunked"])
def test_convert_from_front_to_back(
    files: Path, address: str, server: ImageServer, capfd: pytest.CaptureFixture[str], name: str, fault: str
) -> None:
    server.files[f"/images/{name}"].etag = None
    server.files[f"/images/{name}"].always = fault
    server.files[f"/images/{name}"].faults += ["no-range"]
    new = files / "new.raw"
    assert said(capfd, "convert", f"{address}/{name}", str(new)) == (0, "", "")
    assert new.read_bytes() == (files / "disk.raw").read_bytes()


@pytest.mark.parametrize("fault", ["cut:300000", "short:1", "reset:300000", "unsized"])
def test_a_stream_that_ends_early_leaves_no_file(
    files: Path, address: str, server: ImageServer, capfd: pytest.CaptureFixture[str], fault: str
) -> None:
    server.files["/images/disk.raw"].faults += ["no-range", fault]
    new = files / "new.raw"
    status, out, err = said(capfd, "convert", f"{address}/disk.raw", str(new))
    assert (status, out) == (1, "")
    assert err.startswith(f"pydiskimg: {server.url}/disk.raw: ")
    assert err.count("\n") == 1
    assert not new.exists()


@pytest.mark.parametrize(
    "words", [("info", "{}"), ("convert", "--verify", "{}", "new"), ("compare", "{}", "{}"), ("ls", "{}")]
)
def test_what_needs_ranges_says_so(
    files: Path, address: str, server: ImageServer, capfd: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    server.files["/images/disk.raw"].always = "no-range"
    status, out, err = said(capfd, *(word.format(f"{address}/disk.raw") for word in words))
    assert status in (1, 2)
    assert "the server sends only the whole file" in err
    assert out == ""


@pytest.mark.parametrize(
    "words",
    [
        ("resize", "{}", "+1M"),
        ("snapshot", "-c", "x", "{}"),
        ("commit", "{}"),
        ("rebase", "-b", "", "{}"),
        ("convert", "{file}", "{}"),
        ("convert", "-n", "{file}", "{}"),
        ("create", "{}", "1M"),
        ("rm", "{}", "/a file"),
    ],
)
def test_nothing_is_written_to_an_address(
    files: Path, address: str, capfd: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    place, file = f"{address}/disk.qcow2", str(files / "disk.qcow2")
    status, _, err = said(capfd, *(word.format(place, file=file) for word in words))
    assert status != 0
    assert "read-only" in err or "qcow2" in err


@pytest.fixture
def overlay(files: Path, server: ImageServer) -> Path:
    """At the address and in the directory: stands on disk.qcow2 beside it."""
    path = files / "overlay.qcow2"
    main(["create", "-f", "qcow2", "-b", str(files / "disk.qcow2"), "-F", "qcow2", "-q", str(path)])
    rename(path, "disk.qcow2", server)
    return path


def rename(overlay: Path, backing: str, server: ImageServer) -> None:
    main(["rebase", "-q", "-u", "-b", backing, "-F", "qcow2", str(overlay)])
    server.put(overlay.name, overlay.read_bytes(), checksum=False)


@pytest.mark.parametrize("allowed", ["", "{files}", "/", "http://127.0.0.2/images", "{other}/images", "{server}/other"])
def test_what_an_image_at_an_address_names_is_not_opened(
    files: Path, overlay: Path, server: ImageServer, capfd: pytest.CaptureFixture[str], allowed: str
) -> None:
    places = {"files": files, "server": server.address, "other": f"http://127.0.0.1:{server.port ^ 1}"}
    more = ("--allow-references", allowed.format(**places)) if allowed else ()
    status, _, err = said(capfd, "map", *more, f"{server.url}/{overlay.name}")
    assert status == 1
    assert "it was not opened" in err
    assert f"{server.url}/disk.qcow2" in err
    assert server.count("disk.qcow2") == 0


def test_what_is_below_an_allowed_address_is_opened(
    files: Path, overlay: Path, address: str, server: ImageServer, capfd: pytest.CaptureFixture[str]
) -> None:
    expected = said(capfd, "cat", str(files / "disk.qcow2"), "/a file")
    for place in (f"{address}/{overlay.name}", str(overlay)):
        rename(overlay, "disk.qcow2" if place != str(overlay) else f"{server.url}/disk.qcow2", server)
        assert said(capfd, "cat", "--allow-references", address, place, "/a file") == expected
    chain = said(capfd, "info", "--backing-chain", "--allow-references", address, f"{address}/{overlay.name}")
    assert f"image: {server.url}/disk.qcow2" in chain[1]
    assert all("authorization" in asked.headers for asked in server.asked)


@pytest.mark.parametrize(
    "name",
    [
        "../disk.qcow2",
        "{address}/../disk.qcow2",
        "{address}/a/%2e%2e/../../disk.qcow2",
        "{address}/%2e%2e/disk.qcow2",
        "{address}x/disk.qcow2",
        "{address}/disk.qcow2?x=y",
        "http://127.0.0.1:1/images/disk.qcow2",
        "ftp://127.0.0.1/images/disk.qcow2",
        "file:///etc/passwd",
        "/etc/passwd",
    ],
)
def test_names_that_lead_out_of_an_allowed_address(
    files: Path, overlay: Path, server: ImageServer, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    rename(overlay, name.format(address=server.url), server)
    asked = len(server.asked)
    status, _, err = said(capfd, "map", "--allow-references", server.url, f"{server.url}/{overlay.name}")
    assert status == 1
    assert "opened" in err
    assert {found.path for found in server.asked[asked:]} == {f"/images/{overlay.name}"}


def test_an_address_in_an_image_needs_an_allowed_address(
    files: Path, overlay: Path, server: ImageServer, capfd: pytest.CaptureFixture[str]
) -> None:
    rename(overlay, f"{server.url}/disk.qcow2", server)
    for more in ((), ("--allow-references", str(files)), ("--allow-references", "/")):
        assert "--allow-references ADDRESS" in said(capfd, "map", *more, str(overlay))[2]
    assert server.asked == []


@pytest.mark.parametrize(("name", "form"), [("disk.qcow2", "qcow2"), ("disk.raw", "raw")])
def test_a_new_image_on_one_at_an_address(
    server: ImageServer, files: Path, capfd: pytest.CaptureFixture[str], name: str, form: str
) -> None:
    """It is as large, and reads as that does where the address is allowed."""
    address, new = f"{server.url}/{name}", files / "new.qcow2"
    assert main(["create", "-q", "-f", "qcow2", "-b", address, "-F", form, str(new)]) == 0
    words = ("--allow-references", f"{server.url}/", "-F", "raw", str(new), str(files / "disk.raw"))
    assert said(capfd, "compare", *words)[:2] == (0, "Images are identical.\n")


def test_a_password_is_not_written_into_an_image(address: str, files: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ("create", "-f", "qcow2", "-b", f"{address}/disk.raw", "-F", "raw", str(files / "new.qcow2"))
    status, _, err = said(capfd, *words)
    assert status == 1
    assert "could read the password" in err
    assert not (files / "new.qcow2").exists()
