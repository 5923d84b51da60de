# SPDX-License-Identifier: MIT
"""Which server is used, and where it may redirect us: certificates, redirections, passwords, proxies."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Iterator
from dataclasses import replace

import pytest

from ganeti_os.fetch import FetchError, NotThereError, UnreachableError
from ganeti_os.fetch.expected_checksum import fetch_checksum
from ganeti_os.fetch.site import Site
from ganeti_os.settings.settings import Layer, Settings
from ganeti_os.settings.shellfile import SettingsError
from pydiskimg.web import retries
from pydiskimg.web.client import REDIRECTS
from tests.fixtures.checkout import ROOT
from tests.fixtures.image_server import ImageServer, image_server

CERTIFICATE = ROOT / "tests" / "fixtures/self_made_certificate.pem"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "PAUSE_SECONDS", 0.01)
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def server(server: ImageServer) -> ImageServer:
    server.put("x", b"contents", checksum=False)
    return server


@pytest.fixture
def secure() -> Iterator[ImageServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    with image_server(tls=context) as found:
        found.put("x", b"contents", checksum=False)
        yield found


def get(address: str, name: str = "x") -> bytes:
    with Site(address).open(name) as answer:
        assert answer.length is not None
        return answer.read(answer.length)


def test_a_certificate_that_nobody_vouches_for_is_refused(secure: ImageServer) -> None:
    with pytest.raises(FetchError, match="the server's certificate is not accepted: self-signed certificate") as caught:
        get(secure.url)
    assert not isinstance(caught.value, UnreachableError), "trying again would not help"
    assert secure.asked == []


def test_one_that_the_system_trusts_is_not(secure: ImageServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    assert get(secure.url) == b"contents"
    with pytest.raises(FetchError, match="certificate is not accepted: Hostname mismatch"):
        get(secure.url.replace("127.0.0.1", "localhost"))


def test_https_on_a_port_without(server: ImageServer) -> None:
    with pytest.raises(UnreachableError, match="cannot be fetched"):
        get(server.url.replace("http:", "https:"))


def test_from_https_to_http_is_refused(
    secure: ImageServer, server: ImageServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    secure.put("x", b"", checksum=False, always=f"to:{server.url}/x")
    with pytest.raises(FetchError, match=f"is redirected from https to {server.url}/x, which is not encrypted"):
        get(secure.url)
    assert server.asked == []


def test_from_http_to_https_is_followed(
    secure: ImageServer, server: ImageServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    server.put("x", b"", checksum=False, always=f"to:{secure.url}/x")
    assert get(server.url) == b"contents"


@pytest.mark.parametrize("target", ["/images/y", "y", "//{host}/images/y", "http://{host}/images/y"])
def test_redirections_of_all_kinds(server: ImageServer, target: str) -> None:
    host = f"127.0.0.1:{server.port}"
    server.put("y", b"there", checksum=False)
    server.put("x", b"", checksum=False, always=f"to:{target.format(host=host)}")
    assert get(server.url) == b"there"


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://[", "gopher:x", ""])
def test_redirections_to_what_is_no_web_server(server: ImageServer, target: str) -> None:
    server.put("x", b"", checksum=False, always=f"to:{target}")
    with pytest.raises(FetchError, match=r"expected http://HOST|without a new address"):
        get(server.url)


def test_a_circle_of_redirections_ends(server: ImageServer) -> None:
    server.put("x", b"", checksum=False, always="to:/images/x")
    with pytest.raises(FetchError, match=f"is redirected more than {REDIRECTS} times"):
        get(server.url)
    assert server.count("x") == REDIRECTS + 1


def test_a_password_goes_to_its_server_only_and_into_no_message(server: ImageServer) -> None:
    with image_server() as other:
        other.put("x", b"there", checksum=False)
        server.put("x", b"", checksum=False, always=f"to:{other.url}/x")
        address = server.url.replace("//", "//lisa:s%40cret@")
        assert get(address) == b"there"
        expected = "Basic " + base64.b64encode(b"lisa:s@cret").decode()
        assert server.asked[0].headers["authorization"] == expected
        assert "authorization" not in other.asked[0].headers
    with pytest.raises(NotThereError) as caught:
        get(address, "y")
    assert "cret" not in str(caught.value)
    assert Site(address).url("x") == f"{server.url}/x"
    with pytest.raises(FetchError, match=r"^'http://images.example:0/d' is not an http:// or") as refused:
        Site("http://lisa:s%40cret@images.example:0/d")
    assert "cret" not in str(refused.value)


@pytest.mark.parametrize(
    "address",
    [
        "http:/lisa:s3cret@images.example/d",
        "http:lisa:s3cret@images.example",
        "lisa:s3cret@images.example/d",
        "ftp://lisa:s3cret@images.example/d",
        "http://lisa:s3c/ret@images.example/d",
        "http://lisa:s3cret@x@images.example:99999/d",
        "http://lisa:s3cret@[::1/d",
        "HTTP://lisa:s3 cret@images.example/d",
        "http://lisa:s3cret@images.example:s3/d",
    ],
)
@pytest.mark.parametrize("setting", ["IMAGE_URL", "IMAGE_PROXY"])
def test_a_password_in_an_address_that_cannot_be_parsed_is_not_shown(address: str, setting: str) -> None:
    def ask() -> None:
        settings = Settings.from_layers([Layer("test", {"IMAGE_URL": "http://images.example", setting: address})])
        with Site(settings.image_url, settings.image_proxy).open("x"):
            pass

    with pytest.raises((FetchError, SettingsError)) as refused:
        ask()
    assert not any(part in str(refused.value) for part in ("s3c", "ret@", "lisa"))


def test_a_password_of_a_proxy_in_the_environment_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://lisa:s3cret@127.0.0.1:s3x")
    with pytest.raises(FetchError) as refused, Site("http://images.example/d").open("x"):
        pass
    assert "s3cret" not in str(refused.value)


def test_a_proxy_of_the_environment(server: ImageServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server.address)
    server.files["http://images.example/d/x"] = server.files["/images/x"]
    assert get("http://images.example/d") == b"contents"
    monkeypatch.setenv("no_proxy", "images.example,127.0.0.1")
    assert get(server.url) == b"contents"


def test_a_proxy_that_the_settings_name(server: ImageServer) -> None:
    server.files["http://images.example/d/x"] = server.files["/images/x"]
    with Site("http://images.example/d", server.address.replace("//", "//lisa:cret@")).open("x") as answer:
        assert answer.read(100) == b"contents"
    assert server.asked[0].headers["proxy-authorization"] == "Basic " + base64.b64encode(b"lisa:cret").decode()


def test_a_proxy_that_does_not_answer_is_named() -> None:
    through = r"http://a.example/d/x \(through the proxy http://127.0.0.1:1\): cannot be fetched: Connection refused"
    with (
        pytest.raises(UnreachableError, match=through),
        Site("http://a.example/d", "http://lisa:cret@127.0.0.1:1").open("x"),
    ):
        pass


def test_a_checksum_file_that_breaks_off_is_asked_for_again(server: ImageServer) -> None:
    server.sums(f"{'a' * 64}  x\n").faults.append("cut:10")
    found = fetch_checksum(Site(server.url), "x", lambda: None)
    assert (found.checksum.digest, found.source) == ("a" * 64, "SHA256SUMS")


@pytest.mark.parametrize("fault", ["chunked", "unsized"])
def test_a_checksum_file_without_a_length(server: ImageServer, fault: str) -> None:
    server.sums(f"{'a' * 64}  x\n").always = fault
    assert fetch_checksum(Site(server.url), "x", lambda: None).checksum.digest == "a" * 64


def test_an_answer_that_is_whole_is_not_waited_for(server: ImageServer) -> None:
    """A server may keep the connection open after a body whose size only Content-Range tells."""
    server.put("y", b"whole", always="chunk-size")

    def check() -> None:
        raise AssertionError("it waits")

    with Site(server.url).open("y") as answer:
        assert replace(answer, check=check).read(0) == b""
