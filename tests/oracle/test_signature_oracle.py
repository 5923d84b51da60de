# SPDX-License-Identifier: MIT
"""Signatures of checksum files as distributions write them, made by gpg: what is believed, and what is not."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ganeti_os.fetch import FetchError
from ganeti_os.fetch.signature import NotSignedError, read_keyring
from ganeti_os.settings.settings import Layer, Settings, check_contradictions
from ganeti_os.settings.shellfile import SettingsError
from pydiskimg.errors import StorageError
from tests.conftest import need
from tests.fixtures.fetching import DATA, NAME, fetch, left, refused
from tests.fixtures.gnupg import GnuPG
from tests.fixtures.image_server import ImageServer

pytestmark = pytest.mark.oracle
SUMS = f"{hashlib.sha256(DATA).hexdigest()}  {NAME}\n".encode()


@dataclass(frozen=True, slots=True)
class Keys:
    gpg: GnuPG
    ring: Path
    prints: dict[str, str]


@pytest.fixture(scope="module")
def keys() -> Iterator[Keys]:
    """A keyring with keys of several kinds, and one key that is not in it."""
    need(shutil.which("gpg") is not None and shutil.which("gpg-agent") is not None, "gpg is not installed")
    with tempfile.TemporaryDirectory(prefix="gpg") as home:
        gpg = GnuPG(Path(home))
        kinds = {"rsa": "rsa2048", "ed": "ed25519", "dsa": "dsa2048", "ec": "nistp256", "old": "ed25519"}
        kinds |= {"revoked": "ed25519", "stranger": "ed25519"}
        prints = {
            name: gpg.make_key(name, kind, expires="2022-01-01" if name == "old" else "0")
            for name, kind in kinds.items()
        }
        ring = Path(home) / "ring.gpg"
        revoke = Path(home) / "openpgp-revocs.d" / f"{prints['revoked'].upper()}.rev"
        revocation = revoke.read_bytes().replace(b":-----BEGIN", b"-----BEGIN")
        before = gpg.sign(SUMS, "revoked")
        gpg.run("--import", data=revocation)
        ring.write_bytes(gpg.export("rsa", "ed", "dsa", "ec", "old", "revoked"))
        (Path(home) / "revoked.sig").write_bytes(before)
        yield Keys(gpg, ring, prints)
        gpg.stop()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def server(server: ImageServer) -> ImageServer:
    server.put(NAME, DATA, checksum=False)
    return server


def put(server: ImageServer, name: str, data: bytes) -> None:
    server.sums("", name=name).data = data


# How each distribution names the checksum file and its signature.
DETACHED = {
    "Ubuntu": ("SHA256SUMS", ".gpg", "--detach-sign", "rsa"),
    "Debian's installer": ("SHA512SUMS", ".sign", "--armor --detach-sign", "rsa"),
    "Alma": ("CHECKSUM", ".asc", "--armor --detach-sign", "ed"),
    "openSUSE": (f"{NAME}.sha256", ".asc", "--armor --detach-sign", "rsa"),
    "Alpine": (f"{NAME}.sha512", ".asc", "--armor --detach-sign", "dsa"),
    "OpenWrt": ("sha256sums", ".asc", "--armor --detach-sign", "ec"),
    "Arch": (f"{NAME}.SHA256", ".sig", "--detach-sign", "ed"),
}


def sums_for(name: str) -> bytes:
    if "512" in name:
        return f"{hashlib.sha512(DATA).hexdigest()}  {NAME}\n".encode()
    return SUMS


@pytest.mark.parametrize("who", DETACHED)
def test_a_detached_signature(server: ImageServer, cache: Path, keys: Keys, who: str) -> None:
    name, ending, how, key = DETACHED[who]
    put(server, name, sums_for(name))
    put(server, name + ending, keys.gpg.sign(sums_for(name), key, how=how))
    assert fetch(server.url, cache, IMAGE_KEYRING=str(keys.ring)) == DATA


@pytest.mark.parametrize("name", ["CHECKSUM", f"{NAME}.CHECKSUM"])
def test_a_clear_signed_file(
    server: ImageServer, cache: Path, keys: Keys, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    text = f"# {NAME}: {len(DATA)} bytes\nSHA256 ({NAME}) = {hashlib.sha256(DATA).hexdigest()}\n- a line\n".encode()
    put(server, name, keys.gpg.sign(text, "rsa", how="--clear-sign"))
    caplog.set_level("INFO")
    assert fetch(server.url, cache, IMAGE_KEYRING=str(keys.ring)) == DATA
    assert f"{server.url}/{name} is signed by {keys.prints['rsa']}" in caplog.text


def test_a_clear_signed_text_beside_it(server: ImageServer, cache: Path, keys: Keys) -> None:
    put(server, "CHECKSUM", SUMS)
    put(server, "CHECKSUM.asc", keys.gpg.sign(SUMS, "ed", how="--clear-sign"))
    assert fetch(server.url, cache, IMAGE_KEYRING=str(keys.ring)) == DATA


def test_fedora_names_it_after_the_release(server: ImageServer, cache: Path, keys: Keys) -> None:
    for number, (image, sums) in enumerate(
        {
            "Fedora-Cloud-Base-Generic-42-1.1.x86_64.qcow2": "Fedora-Cloud-42-1.1-x86_64-CHECKSUM",
            "Fedora-Cloud-Base-Generic.x86_64-40-1.14.qcow2": "Fedora-Cloud-40-1.14-x86_64-CHECKSUM",
            "Fedora-Cloud-Base-37-1.7.x86_64.qcow2": "Fedora-Cloud-37-1.7-x86_64-CHECKSUM",
            "Fedora-Cloud-Base-39-1.5.aarch64.raw.xz": "Fedora-Cloud-39-1.5-aarch64-CHECKSUM",
        }.items()
    ):
        server.put(image, DATA, checksum=False)
        text = f"SHA256 ({image}) = {hashlib.sha256(DATA).hexdigest()}\n".encode()
        put(server, sums, keys.gpg.sign(text, "rsa", how="--clear-sign"))
        assert fetch(server.url, cache / str(number), name=image, IMAGE_KEYRING=str(keys.ring)) == DATA


def test_what_is_around_a_clear_signed_text_does_not_count(server: ImageServer, cache: Path, keys: Keys) -> None:
    signed = keys.gpg.sign(b"nothing\n", "rsa", how="--clear-sign")
    for data in (SUMS + signed, signed + SUMS, signed.replace(b"nothing", b"nothing\n" + SUMS.strip())):
        put(server, "SHA256SUMS", data)
        text = refused(server.url, cache, IMAGE_KEYRING=str(keys.ring))
        assert "SHA256SUMS" in text


def test_without_a_keyring_it_is_said(server: ImageServer, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(server, "SHA256SUMS", SUMS)
    caplog.set_level("INFO")
    fetch(server.url, cache)
    assert f"{server.url}/SHA256SUMS is not verified by a signature: IMAGE_KEYRING is not set" in caplog.text


def test_a_file_that_is_not_signed_is_refused(server: ImageServer, cache: Path, keys: Keys) -> None:
    put(server, "SHA256SUMS", SUMS)
    assert refused(server.url, cache, IMAGE_KEYRING=str(keys.ring)) == (
        f"{server.url}/{NAME}: no signed checksum was found for it: SHA256SUMS is not signed (the server has none "
        "of SHA256SUMS.gpg, SHA256SUMS.asc, SHA256SUMS.sign, SHA256SUMS.sig); expected 'DIGEST  FILE' or 'SHA256 "
        f"(FILE) = DIGEST', with SHA-256 or SHA-512; or remove IMAGE_KEYRING ({keys.ring}) to use the image without "
        "a signature"
    )


def test_one_that_is_signed_counts_beside_one_that_is_not(server: ImageServer, cache: Path, keys: Keys) -> None:
    put(server, "SHA256SUMS", SUMS)
    put(server, "CHECKSUM", keys.gpg.sign(SUMS, "rsa", how="--clear-sign"))
    assert fetch(server.url, cache, IMAGE_KEYRING=str(keys.ring)) == DATA


@pytest.mark.parametrize("how", ["--detach-sign", "--clear-sign"])
@pytest.mark.parametrize(
    ("key", "at", "more", "words"),
    [
        ("stranger", "20240101T000000", {}, "is signed by {print}, which is not in {ring}"),
        ("revoked", "20210101T000000", {}, "is signed by {print} of {ring}, a key that is revoked"),
        ("rsa", "20240101T000000", {"digest_algo": "SHA1"}, "is signed by {print} of {ring} with SHA"),
        ("ed", "20240101T000000", {"spoilt": ""}, "is signed by {print} of {ring}, but the signature is not good"),
    ],
)
def test_a_signature_that_is_refused(
    server: ImageServer, cache: Path, keys: Keys, how: str, key: str, at: str, more: dict[str, str], words: str
) -> None:
    options = {name: value for name, value in more.items() if name != "spoilt"}
    if key == "revoked":  # gpg signs no more with it
        if how == "--clear-sign":
            return
        signed = (keys.ring.parent / "revoked.sig").read_bytes()
    else:
        signed = keys.gpg.sign(SUMS, key, how=how, at=at, **options)
    sums = SUMS
    if "spoilt" in more:
        sums, signed = SUMS + b"x\n", signed.replace(NAME.encode(), b"an" + NAME.encode()[2:])
        if how == "--clear-sign":
            signed = signed.replace(b"-----BEGIN PGP SIGNATURE", SUMS + b"-----BEGIN PGP SIGNATURE")
    put(server, "SHA256SUMS", signed if how == "--clear-sign" else sums)
    if how != "--clear-sign":
        put(server, "SHA256SUMS.gpg", signed)
    text = refused(server.url, cache, IMAGE_KEYRING=str(keys.ring))
    expected = words.replace("{print}", keys.prints[key]).replace("{ring}", str(keys.ring))
    assert expected in text
    assert text.endswith("; the image was not used")


def test_a_key_that_has_expired_since_still_counts_for_what_it_signed(
    server: ImageServer, cache: Path, keys: Keys
) -> None:
    put(server, "SHA256SUMS", SUMS)
    put(server, "SHA256SUMS.gpg", keys.gpg.sign(SUMS, "old", at="20210101T000000"))
    assert fetch(server.url, cache, IMAGE_KEYRING=str(keys.ring)) == DATA


def test_one_good_signature_of_several_is_enough(server: ImageServer, cache: Path, keys: Keys) -> None:
    put(server, "SHA256SUMS", SUMS)
    put(server, "SHA256SUMS.gpg", keys.gpg.sign(SUMS, "stranger", "ed"))
    assert fetch(server.url, cache, IMAGE_KEYRING=str(keys.ring)) == DATA


@pytest.mark.parametrize("armor", [True, False])
def test_keyrings(tmp_path: Path, keys: Keys, armor: bool) -> None:
    ring = tmp_path / "ring"
    ring.write_bytes(keys.gpg.export("rsa", "ed", armor=armor))
    keyring = read_keyring(str(ring))
    signed = keyring.verified(SUMS, keys.gpg.sign(SUMS, "ed"))
    assert (signed.data, signed.fingerprint) == (SUMS, keys.prints["ed"])
    assert keyring.has(keys.prints["rsa"])
    assert not keyring.has(keys.prints["dsa"])


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        (b"", "does not contain OpenPGP keys"),
        (b"not a keyring\n", "does not contain OpenPGP keys"),
        (b"\0\0\0\x20\x01\x01\0\0KBXf" + bytes(20), "is a keybox of GnuPG; expected exported keys: gpg "),
        (bytes((16 << 20) + 1), "is larger than 16 MiB"),
    ],
)
def test_what_is_no_keyring(tmp_path: Path, contents: bytes, words: str) -> None:
    path = tmp_path / "ring"
    path.write_bytes(contents)
    with pytest.raises(FetchError, match=words):
        read_keyring(str(path))


def test_a_keyring_that_is_not_there_or_special(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot read the keyring \(IMAGE_KEYRING\): No such file"):
        read_keyring(str(tmp_path / "no"))
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(StorageError, match="not a regular file"):
        read_keyring(str(tmp_path / "fifo"))


@pytest.mark.parametrize(
    "signature", [b"", b"junk", b"\xc2\xff\xff\xff\xff\xff", b"-----BEGIN PGP SIGNATURE-----\n\nAAAA\n"]
)
def test_what_is_no_signature(keys: Keys, signature: bytes) -> None:
    with pytest.raises(NotSignedError, match=r"does not contain an OpenPGP signature|is signed by"):
        read_keyring(str(keys.ring)).verified(SUMS, signature)


def test_every_byte_of_a_signature_matters(keys: Keys) -> None:
    keyring = read_keyring(str(keys.ring))
    good = keys.gpg.sign(SUMS, "ed")
    hashed_end = 6 + int.from_bytes(good[6:8], "big") + 2
    for place in range(2, hashed_end):
        bad = bytearray(good)
        bad[place] ^= 1
        with pytest.raises(NotSignedError):
            keyring.verified(SUMS, bytes(bad))
    for place in range(0, len(SUMS), 7):
        changed = bytearray(SUMS)
        changed[place] ^= 1
        with pytest.raises(NotSignedError):
            keyring.verified(bytes(changed), good)


def test_an_image_that_was_checked_without_a_signature_is_not_used_when_the_server_is_away(
    server: ImageServer, cache: Path, keys: Keys
) -> None:
    put(server, "SHA256SUMS", SUMS)
    fetch(server.url, cache)
    url = server.url
    for name in ("SHA256SUMS", f"{NAME}.sha256"):
        server.sums("", name=name).always = "503"
    assert fetch(url, cache) == DATA
    with pytest.raises(FetchError, match="503"):
        fetch(url, cache, IMAGE_KEYRING=str(keys.ring))
    put(server, "SHA256SUMS", SUMS)
    put(server, "SHA256SUMS.gpg", keys.gpg.sign(SUMS, "ed"))
    assert fetch(url, cache, IMAGE_KEYRING=str(keys.ring)) == DATA
    assert server.count(NAME) == 1, "it was in the cache already"
    server.sums("", name="SHA256SUMS").always = "503"
    assert fetch(url, cache, IMAGE_KEYRING=str(keys.ring)) == DATA


def test_a_keyring_without_a_check_is_a_contradiction() -> None:
    values = {"IMAGE_KEYRING": "/k", "IMAGE_VERIFY": "no", "IMAGE_URL": "http://h/"}
    with pytest.raises(SettingsError, match="IMAGE_VERIFY=no contradicts IMAGE_KEYRING"):
        check_contradictions(Settings.from_layers([Layer("test", values)]))


@pytest.mark.parametrize(("ending", "how"), [(".sig", "--detach-sign"), (".asc", "--armor --detach-sign")])
def test_an_image_that_is_signed_itself(
    server: ImageServer, cache: Path, keys: Keys, ending: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As Arch and Alpine sign theirs; the checksum beside it is not signed."""
    put(server, f"{NAME}.sha512", sums_for("512"))
    put(server, NAME + ending, keys.gpg.sign(DATA, "ed", how=how))
    caplog.set_level("INFO")
    for _ in range(2):
        assert fetch(server.url, cache, IMAGE_KEYRING=str(keys.ring)) == DATA
    assert server.count(NAME) == 1
    assert f"{server.url}/{NAME} is signed by {keys.prints['ed']} ({NAME}{ending})" in caplog.text


@pytest.mark.parametrize(("signed", "key", "words"), [
    (DATA[:-1] + b"x", "ed", "but the signature is not good"),
    (DATA, "stranger", "which is not in"),
])  # fmt: skip
def test_an_image_that_is_signed_wrongly(
    server: ImageServer, cache: Path, keys: Keys, signed: bytes, key: str, words: str
) -> None:
    put(server, f"{NAME}.SHA256", SUMS)
    put(server, f"{NAME}.sig", keys.gpg.sign(signed, key))
    for _ in range(2):
        text = refused(server.url, cache, IMAGE_KEYRING=str(keys.ring))
        assert f"{server.url}/{NAME}.sig: is signed by {keys.prints[key]}" in text
        assert left(cache) == set()
        assert words in text


def test_an_image_from_before_the_keyring_is_verified_where_it_lies(
    server: ImageServer, cache: Path, keys: Keys
) -> None:
    put(server, "SHA256SUMS", SUMS)
    fetch(server.url, cache)
    put(server, f"{NAME}.asc", keys.gpg.sign(DATA, "rsa", how="--armor --detach-sign"))
    assert fetch(server.url, cache, IMAGE_KEYRING=str(keys.ring)) == DATA
    assert server.count(NAME) == 1
    put(server, f"{NAME}.asc", keys.gpg.sign(DATA, "stranger", how="--armor --detach-sign"))
    assert fetch(server.url, cache, IMAGE_KEYRING=str(keys.ring)) == DATA, "it was verified when it came"
