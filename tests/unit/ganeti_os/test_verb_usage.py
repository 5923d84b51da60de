# SPDX-License-Identifier: MIT
"""The man page's common behaviour: every verb tells how it is used, and takes no wrong number of arguments."""

from __future__ import annotations

import subprocess
from keyword import iskeyword
from pathlib import Path

import pytest

from ganeti_os.internal_errors import defect
from ganeti_os.main import MODULES, WHAT
from ganeti_os.request import VERBS, RequestError, help_text, parse_request, usage
from tests.fixtures.node import ROOT, Node, create_environment, last_line


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node.make(tmp_path / "node")


def test_the_verbs_and_their_modules() -> None:
    assert VERBS == ("create", "import", "export", "rename", "verify")
    assert not any(iskeyword(MODULES.get(verb, verb)) for verb in VERBS)
    assert MODULES == {"import": "import_"}


@pytest.mark.parametrize("verb", VERBS)
def test_help(node: Node, verb: str) -> None:
    for argument in ("-h", "--help"):
        done = node.run(verb, argument, OS_API_VERSION="20")
        assert (done.returncode, done.stdout, done.stderr) == (0, help_text(verb) + "\n", "")
        assert done.stdout.startswith(usage(verb))


@pytest.mark.parametrize("verb", VERBS)
def test_wrong_number_of_arguments(node: Node, verb: str) -> None:
    named = ["-n" if verb == "rename" else "-i", "x", "more"]
    calls: list[tuple[list[str], dict[str, str], str]] = [
        ([], {}, ""),
        (named, {}, "" if verb == "verify" else " x"),
        (["more"], {}, ""),
    ]
    if verb != "verify":
        calls.append((["more"], create_environment("/disk"), " inst1.example.org"))
    for arguments, environ, instance in calls:
        done = node.run(verb, *arguments, **environ)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(usage(verb))
        assert last_line(done).startswith(f"image {verb}{instance}: request: {verb}")


@pytest.mark.parametrize("verb", ["create", "import", "export", "rename"])
def test_a_disk_without_a_path(node: Node, verb: str) -> None:
    """Ganeti leaves DISK_n_PATH out for a disk that only the hypervisor can reach."""
    environ = create_environment("", DISK_0_URI="rbd:pool/disk", OLD_INSTANCE_NAME="old")
    environ |= {f"{verb.upper()}_DISK_URI": "rbd:pool/disk"}
    for names in (("DISK_0_PATH",), ()):
        given = {name: value for name, value in environ.items() if name not in names}
        with pytest.raises(RequestError, match=r"^disk 0 is reachable only by DISK_0_URI \(rbd:pool/disk\), "):
            parse_request(verb, [], given)
    done = node.run(verb, **environ)
    assert (done.returncode, done.stdout) == (1, "")
    assert "give the disk template kernel-space access" in last_line(done)


def test_messages_carry_the_instance(node: Node) -> None:
    node.configure(SWAP="x")
    done = node.create("/disk", OS_NAME="debian")
    assert last_line(done).startswith("debian create inst1.example.org: ")


@pytest.mark.parametrize(
    ("verb", "arguments", "environ", "beginning"),
    [
        ("create", "-i inst1 -b /disk", {}, "image create inst1: request: create: missing -s"),
        ("rename", "-o a -n inst1 -b /disk -s", {}, "image rename inst1: request: rename: "),
        ("export", "-i inst\x1b1 -b /disk", {}, "image export: request: -i is 'inst\\x1b1'"),
        ("import", "", {"DISK_COUNT": ""}, "image import inst1.example.org: request: DISK_COUNT"),
        ("create", "", {"OS_NAME": "debian", "OS_VARIANT": "none"}, "debian create inst1.example.org: settings: /"),
        ("create", "", {}, "image create inst1.example.org: installing: IMAGE_NAME is not set"),
        ("rename", "", {"OLD_INSTANCE_NAME": "a"}, "image rename inst1.example.org: finding the root file system: "),
        ("export", "", {"EXPORT_DEVICE": "/disk"}, "image export inst1.example.org: exporting: /disk: "),
        ("import", "", {"IMPORT_DEVICE": "/disk"}, "image import inst1.example.org: restoring: /disk: "),
    ],
)
def test_messages_carry_the_instance_and_the_step(
    node: Node, verb: str, arguments: str, environ: dict[str, str], beginning: str
) -> None:
    given = {} if arguments else {**create_environment("/disk"), **environ}
    done = node.run(verb, *arguments.split(), **given)
    assert done.returncode in (1, 2)
    assert last_line(done).startswith(beginning)
    assert all(line.startswith((beginning[:20], "usage: ", "       ")) for line in done.stderr.splitlines())


def test_an_installation_that_lacks_a_module() -> None:
    error = ModuleNotFoundError("no", name="ganeti_os.verbs.export")
    assert "the module ganeti_os.verbs.export is missing; install it again" in str(defect(error, "the backup"))


def test_an_interpreter_that_lacks_a_module() -> None:
    sentence = str(defect(ModuleNotFoundError("no", name="_lzma"), "the backup"))
    assert "was built without the module _lzma of Python's standard library" in sentence
    assert "install" not in sentence


def test_a_defect_is_told_with_what_it_spoilt() -> None:
    assert str(defect(KeyError("x"), "the backup")) == "internal error: KeyError: 'x'; the backup is not complete"
    assert set(WHAT) == set(VERBS)


@pytest.mark.parametrize(
    ("arguments", "redirection", "status", "words"),
    [
        ("create -x", "2>/dev/full", 2, ""),
        ("create -x", "2>&-", 2, ""),
        ("create --help", ">/dev/full", 1, "image create: the usage cannot be written to standard output: No space"),
    ],
)
def test_usage_that_nobody_gets(node: Node, arguments: str, redirection: str, status: int, words: str) -> None:
    command = ["sh", "-c", f'exec "$@" {redirection}', "sh", *node.command(*arguments.split())]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (status, "")
    assert last_line(done).startswith(words)
