# SPDX-License-Identifier: MIT
"""OS parameters: which exist, which are refused, and a message about each wrong one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ganeti_os.request import parse_request
from ganeti_os.settings.parameters import PUBLISHED, read_parameters
from ganeti_os.settings.settings import Paths, Settings, read_settings
from ganeti_os.settings.shellfile import SettingsError
from ganeti_os.settings.table import BY_NAME, SETTINGS
from tests.fixtures.node import ROOT, Node, last_line, stream_environment

VALUES = {
    "CDINSTALL": "yes",
    "SWAP": "no",
    "SWAP_SIZE": "512",
    "BOOT_SIZE": "200",
    "FILESYSTEM": "ext3",
    "PARTITION_TABLE": "gpt",
    "BOOTLOADER": "none",
    "IMAGE_NAME": "debian-12",
    "IMAGE_TYPE": "raw",
    "ARCH": "x86",
    "NOMOUNT": "true",
    "IDENTITY": "no",
    "IMPORT_IDENTITY": "new",
    "ROOT_PASSWORD_HASH": "$6$salt$Qp9.TlZ/0aB1cD2eF3",
    "AUTHORIZED_KEYS": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA== me@example.org",
    "OVERLAY": "web",
    "DNS_SERVERS": "192.0.2.53 2001:db8::53",
    "DNS_SEARCH": "example.org lan",
    "KERNEL_ARGS": "console=ttyS0,115200 quiet",
    "EXPORT_COMPRESSION": "zstd",
    "IMPORT_FORMAT": "tar",
    "GROW": "0",
    "IMAGE_DEBUG": "True",
}


def sentences(**parameters: str) -> list[str]:
    return read_parameters(parameters, native="x86_64")[1]


def test_every_published_parameter_has_its_effect() -> None:
    assert list(VALUES) == [setting.name for setting in PUBLISHED]
    assert read_parameters(VALUES, native="x86_64") == (VALUES, [])
    plain, changed = Settings.from_layers([]), read_settings(Paths("/none"), parameters=VALUES)
    for setting in PUBLISHED:
        assert getattr(plain, setting.field) != getattr(changed, setting.field)


@pytest.mark.parametrize("name", [setting.name for setting in SETTINGS if not setting.per_instance])
def test_what_runs_as_root_on_a_node_is_not_for_users_to_choose(name: str) -> None:
    for text in ("/tmp", "no", "http://192.0.2.1/", ""):
        (problem,) = sentences(**{name: text})
        assert problem.startswith(f"OS parameter {name.lower()} is refused: ")
        files = "the settings file" if BY_NAME[name].node_only else "the settings file or in a variant"
        assert problem.endswith(f"by {name} in {files}")


def test_directories_and_downloads_are_never_published() -> None:
    """A row that is added to the table must not become a parameter by accident."""
    assert not [s.name for s in PUBLISHED if s.name.endswith(("_DIR", "_URL", "_VERIFY", "_CLEANUP"))]
    assert not {"OS_PARAMETERS", "WIPE"} & {setting.name for setting in PUBLISHED}


def test_an_empty_value_is_the_default() -> None:
    empty = dict.fromkeys(VALUES, "")
    assert read_parameters(empty, native="x86_64") == (empty, [])
    assert read_settings(Paths("/none"), parameters=empty) == Settings.from_layers([], paths=Paths("/none"))


def test_a_name_that_does_not_exist() -> None:
    case = "OS parameter 'swap' is not in upper case; Ganeti passes the parameter swap as OSP_SWAP"
    assert sentences(swap="no") == [case]
    assert sentences(IMAGE_NAMES="x") == ["OS parameter 'image_names' does not exist; did you mean image_name?"]
    assert sentences(FDISK="parted")[0].startswith("OS parameter 'fdisk' does not exist; ")
    (problem,) = sentences(DHCP="x")
    assert problem.endswith(f"; there are: {', '.join(name.lower() for name in VALUES)}")
    assert "\n" not in sentences(**{"A\nB": "x"})[0]
    assert "overlays_dir" not in sentences(OVERLAYS="x")[0]


@given(st.dictionaries(st.one_of(st.sampled_from(list(BY_NAME)), st.text()), st.text()))
def test_one_short_line_about_each(parameters: dict[str, str]) -> None:
    values, wrong = read_parameters(parameters, native="x86_64")
    assert len(values) + len(wrong) == len(parameters)
    for sentence in wrong:
        assert sentence.isprintable()
        assert len(sentence) < 700
    if not wrong:
        read_settings(Paths("/none"), parameters=values)


def test_ganetis_names_become_settings() -> None:
    request = parse_request("verify", ["parameters"], {"OS_API_VERSION": "20", "OSP_IMAGE_NAME": "x"})
    assert read_settings(Paths("/none"), parameters=request.parameters).image_name == "x"


def test_one_wrong_parameter_is_the_last_sentence() -> None:
    with pytest.raises(SettingsError, match=r"^OS parameter swap is 'x'; expected yes or no$"):
        read_settings(Paths("/none"), parameters={"SWAP": "x", "GROW": "yes"})


def test_several_wrong_parameters(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(SettingsError, match=r"^2 of 3 OS parameters are wrong; see above$"):
        read_settings(Paths("/none"), parameters={"SWAP": "x", "GROW": "yes", "IMAGE_DIR": "/"})
    assert [record.getMessage().split(" is ")[0] for record in caplog.records] == [
        "OS parameter image_dir",
        "OS parameter swap",
    ]


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node.make(tmp_path / "node", IMAGE_NAME="x")


def test_verify_accepts_in_silence(node: Node) -> None:
    parameters = {f"OSP_{name}": text for name, text in VALUES.items() if name != "IMAGE_DEBUG"}
    done = node.run("verify", "parameters", OS_API_VERSION="20", OS_NAME="image", OS_VARIANT="default", **parameters)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_verify_tells_of_each(node: Node) -> None:
    """Ganeti's client shows both outputs of a verify that fails."""
    wrong = {"OSP_SWAP": "perhaps", "OSP_BOOT_SIZE": "10G", "OSP_IMAGE_URL": "http://192.0.2.1/", "OSP_IMAGE_NAME": "a"}
    done = node.run("verify", "parameters", OS_API_VERSION="20", OS_NAME="image", **wrong)
    lines = done.stderr.splitlines()
    assert (done.returncode, done.stdout, len(lines)) == (1, "", 4)
    assert (
        lines[0] == "image verify: settings: OS parameter boot_size is '10G'; expected a size in MiB from 1 to 16777216"
    )
    assert lines[1].startswith("image verify: settings: OS parameter image_url is refused: ")
    assert lines[2] == "image verify: settings: OS parameter swap is 'perhaps'; expected yes or no"
    assert lines[3] == "image verify: settings: 3 of 4 OS parameters are wrong; see above"


def test_verify_tells_of_parameters_and_of_the_rest(node: Node) -> None:
    done = node.run("verify", "parameters", OS_API_VERSION="20", OS_NAME="image", OS_VARIANT="none", OSP_SWAP="perhaps")
    assert done.returncode == 1
    assert "OS parameter swap is 'perhaps'" in done.stderr
    assert "the variant none is not published" in last_line(done)
    node.configure(SWAP="x")
    done = node.run("verify", "parameters", OS_API_VERSION="20", OS_NAME="image", OSP_GROW="perhaps")
    assert "OS parameter grow is 'perhaps'" in done.stderr
    assert "ganeti-instance-image:1: SWAP is 'x'" in last_line(done)


def test_verify_refuses_a_contradiction_between_layers(node: Node) -> None:
    node.configure(IMAGE_TYPE="tarball")
    done = node.run("verify", "parameters", OS_API_VERSION="20", OSP_NOMOUNT="yes")
    assert (done.returncode, "NOMOUNT=yes contradicts IMAGE_TYPE=tarball" in last_line(done)) == (1, True)


def test_verify_survives_what_nobody_expects(node: Node) -> None:
    value = os.fsdecode(b"\xff\x1b[2J")
    done = node.run("verify", "parameters", OS_API_VERSION="20", LC_ALL="C", OSP_IMAGE_NAME=value, OSP_X="y" * 100_000)
    assert done.returncode == 1
    assert done.stderr.isascii()
    assert len(done.stderr) < 2000


@pytest.mark.parametrize("environ", [{"DEBUG_LEVEL": "1"}, {"OSP_IMAGE_DEBUG": "yes"}, {"OSP_IMAGE_DEBUG": "1"}])
def test_details_on_request(node: Node, environ: dict[str, str]) -> None:
    done = node.run("verify", "parameters", OS_API_VERSION="20", OS_NAME="image", OSP_IMAGE_NAME="debian-12", **environ)
    assert done.returncode == 0
    assert "image verify: settings: CDINSTALL='no' " in done.stderr
    assert " IMAGE_NAME='debian-12' " in done.stderr


def test_details_have_no_passwords(node: Node) -> None:
    node.configure(IMAGE_URL="https://lisa:cr%40et@images.example/d", IMAGE_PROXY="http://lisa:cret@proxy.example:3128")
    done = node.run("verify", "parameters", OS_API_VERSION="20", OS_NAME="image", DEBUG_LEVEL="1")
    assert "IMAGE_URL='https://images.example/d' IMAGE_PROXY='http://proxy.example:3128' " in done.stderr
    node.configure(IMAGE_URL="htps://lisa:cr%40et@images.example/d")
    done = node.run("verify", "parameters", OS_API_VERSION="20", OS_NAME="image")
    assert "IMAGE_URL is 'htps://images.example/d'; expected" in last_line(done)


def test_create_uses_the_parameters_and_refuses_the_same(node: Node, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(b"\xff" * (1 << 20))
    (node.images / "y-x86_64.raw").write_bytes(b"\0image" * 100)
    chosen = {"OSP_IMAGE_NAME": "y", "OSP_IMAGE_TYPE": "raw", "OSP_ARCH": "x86_64"}
    done = node.create(disk, **chosen, OSP_IMAGE_DIR=str(tmp_path))
    assert (done.returncode, disk.read_bytes()) == (1, b"\xff" * (1 << 20))
    assert "inst1.example.org: settings: OS parameter image_dir is refused" in last_line(done)
    done = node.create(disk, **chosen)
    assert done.returncode == 0, done.stderr
    assert disk.read_bytes().startswith(b"\0image" * 100)


LISTED = "image_name swap"


def listing(tmp_path: Path, names: str, *, variant: str = "") -> Paths:
    """A settings file whose third line is OS_PARAMETERS, and a variant."""
    paths = Paths(str(tmp_path / "etc"), "/var")
    file, conf = Path(paths.settings_file), tmp_path / "etc/ganeti/instance-image/variants/web.conf"
    for path in (file, conf):
        path.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f'SWAP=no\n\nOS_PARAMETERS="{names}"\n')
    conf.write_text(variant)
    return paths


def refusal(paths: Paths, variant: str | None = None, **parameters: str) -> str:
    with pytest.raises(SettingsError) as caught:
        read_settings(paths, variant=variant, parameters=parameters)
    return str(caught.value)


@pytest.mark.parametrize("name", [name for name in VALUES if name.lower() not in LISTED.split()])
@pytest.mark.parametrize("text", ["", "good"])
def test_what_the_node_does_not_list_is_refused(tmp_path: Path, name: str, text: str) -> None:
    paths = listing(tmp_path, LISTED)
    assert refusal(paths, **{name: text and VALUES[name]}) == (
        f"OS parameter {name.lower()} is refused: {paths.settings_file}:3: OS_PARAMETERS has swap, image_name; add it "
        f"there, or remove it from the instance with: gnt-instance modify -O {name.lower()}=default INSTANCE"
    )


def test_what_the_node_lists_is_accepted(tmp_path: Path) -> None:
    for names in (LISTED, LISTED.upper(), "swap\timage_name image_name", "", " ".join(VALUES)):
        found = read_settings(listing(tmp_path, names), parameters={"IMAGE_NAME": "x", "SWAP": "yes"})
        assert (found.image_name, found.swap) == ("x", True)


def test_none_at_all(tmp_path: Path) -> None:
    paths = listing(tmp_path, "none")
    assert read_settings(paths).os_parameters == ()
    assert "OS_PARAMETERS has none; " in refusal(paths, SWAP="yes")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ("image_name image_url", "lists 'image_url', which can never be an OS parameter"),
        ("OS_PARAMETERS", "lists 'os_parameters', which can never be an OS parameter"),
        ("swap,grow", "lists 'swap,grow', which is not a setting"),
        ("swap none", "lists 'none', which is not a setting"),
        ("\u00fc" * 500, "(500 characters), which is not a setting"),
    ],
)
def test_a_list_that_makes_no_sense(tmp_path: Path, names: str, words: str) -> None:
    paths = listing(tmp_path, names)
    sentence = refusal(paths)
    assert sentence.startswith(f"{paths.settings_file}:3: OS_PARAMETERS lists ")
    assert words in sentence
    assert sentence.endswith(f"; possible are none, or {', '.join(VALUES).lower()}")


@pytest.mark.parametrize("names", ["", "none", "nomount"])
def test_a_variant_has_no_list(tmp_path: Path, names: str) -> None:
    paths = listing(tmp_path, LISTED, variant=f'\nOS_PARAMETERS="{names}"\n')
    assert read_settings(paths).swap is False
    sentence = refusal(paths, "web")
    assert sentence.endswith(f"; set it in {paths.settings_file}")
    assert "web.conf:2: OS_PARAMETERS is not allowed in a variant, " in sentence


def test_a_list_that_makes_no_sense_hides_no_other_sentence(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert "lists 'x'" in refusal(listing(tmp_path, "x"), SWAP="maybe")
    assert [record.getMessage() for record in caplog.records] == ["OS parameter swap is 'maybe'; expected yes or no"]


@pytest.mark.parametrize("verb", ["create", "export", "import", "rename", "verify"])
def test_every_verb_refuses_it(node: Node, tmp_path: Path, verb: str) -> None:
    node.configure(OS_PARAMETERS="image_name", CUSTOMIZE_DIR="/nowhere")
    disk = tmp_path / "disk"
    disk.write_bytes(b"\xff" * (1 << 20))
    arguments = ["parameters"] if verb == "verify" else []
    environment = stream_environment(verb, disk, OSP_NOMOUNT="yes", OLD_INSTANCE_NAME="old.example.org")
    done = node.run(verb, *arguments, **environment)
    assert (done.returncode, done.stdout, disk.read_bytes()) == (1, "", b"\xff" * (1 << 20))
    assert "settings: OS parameter nomount is refused: " in last_line(done)


def test_the_page_says_what_each_parameter_gives() -> None:
    page = (ROOT / "docs/settings.md").read_text()
    for setting in PUBLISHED:
        assert f"| `{setting.parameter}` | {setting.gives_away} |" in page
