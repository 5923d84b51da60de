# SPDX-License-Identifier: MIT
"""An image at an address: which ranges are requested for what is read."""

from __future__ import annotations

import os
import random
import ssl
from concurrent.futures import ThreadPoolExecutor

import pytest

from pydiskimg.errors import StorageError
from pydiskimg.images.address import BLOCK, LARGE, MOST_AHEAD, AddressSource, open_address
from pydiskimg.images.open import open_image
from pydiskimg.protocols import read_bytes
from pydiskimg.web.errors import FetchError
from tests.fixtures.checkout import ROOT
from tests.fixtures.image_server import ImageServer, image_server
from tests.fixtures.qcow2_images import Craft, assert_contract

DATA = os.urandom(5_000_001)


@pytest.fixture
def source(server: ImageServer) -> AddressSource:
    server.put("x", DATA, checksum=False)
    return open_address(f"{server.url}/x")


def test_it_is_a_source(source: AddressSource) -> None:
    with source:
        assert_contract(source)


def test_what_is_read_is_what_is_there(source: AddressSource) -> None:
    rng = random.Random(1)
    with source:
        for _ in range(200):
            offset = rng.randrange(len(DATA))
            length = rng.choice([1, 8, 512, BLOCK, BLOCK + 1, LARGE - 1, LARGE, len(DATA)])
            length = min(length, len(DATA) - offset)
            assert read_bytes(source, offset, length) == DATA[offset : offset + length]


def test_a_closed_source_requests_nothing(source: AddressSource, server: ImageServer) -> None:
    source.close()
    before = server.count("x")
    for read in (lambda: read_bytes(source, 0, 8), lambda: read_bytes(source, LARGE, LARGE), source.extents):
        with pytest.raises(StorageError, match=r"/x: is closed$"):
            read()
    assert server.count("x") == before


def test_small_reads_in_one_place_are_one_request(source: AddressSource, server: ImageServer) -> None:
    with source:
        for offset in range(0, BLOCK, 512):
            read_bytes(source, offset, 8)
        assert server.count("x") == 1, "the first block came with the question for the size"
        for offset in range(3 * BLOCK, 4 * BLOCK, 512):
            read_bytes(source, offset, 8)
        assert server.ranges("x")[1:] == [f"bytes={3 * BLOCK}-{4 * BLOCK - 1}"]


def test_reading_on_fetches_more_and_more(source: AddressSource, server: ImageServer) -> None:
    with source:
        for offset in range(BLOCK, 60 * BLOCK, 4096):
            read_bytes(source, offset, 4096)
        lengths = [
            int(last) + 1 - int(first)
            for first, last in (text.removeprefix("bytes=").split("-") for text in server.ranges("x")[1:] if text)
        ]
    assert lengths[:5] == [BLOCK, 2 * BLOCK, 4 * BLOCK, 8 * BLOCK, MOST_AHEAD]
    assert max(lengths) == MOST_AHEAD


def test_a_large_read_is_one_request(source: AddressSource, server: ImageServer) -> None:
    with source:
        read_bytes(source, 5, len(DATA) - 5)
        assert server.ranges("x")[1:] == [f"bytes=5-{len(DATA) - 1}"]


def test_several_threads_fetch_a_block_once(source: AddressSource, server: ImageServer) -> None:
    offsets = [number * BLOCK + at for at in range(0, BLOCK, 8192) for number in (3, 20, 40, 60)]
    with source, ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda offset: read_bytes(source, offset, 100), offsets))
    assert found == [DATA[offset : offset + 100] for offset in offsets]
    assert server.count("x") == 5


def test_a_file_that_changes_gives_no_mixture(source: AddressSource, server: ImageServer) -> None:
    with source:
        file = server.files["/images/x"]
        file.data, file.etag = bytes(len(DATA)), '"2"'
        for offset, length in ((BLOCK, 100), (BLOCK, LARGE)):
            with pytest.raises(FetchError, match="changed on the server"):
                read_bytes(source, offset, length)


def test_over_https(monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = ROOT / "tests" / "fixtures/self_made_certificate.pem"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with image_server(tls=context) as secure:
        secure.put("x", DATA, checksum=False)
        with pytest.raises(FetchError, match="certificate is not accepted"):
            open_address(f"{secure.url}/x")
        assert secure.asked == []
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        with open_address(f"{secure.url}/x") as source:
            assert read_bytes(source, 5, len(DATA) - 5) == DATA[5:]
            assert read_bytes(source, 3 * BLOCK, 10) == DATA[3 * BLOCK : 3 * BLOCK + 10]
        assert len({asked.port for asked in secure.asked}) == 1, "a connection is kept"


def test_a_password_is_sent_and_not_shown(server: ImageServer) -> None:
    server.put("x", DATA, checksum=False)
    server.files["/images/x?key=s3cret"] = server.files["/images/x"]
    with open_address(server.url.replace("//", "//lisa:cret@") + "/x?key=s3cret") as source:
        assert source.name == f"{server.url}/x?..."
        assert server.asked[0].headers["authorization"].startswith("Basic ")


def test_a_qcow2_at_an_address(server: ImageServer) -> None:
    server.put("x", Craft().build(), checksum=False)
    with open_image(f"{server.url}/x") as source:
        assert source.format == "qcow2"
        read_bytes(source, 0, source.size)
