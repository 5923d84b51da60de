# SPDX-License-Identifier: MIT
"""The administrator's settings: defaults < settings file < later layers become one frozen Settings.

SETTINGS is the one table of names, kinds, defaults and meanings: what is read, checked and documented comes from it.
"""

from __future__ import annotations

import difflib
import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from ganeti_os.shellfile import SettingsError, read_shell_file

log = logging.getLogger(__name__)

MAX_SIZE_MIB = 16 << 20  # 16 TiB, the largest ext4 file system that is made

_TRUE = ("yes", "1", "true")
_FALSE = ("no", "0", "false")
_MACHINES = {"amd64": "x86_64", "x86_64": "x86_64"} | dict.fromkeys(("i386", "i486", "i586", "i686", "x86"), "x86")


@dataclass(frozen=True, slots=True)
class Paths:
    """The directories that the project was configured with; both absolute."""

    sysconfdir: str = "/etc"
    localstatedir: str = "/var"

    @property
    def settings_file(self) -> str:
        return f"{self.sysconfdir}/default/ganeti-instance-image"

    @property
    def image_dir(self) -> str:
        return f"{self.localstatedir}/cache/ganeti-instance-image"

    @property
    def customize_dir(self) -> str:
        return f"{self.sysconfdir}/ganeti/instance-image.d"


@dataclass(frozen=True, slots=True)
class Layer:
    """Values from one place; lines gives the line of each where the place is a file. An empty value is the default."""

    name: str
    values: Mapping[str, str]
    lines: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    helpers: frozenset[str] = frozenset()

    @classmethod
    def from_file(cls, path: str) -> Layer:
        """Read a settings file; one that does not exist is an empty layer.

        Raises SettingsError or StorageError. helpers are the names that other values were built from.
        """
        try:
            found = read_shell_file(path)
        except FileNotFoundError:
            log.debug("%s does not exist; every setting has its default", path)
            return cls(path, MappingProxyType({}))
        return cls(
            path,
            MappingProxyType({name: item.value for name, item in found.items()}),
            MappingProxyType({name: item.line for name, item in found.items()}),
            frozenset(name for name, item in found.items() if item.used),
        )

    def place(self, name: str) -> str:
        """Return where a value was set, for messages: path:line: or the layer's name."""
        return f"{self.name}:{self.lines[name]}" if name in self.lines else self.name


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table.

    expected says what values there are, as in "expected yes or no". default is the text as written in the file, with
    {sysconfdir} and {localstatedir} standing for the configured directories; empty where the default is a rule.
    check turns a text into the value and raises ValueError.
    """

    name: str
    expected: str
    default: str
    meaning: str
    check: Callable[[str], object]


def _boolean(text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise ValueError


def _size_mib(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,12}", text) or not 0 < int(text) <= MAX_SIZE_MIB:
        raise ValueError
    return int(text)


def _directory(text: str) -> str:
    if not text.startswith("/") or not text.isprintable():
        raise ValueError
    return text.rstrip("/") or "/"


def _image_name(text: str) -> str:
    if "/" in text or not text.isprintable() or text.startswith(".") or text != text.strip():
        raise ValueError
    return text


def _word(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", text):
        raise ValueError
    return text


def _choice(*choices: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if text not in choices:
            raise ValueError
        return text

    return check


def _url(text: str) -> str:
    if not re.fullmatch(r"https?://[!-~]+", text):
        raise ValueError
    return text.rstrip("/")


def _one_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError
    return text


_BOOLEAN = "yes or no"
_SIZE = f"a size in MiB from 1 to {MAX_SIZE_MIB}"
_DIRECTORY = "the absolute path of a directory"

SETTINGS = (
    Setting("CDINSTALL", _BOOLEAN, "no", "leave the disk as it is: the instance is installed from a CD", _boolean),
    Setting("SWAP", _BOOLEAN, "yes", "make a swap area when the disk is built from a tarball", _boolean),
    Setting("SWAP_SIZE", _SIZE, "", "size of the swap area in MiB; empty: the instance's memory", _size_mib),
    Setting("BOOT_SIZE", _SIZE, "100", "size of /boot in MiB, which is made when the kernel is inside", _size_mib),
    Setting(
        "FILESYSTEM",
        "ext2, ext3 or ext4",
        "ext4",
        "file system made when the disk is built from a tarball",
        _choice("ext2", "ext3", "ext4"),
    ),
    Setting("IMAGE_NAME", "a file name without /", "", "name of the image, such as debian-12", _image_name),
    Setting(
        "IMAGE_TYPE",
        "qemu, tarball, raw, qcow2 or dump",
        "qemu",
        "kind of the image, which is IMAGE_NAME-ARCH and .img (qemu: raw or qcow2, by looking), .tar.gz (tarball), "
        ".raw, .qcow2, or -root.dump and -boot.dump (dump)",
        _choice("qemu", "tarball", "raw", "qcow2", "dump"),
    ),
    Setting("IMAGE_DIR", _DIRECTORY, "{localstatedir}/cache/ganeti-instance-image", "where the images are", _directory),
    Setting(
        "IMAGE_URL",
        "an address that begins with http:// or https://",
        "",
        "where images are fetched from, as IMAGE_URL/FILE; empty: they are in IMAGE_DIR already",
        _url,
    ),
    Setting(
        "IMAGE_VERIFY",
        _BOOLEAN,
        "yes",
        "use a fetched image only when it matches its checksum beside it: SHA256SUMS, FILE.sha256 or (SHA-1) FILE.sig",
        _boolean,
    ),
    Setting("IMAGE_CLEANUP", _BOOLEAN, "no", "delete a fetched image after the installation", _boolean),
    Setting(
        "CACHE_DIR",
        _DIRECTORY,
        "{localstatedir}/cache/ganeti-instance-image",
        "where fetched images are kept",
        _directory,
    ),
    Setting("ARCH", "x86 or x86_64", "", "architecture in the image's name; empty: the node's", _word),
    Setting("NOMOUNT", _BOOLEAN, "no", "copy the image and change nothing inside; for systems without Linux", _boolean),
    Setting(
        "CUSTOMIZE_DIR",
        _DIRECTORY,
        "{sysconfdir}/ganeti/instance-image.d",
        "where the customisation scripts are; run as root, in C order",
        _directory,
    ),
    Setting(
        "OVERLAY",
        "the name of a directory in OVERLAYS_DIR",
        "",
        "directory whose files are copied over the installed system",
        _image_name,
    ),
    Setting(
        "OVERLAYS_DIR", _DIRECTORY, "{sysconfdir}/ganeti/instance-image/overlays", "where overlays are", _directory
    ),
    Setting(
        "NETWORKS_DIR",
        _DIRECTORY,
        "{sysconfdir}/ganeti/instance-image/networks",
        "where instances/NAME and subnets/NAME tell static addresses",
        _directory,
    ),
    Setting(
        "VARIANTS_DIR",
        _DIRECTORY,
        "{sysconfdir}/ganeti/instance-image/variants",
        "where the settings of variants are, as NAME.conf",
        _directory,
    ),
    Setting("KERNEL_ARGS", "one line", "", "arguments of the kernel, for the customisation scripts", _one_line),
    Setting(
        "EXPORT_COMPRESSION",
        "none, zlib or zstd",
        "zlib",
        "how an export is compressed",
        _choice("none", "zlib", "zstd"),
    ),
    Setting(
        "EXPORT_DIR",
        _DIRECTORY,
        "/var/tmp",  # noqa: S108 - a file without a name
        "where the import of a disk image made by ganeti-instance-image keeps it meanwhile",
        _directory,
    ),
    Setting(
        "IMPORT_FORMAT",
        "auto, qcow2, raw or tar",
        "auto",
        "what a backup is: qcow2 (our export), raw (a disk's bytes) or tar (ganeti-instance-image); auto looks",
        _choice("auto", "qcow2", "raw", "tar"),
    ),
    Setting(
        "GROW",
        _BOOLEAN,
        "no",
        "after an import onto a larger disk, grow the last partition and its file system to the end of the disk",
        _boolean,
    ),
    Setting("IMAGE_DEBUG", _BOOLEAN, "no", "show what is done in detail", _boolean),
)

# Names of ganeti-instance-image 0.7 that have no effect here.
WITHOUT_EFFECT = ("FDISK",)

# Where a Settings field is not the name in lower case: its unit is part of it.
_FIELDS = {"SWAP_SIZE": "swap_size_mib", "BOOT_SIZE": "boot_size_mib"}
_EMPTY = dict.fromkeys(("IMAGE_NAME", "IMAGE_URL", "OVERLAY", "KERNEL_ARGS"), "")
_BY_NAME = {setting.name: setting for setting in SETTINGS}


def node_architecture(machine: str) -> str:
    """Return ARCH for what os.uname().machine says: i686 is x86, amd64 is x86_64, the others keep their name."""
    return _MACHINES.get(machine.lower(), machine)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the table's settings came to. swap_size_mib is None for the instance's memory, image_name may be empty."""

    cdinstall: bool
    swap: bool
    swap_size_mib: int | None
    boot_size_mib: int
    filesystem: str
    image_name: str
    image_type: str
    image_dir: str
    image_url: str
    image_verify: bool
    image_cleanup: bool
    cache_dir: str
    arch: str
    nomount: bool
    customize_dir: str
    overlay: str
    overlays_dir: str
    networks_dir: str
    variants_dir: str
    kernel_args: str
    export_compression: str
    export_dir: str
    import_format: str
    grow: bool
    image_debug: bool

    @classmethod
    def from_layers(
        cls, layers: Sequence[Layer], *, paths: Paths | None = None, machine: str | None = None
    ) -> Settings:
        """Check every layer's values and join them, a later layer before an earlier one.

        machine is the node's os.uname().machine when None. Names that are not known or have no effect are logged.
        Raises SettingsError for the first value that makes no sense, also where a later layer replaces it.
        """
        paths = paths or Paths()
        native = node_architecture(machine or os.uname().machine)
        values: dict[str, Any] = {setting.name: _default(setting, paths, native) for setting in SETTINGS}
        for layer in layers:
            for name, text in layer.values.items():
                setting = _BY_NAME.get(name)
                if setting is None:
                    _note_unknown(layer, name)
                elif text:
                    values[name] = _checked(layer, setting, text, native)
                else:
                    values[name] = _default(setting, paths, native)
        return cls(**{_FIELDS.get(name, name.lower()): value for name, value in values.items()})


def read_settings(paths: Paths, layers: Sequence[Layer] = (), *, machine: str | None = None) -> Settings:
    """Return the settings of the settings file and of the layers over it; errors as for Settings.from_layers()."""
    return Settings.from_layers([Layer.from_file(paths.settings_file), *layers], paths=paths, machine=machine)


def _default(setting: Setting, paths: Paths, native: str) -> object:
    if setting.name == "ARCH":
        return native
    text = setting.default.format(sysconfdir=paths.sysconfdir, localstatedir=paths.localstatedir)
    return setting.check(text) if text else _EMPTY.get(setting.name)


def _checked(layer: Layer, setting: Setting, text: str, native: str) -> object:
    try:
        value = setting.check(text)
        if setting.name == "ARCH" and value not in ("x86", "x86_64", native):
            raise ValueError
    except ValueError:
        expected = setting.expected
        if setting.name == "ARCH" and native not in ("x86", "x86_64"):
            expected += f", or {native} as this node"
        message = f"{layer.place(setting.name)}: {setting.name} is {text!r}; expected {expected}"
        raise SettingsError(message) from None
    except SettingsError as error:
        raise SettingsError(f"{layer.place(setting.name)}: {setting.name} is {text!r}; {error}") from None
    return value


def _note_unknown(layer: Layer, name: str) -> None:
    if name in WITHOUT_EFFECT:
        if layer.values[name]:
            log.info("%s: %s has no effect (yet)", layer.place(name), name)
        return
    if name in layer.helpers:  # the administrator's own, for a later value
        return
    nearest = difflib.get_close_matches(name.upper(), [*_BY_NAME, *WITHOUT_EFFECT], n=1)
    offer = f"; did you mean {nearest[0]}?" if nearest else ""
    log.warning("%s: %s is no setting and is ignored%s", layer.place(name), name, offer)
