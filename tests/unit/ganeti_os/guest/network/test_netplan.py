# SPDX-License-Identifier: MIT
"""netplan's YAML: in any style only the addresses change, and hostile text is handled quickly."""

from __future__ import annotations

import builtins
import logging
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ganeti_os.guest.syntax.yaml_nodes import SIZE_LIMIT, Scalar, YamlError, yaml_document
from tests.fixtures.guests import GuestFiles

PATH = "/etc/netplan/a.yaml"
NETWORK = {"NIC_0_NETWORK_SUBNET": "198.51.100.0/26", "NIC_0_NETWORK_GATEWAY": "198.51.100.62"}
SANE = "network:\n  version: 2\n  ethernets:\n    ens3:\n      addresses: [192.0.2.10/24]\n      gateway4: 192.0.2.1\n"


def renamed(directory: Path, text: str | bytes) -> bytes:
    guest = GuestFiles.make(directory, {"/etc/hostname": "inst1\n", PATH: text})
    guest.rename("198.51.100.5", **NETWORK)
    return Path(f"{guest.root}{PATH}").read_bytes()


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# What a netplan file may hold beside the one address and its gateway.
OTHERS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "dhcp4": st.booleans(),
        "mtu": st.integers(0, 65535),
        "nameservers": st.fixed_dictionaries(
            {"addresses": st.lists(st.sampled_from(["192.0.2.1", "2001:db8::53", "203.0.113.7"]), max_size=3)}
        ),
        "routes": st.lists(
            st.sampled_from(
                [
                    {"to": "203.0.113.0/24", "via": "192.0.2.1"},
                    {"to": "default", "via": "192.0.2.1", "metric": 5},
                    {"via": "192.0.2.1", "to": "0.0.0.0/0"},
                    {"to": "10.0.0.0/8", "via": "192.0.2.1", "from": "192.0.2.10"},
                    {"to": "::/0", "via": "fe80::1"},
                ]
            ),
            max_size=4,
        ),
        "optional-text": st.text(max_size=8),
        "link-local": st.just([]),
    },
)
ADDRESS: st.SearchStrategy[object] = st.sampled_from(
    ["192.0.2.10/24", {"192.0.2.10/24": {"label": "x", "lifetime": 0}}]
)
STYLES = st.fixed_dictionaries(
    {
        "default_flow_style": st.sampled_from([True, False, None]),
        "default_style": st.sampled_from([None, '"', "'"]),
        "indent": st.integers(2, 9),
        "width": st.sampled_from([60, 1000]),
        "allow_unicode": st.booleans(),
        "explicit_start": st.booleans(),
        "sort_keys": st.booleans(),
        "line_break": st.sampled_from(["\n", "\r\n"]),
    }
)


def moved(value: Any, *, key: str = "", route: Mapping[str, Any] | None = None) -> Any:
    """Return what the values have to be afterwards."""
    if isinstance(value, list):
        return [moved(item, key=key, route=item if key == "routes" else None) for item in value]
    if isinstance(value, dict):
        return {moved(name, key=key): moved(item, key=name, route=route) for name, item in value.items()}
    if value in ("192.0.2.10/24", "192.0.2.10"):
        return value.replace("192.0.2.10", "198.51.100.5").replace("/24", "/26")
    if value == "192.0.2.1" and (key == "gateway4" or (route and route["to"] in ("default", "0.0.0.0/0"))):
        return "198.51.100.62"
    return value


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(OTHERS, ADDRESS, st.booleans(), STYLES, st.sampled_from(["ethernets", "bridges", "vlans", "bonds"]))
def test_in_any_style_the_values_move_and_all_else_stays(
    tmp_path_factory: pytest.TempPathFactory,
    others: dict[str, Any],
    address: object,
    with_gateway: bool,
    style: dict[str, Any],
    kind: str,
) -> None:
    definition = {"addresses": [address], **others, **({"gateway4": "192.0.2.1"} if with_gateway else {})}
    document = {"network": {"version": 2, kind: {"ens3": definition}}}
    text = yaml.safe_dump(document, **style)
    after = renamed(tmp_path_factory.mktemp("netplan"), text.encode())
    assert yaml.safe_load(after) == moved(yaml.safe_load(text))  # PyYAML reads "\x85" otherwise than it wrote it
    assert unmoved(after) == unmoved(text.encode())


def unmoved(data: bytes) -> bytes:
    """Return what is left when old and new values look the same."""
    data = re.sub(rb"(?:192\.0\.2\.10|198\.51\.100\.5)(?:/2[46])?(?![0-9])", b"ADDRESS", data)
    return re.sub(rb"192\.0\.2\.1(?![0-9])|198\.51\.100\.62", b"GATEWAY", data)


PIECES = [
    "\n",
    " ",
    "  ",
    "- ",
    "[",
    "]",
    "{",
    "}",
    ",",
    ":",
    "'",
    '"',
    "#",
    "&a ",
    "*a",
    "|",
    ">",
    "!",
    "%",
    "\t",
    "\x00",
    "ä",
    "---\n",
    "? ",
]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, len(SANE)), st.sampled_from(PIECES), st.integers(0, 4)), max_size=4))
@example([(0, "\ufeff", 0)])
@example([(63, "\n", 1)])
def test_damaged_text_is_changed_in_its_addresses_only(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, str, int]]
) -> None:
    text = SANE
    for place, inserted, removed in changes:
        text = text[:place] + inserted + text[place + removed :]
    after = renamed(tmp_path_factory.mktemp("netplan"), text.encode())
    # A digit of the address may be gone; it is still the only one of the interface, and so the instance's.
    masked = [re.sub(rb"[0-9]+(?:\.[0-9]+){3}(?:/[0-9]+)?", b"ADDRESS", data) for data in (after, text.encode())]
    assert masked[0] == masked[1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (SANE + "  x: [\n", ":8: it is not YAML: "),
        (SANE + "\t- x\n", ":7: it is not YAML: "),
        (SANE + "  x: *nothing\n", ":7: *nothing has no anchor"),
        (SANE + "  x: &a [*a]\n", ":7: *a has no anchor"),
        ("# \xe4\n".encode("latin-1") + SANE.encode(), ":1: it is not UTF-8"),
        (b"a: b\n# \xff\n" + SANE.encode(), ":2: it is not UTF-8"),
        (SANE + "x: \x07\n", "it is not YAML: unacceptable character"),
        (SANE + "x: " + "[" * 40 + "]" * 40, ":7: it has more than 32 nested levels"),
        (SANE + "x: [" + "a, " * 20000 + "]", ":7: it has more than 10000 values"),
        (SANE + "#" * SIZE_LIMIT, f":1: it is larger than {SIZE_LIMIT} bytes"),
    ],
)
def test_what_is_not_understood_is_told_and_stays(
    tmp_path: Path, text: str | bytes, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    data = text if isinstance(text, bytes) else text.encode()
    guest = GuestFiles.make(tmp_path, {"/etc/hostname": "inst1\n", PATH: data})
    guest.tell("instances/inst1.example.org", "ADDRESS=192.0.2.10\n")
    guest.rename("198.51.100.5", **NETWORK)
    assert Path(f"{guest.root}{PATH}").read_bytes() == data
    found = warnings(caplog)
    assert (PATH + words if words.startswith(":") else words) in found[0]
    assert f"{PATH}:" in found[1]
    assert "192.0.2.10 remains here" in found[1]


def test_a_name_of_an_interface_cannot_add_a_line_to_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = SANE.replace("ens3", '"a\\nerror b"').replace("[192.0.2.10/24]", "[192.0.2.10/24, 192.0.2.11/24]")
    renamed(tmp_path, text)
    assert "a\\nerror b has 2 addresses" in warnings(caplog)[0]


def test_many_files_together_are_bounded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files: dict[str, str | bytes] = {f"/etc/netplan/{n}.yaml": SANE + "#" * 60000 + "\n" for n in range(6)}
    guest = GuestFiles.make(tmp_path, {"/etc/hostname": "inst1\n", **files})
    guest.rename("198.51.100.5")
    assert "/etc/netplan/4.yaml:1: with those before it, it is larger than 262144 bytes" in caplog.text


def test_without_pyyaml_one_sentence_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = builtins.__import__

    def refused(name: str, *arguments: Any, **more: Any) -> Any:
        if name == "yaml":
            raise ModuleNotFoundError("No module named 'yaml'", name="yaml")
        return real(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", refused)
    guest = GuestFiles.make(tmp_path, {"/etc/hostname": "inst1\n", PATH: SANE, "/etc/netplan/b.yaml": SANE})
    guest.rename("198.51.100.5", **NETWORK)
    assert guest.read()[PATH] == SANE
    assert warnings(caplog) == [
        f"{PATH}: netplan's files are not changed: PyYAML is missing on the node; install python3-yaml"
    ]
    caplog.clear()
    guest = GuestFiles.make(tmp_path / "dhcp", {"/etc/hostname": "inst1\n", PATH: "network: {version: 2}\n"})
    guest.rename("198.51.100.5", **NETWORK)
    assert warnings(caplog) == []


@pytest.mark.parametrize(
    "piece", ["[", "{", "- ", "? ", "a: ", "&a ", "- &a [*a]\n", "'", '"\\x41" ', "!", "a\n", "|\n", "---\n"]
)
@pytest.mark.parametrize("start", ["", "[", "network:\n  ethernets:\n    a:\n      addresses:\n"])
def test_hostile_text_ends_quickly(piece: str, start: str) -> None:
    data = (start + piece * SIZE_LIMIT)[:SIZE_LIMIT].encode()
    begin = time.process_time()
    assert "\n" not in read(data)
    assert time.process_time() - begin < 5


def read(data: bytes) -> str:
    """Return the sentence about what cannot be read; empty for a document."""
    try:
        yaml_document(data)
    except YamlError as error:
        return f"{error.line}: {error}"
    return ""


def test_a_bomb_of_aliases_is_counted_before_it_is_read() -> None:
    lines = ["a0: &a0 [192.0.2.10/24]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    document = "\n".join([*lines, "network: {ethernets: {e: {addresses: *a29, routes: *a29}}}"]).encode()
    begin = time.process_time()
    assert "more than 10000 values" in read(document)
    assert time.process_time() - begin < 5


def test_keys_that_come_twice_and_share_their_values_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # As many kinds of as many interfaces of as many settings, each written once: the product is 3 billions.
    settings = ", ".join(f"k{number}: 1" for number in range(1400))
    names = ", ".join(f"e{number}: *s" for number in range(1400))
    document = f"s: &s {{{settings}}}\nn: &n {{{names}}}\nnetwork:\n" + "  ethernets: *n\n" * 1400
    begin = time.process_time()
    assert renamed(tmp_path, document) == document.encode()
    assert time.process_time() - begin < 10
    assert f"{PATH}:2: it has more than 10000 values; the file is not changed" in caplog.text


def test_lists_that_many_interfaces_share_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shared = "x: &a [" + ", ".join(f"10.0.{n // 250}.{n % 250}/8" for n in range(90)) + "]\n"
    names = "".join(f"    e{n}: {{addresses: *a}}\n" for n in range(90))
    renamed(tmp_path, shared + "network:\n  ethernets:\n" + names)
    assert "more than 1000 addresses" in caplog.text


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40), STYLES)
def test_the_span_of_each_value_is_its_bytes(value: str, style: dict[str, Any]) -> None:
    data = yaml.safe_dump({"a": ["ä", value]}, **style).encode()
    try:
        document = yaml_document(data)
    except YamlError:
        return  # a character that only escapes can write, and that is then read back
    stack: list[Any] = [document]
    while stack:
        node = stack.pop()
        if isinstance(node, Scalar):
            assert node.span is None or data[node.span.start : node.span.end] == node.value.encode() == node.span.text
        else:
            stack += getattr(node, "items", []) if not callable(getattr(node, "items", None)) else []
            stack += [one for pair in getattr(node, "pairs", []) for one in pair]


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60) | st.text(alphabet="[]{}&*!|>'\"%@`#,:?- \na0\\", max_size=60).map(str.encode))
def test_any_bytes_are_a_document_or_one_sentence(data: bytes) -> None:
    assert "\n" not in read(data)
