# SPDX-License-Identifier: MIT
"""Settings: defaults, layers, and the message about each invalid value."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from ganeti_os.settings.settings import Layer, Paths, Settings, check_contradictions, node_architecture, read_settings
from ganeti_os.settings.shellfile import SettingsError
from ganeti_os.settings.table import SETTINGS, WITHOUT_EFFECT, checked
from pydiskimg.text import quoted

FILE = "/etc/default/ganeti-instance-image"


def settings(*layers: dict[str, str], machine: str = "x86_64") -> Settings:
    named = [Layer(f"layer {index}", values) for index, values in enumerate(layers)]
    return Settings.from_layers(named, machine=machine)


def test_defaults() -> None:
    assert settings() == Settings(
        cdinstall=False,
        swap=True,
        swap_size_mib=None,
        boot_size_mib=100,
        filesystem="ext4",
        partition_table="auto",
        bootloader="auto",
        image_name="",
        image_type="qemu",
        image_dir="/var/cache/ganeti-instance-image",
        image_url="",
        image_proxy="",
        image_verify=True,
        image_keyring="",
        image_cleanup=False,
        cache_dir="/var/cache/ganeti-instance-image",
        arch="x86_64",
        nomount=False,
        guest_mount=True,
        identity=True,
        import_identity="keep",
        root_password_hash="",
        authorized_keys="",
        authorized_keys_file="",
        customize_dir="/etc/ganeti/instance-image.d",
        overlay="",
        overlays_dir="/etc/ganeti/instance-image/overlays",
        networks_dir="/etc/ganeti/instance-image/networks",
        dns_servers=(),
        dns_search=(),
        cloud_user_data="",
        variants_dir="/etc/ganeti/instance-image/variants",
        kernel_args="",
        export_compression="zlib",
        export_dir="/var/tmp",
        import_format="auto",
        grow=True,
        wipe="auto",
        os_parameters=None,
        image_debug=False,
    )


def test_configured_paths() -> None:
    found = Settings.from_layers([], paths=Paths("/opt/{x}/etc", "/opt/var"), machine="x86_64")
    assert (found.customize_dir, found.image_dir) == (
        "/opt/{x}/etc/ganeti/instance-image.d",
        "/opt/var/cache/ganeti-instance-image",
    )


def test_later_layers_win_and_empty_is_the_default() -> None:
    found = settings({"FILESYSTEM": "ext2", "SWAP": "no", "BOOT_SIZE": "50"}, {"FILESYSTEM": "ext3", "BOOT_SIZE": ""})
    assert (found.filesystem, found.swap, found.boot_size_mib) == ("ext3", False, 100)


@pytest.mark.parametrize(
    ("machine", "arch"),
    [
        ("x86_64", "x86_64"),
        ("amd64", "x86_64"),
        ("i386", "x86"),
        ("i486", "x86"),
        ("i686", "x86"),
        ("aarch64", "aarch64"),
    ],
)
def test_architecture_of_the_node(machine: str, arch: str) -> None:
    assert node_architecture(machine) == arch
    assert settings(machine=machine).arch == arch
    assert settings({"ARCH": arch}, machine=machine).arch == arch


@pytest.mark.parametrize("text", ["yes", "1", "true", "YES", "True"])
def test_yes(text: str) -> None:
    assert settings({"CDINSTALL": text}).cdinstall


@pytest.mark.parametrize("text", ["no", "0", "false", "No"])
def test_no(text: str) -> None:
    assert not settings({"SWAP": text}).swap


def test_values() -> None:
    found = settings(
        {
            "SWAP_SIZE": "0512",
            "BOOT_SIZE": "16777216",
            "IMAGE_NAME": "debian 12",
            "IMAGE_TYPE": "tarball",
            "IMAGE_DIR": "/srv/images/",
            "ARCH": "x86",
            "IMAGE_DEBUG": "1",
        }
    )
    assert (found.swap_size_mib, found.boot_size_mib, found.image_name) == (512, 16777216, "debian 12")
    assert (found.image_type, found.image_dir, found.arch, found.image_debug) == ("tarball", "/srv/images", "x86", True)


@pytest.mark.parametrize(
    ("name", "text", "part"),
    [
        *((name, "maybe", "expected yes or no") for name in ("CDINSTALL", "SWAP", "GROW", "IMAGE_DEBUG")),
        *(
            ("SWAP_SIZE", text, "expected a size in MiB from 1")
            for text in ("0", "-1", "1.5", "512M", "²", " 5", "9" * 30)
        ),
        ("BOOT_SIZE", "16777217", "expected a size in MiB from 1 to 16777216"),
        ("FILESYSTEM", "xfs", "expected ext2, ext3 or ext4"),
        ("IMAGE_TYPE", "vmdk", "expected qemu, tarball, raw, qcow2 or dump"),
        *(
            (name, text, part)
            for name, part in (("IMAGE_NAME", "a file name without /"), ("OVERLAY", "the name of a directory"))
            for text in ("a/b", "..", ".", ".a", "a\n", "a\x1b", " a", "a\udcff")
        ),
        *(("IMAGE_URL", text, "begins with http:// or https://") for text in ("ftp://x", "http://", "http://a b", "x")),
        ("KERNEL_ARGS", "a\nb", "expected one line of 4096 characters at most"),
        ("EXPORT_COMPRESSION", "gzip", "expected none, zlib or zstd"),
        ("IMPORT_FORMAT", "vmdk", "expected auto, qcow2, raw or tar"),
        *((name, "x", "expected the absolute path") for name in ("OVERLAYS_DIR", "VARIANTS_DIR", "CACHE_DIR")),
        *(("IMAGE_DIR", text, "expected the absolute path") for text in ("images", "/a\nb")),
        ("CUSTOMIZE_DIR", "hooks", "expected the absolute path"),
        ("WIPE", "cheap", "expected auto, yes or no"),
        ("ARCH", "pdp11", "expected x86_64, amd64, x64, x86, i386,"),
        ("ARCH", "a/b", "expected x86_64, amd64, x64, x86, i386,"),
    ],
)
def test_refuses(name: str, text: str, part: str) -> None:
    layer = Layer(FILE, {name: text}, {name: 7})
    with pytest.raises(SettingsError) as caught:
        Settings.from_layers([layer], machine="x86_64")
    assert str(caught.value).startswith(f"{FILE}:7: {name} is {quoted(text)}; ")
    assert part in str(caught.value)


@pytest.mark.parametrize(("name", "word"), [("DNS_SERVERS", "192.0.2.1"), ("DNS_SEARCH", "example.org")])
def test_too_many_words_are_counted(name: str, word: str) -> None:
    with pytest.raises(SettingsError, match=f"{name} has 9 entries; expected at most 8"):
        Settings.from_layers([Layer(FILE, {name: f"{word} " * 9}, {name: 7})], machine="x86_64")


def test_refuses_by_the_layers_name() -> None:
    with pytest.raises(SettingsError, match=r"^the OS parameters: SWAP is 'x'; expected yes or no$"):
        Settings.from_layers([Layer("the OS parameters", {"SWAP": "x"})])


def test_arch_names_the_node_that_is_neither() -> None:
    with pytest.raises(SettingsError, match="loongarch64 or loong64, or mips64 as this node"):
        settings({"ARCH": "sparc"}, machine="mips64")


def test_unknown_names_warn_with_the_nearest(caplog: pytest.LogCaptureFixture) -> None:
    settings({"IMAGE_NAMES": "x", "filesystem": "ext3", "QUITE_DIFFERENT": "x", "SFDISK": "/sbin/sfdisk"})
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.WARNING, "layer 0: IMAGE_NAMES is not a setting and is ignored; did you mean IMAGE_NAME?"),
        (logging.WARNING, "layer 0: filesystem is not a setting and is ignored; did you mean FILESYSTEM?"),
        (logging.WARNING, "layer 0: QUITE_DIFFERENT is not a setting and is ignored"),
        (logging.WARNING, "layer 0: SFDISK is not a setting and is ignored"),
    ]


@pytest.mark.parametrize("name", WITHOUT_EFFECT)
def test_names_without_effect_are_noted(name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    settings({name: "x"}, {name: ""})
    assert [record.getMessage() for record in caplog.records] == [
        f"layer 0: {name} has no effect: {WITHOUT_EFFECT[name]}"
    ]
    assert caplog.records[0].levelno == logging.INFO


def test_reads_the_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    paths = Paths(str(tmp_path), "/var")
    assert read_settings(paths, machine="x86_64") == Settings.from_layers([], paths=paths, machine="x86_64")
    (tmp_path / "default").mkdir()
    (tmp_path / "default/ganeti-instance-image").write_text('BASE=/srv\nIMAGE_DIR="$BASE/images"\nSWAP=no\n')
    found = read_settings(paths, parameters={"SWAP": "yes"}, machine="x86_64")
    assert (found.image_dir, found.swap) == ("/srv/images", True)
    assert not caplog.records  # BASE is the administrator's own
    (tmp_path / "default/ganeti-instance-image").write_text("SWAP=yes\n\nSWAP=perhaps")
    with pytest.raises(SettingsError, match="default/ganeti-instance-image:3: SWAP is 'perhaps'"):
        read_settings(paths)


def test_the_table_describes_every_setting() -> None:
    for setting in SETTINGS:
        assert setting.meaning
        assert setting.kind.expected
        text = Paths().default(setting)
        assert not text or checked(setting, text, native="x86_64") is not None
    assert not {setting.name for setting in SETTINGS} & set(WITHOUT_EFFECT)


@pytest.mark.parametrize("name", ["IMAGE_NAME", "KERNEL_ARGS", "SWAP_SIZE", "ARCH"])
def test_a_huge_value_gives_a_short_sentence(name: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings({name: "x" * 100_000})
    assert len(str(caught.value)) < 300
    assert "(100000 characters)" in str(caught.value)


def test_texts_are_what_one_would_write() -> None:
    written = {"SWAP": "no", "SWAP_SIZE": "512", "KERNEL_ARGS": "a='b c' $x", "ARCH": "x86", "IMAGE_DIR": "/a b"}
    found = settings(written)
    assert found.texts().items() >= {**written, "NOMOUNT": "no", "IMAGE_VERIFY": "yes", "OVERLAY": ""}.items()
    assert settings(found.texts()) == found
    assert settings().texts()["SWAP_SIZE"] == ""
    for text, written_as in (("", ""), ("none", "none"), ("grow SWAP", "swap grow")):
        found = settings({"OS_PARAMETERS": text})
        assert found.texts()["OS_PARAMETERS"] == written_as
        assert settings(found.texts()) == found


def test_what_scripts_get() -> None:
    found = settings({"OVERLAY": "web", "SWAP": "no"}).for_scripts()
    assert found == {
        "SWAP": "no",
        "SWAP_SIZE": "",
        "BOOT_SIZE": "100",
        "FILESYSTEM": "ext4",
        "PARTITION_TABLE": "auto",
        "BOOTLOADER": "auto",
        "IMAGE_NAME": "",
        "IMAGE_TYPE": "qemu",
        "ARCH": "x86_64",
        "OVERLAY": "web",
        "OVERLAYS_DIR": "/etc/ganeti/instance-image/overlays",
        "NETWORKS_DIR": "/etc/ganeti/instance-image/networks",
        "DNS_SERVERS": "",
        "DNS_SEARCH": "",
        "KERNEL_ARGS": "",
    }


@pytest.mark.parametrize("kind", ["tarball", "dump"])
def test_contradictions(kind: str) -> None:
    with pytest.raises(SettingsError, match=f"^NOMOUNT=yes contradicts IMAGE_TYPE={kind}: "):
        check_contradictions(settings({"NOMOUNT": "yes", "IMAGE_TYPE": kind}))
    for fine in ({"NOMOUNT": "yes"}, {"IMAGE_TYPE": kind}, {"NOMOUNT": "1", "IMAGE_TYPE": kind, "CDINSTALL": "1"}):
        check_contradictions(settings(fine))
