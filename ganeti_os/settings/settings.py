# SPDX-License-Identifier: MIT
"""The administrator's settings: defaults < settings file < variant < OS parameters become one frozen Settings."""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from types import MappingProxyType
from typing import Any

from ganeti_os.settings.image_names import SPELLINGS, type_by_ending
from ganeti_os.settings.parameters import Allowed, read_parameters
from ganeti_os.settings.shellfile import SettingsError, read_shell_file
from ganeti_os.settings.table import BY_NAME, NO_NAMES, SETTINGS, WITHOUT_EFFECT, Setting, checked
from ganeti_os.settings.variants import DEFAULT_VARIANT, missing_variant, variant_file
from pydiskimg.errors import DiskImageError

log = logging.getLogger(__name__)

_MACHINES = {name: names[0] for names in SPELLINGS for name in names}


@dataclass(frozen=True, slots=True)
class Paths:
    """The directories that the project was configured with; both absolute."""

    sysconfdir: str = "/etc"
    localstatedir: str = "/var"

    @property
    def settings_file(self) -> str:
        return f"{self.sysconfdir}/default/ganeti-instance-image"

    def default(self, setting: Setting) -> str:
        """Return a setting's default in the form of the file; empty if it is a rule."""
        return setting.default.format(sysconfdir=self.sysconfdir, localstatedir=self.localstatedir)


@dataclass(frozen=True, slots=True)
class Layer:
    """Values from one source; lines gives the line of each if the source is a file.

    An empty value means the default.
    """

    name: str
    values: Mapping[str, str]
    lines: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    helpers: frozenset[str] = frozenset()

    @classmethod
    def from_file(cls, path: str) -> Layer:
        """Read a settings file. helpers are the names that other values were built from.

        Raises SettingsError, StorageError or FileNotFoundError.
        """
        found = read_shell_file(path)
        return cls(
            path,
            MappingProxyType({name: item.value for name, item in found.items()}),
            MappingProxyType({name: item.line for name, item in found.items()}),
            frozenset(name for name, item in found.items() if item.used),
        )

    def location(self, name: str) -> str:
        """Return the location of a value for messages: path:line: or the layer's name."""
        return f"{self.name}:{self.lines[name]}" if name in self.lines else self.name


def node_architecture(machine: str) -> str:
    """Return ARCH for os.uname().machine: i686 becomes x86, amd64 becomes x86_64, unknown ones stay."""
    return _MACHINES.get(machine.lower(), machine)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The resulting values of the table's settings.

    swap_size_mib is None for the instance's memory, os_parameters None for all existing ones; image_name may be empty.
    paths are the directories of the files.
    """

    cdinstall: bool
    swap: bool
    swap_size_mib: int | None
    boot_size_mib: int
    filesystem: str
    partition_table: str
    bootloader: str
    image_name: str
    image_type: str
    image_dir: str
    image_url: str
    image_proxy: str
    image_verify: bool
    image_keyring: str
    image_cleanup: bool
    cache_dir: str
    arch: str
    nomount: bool
    guest_mount: bool
    identity: bool
    import_identity: str
    root_password_hash: str = field(repr=False)
    authorized_keys: str
    authorized_keys_file: str
    customize_dir: str
    overlay: str
    overlays_dir: str
    networks_dir: str
    dns_servers: tuple[IPv4Address | IPv6Address, ...]
    dns_search: tuple[str, ...]
    cloud_user_data: str
    variants_dir: str
    kernel_args: str
    export_compression: str
    export_dir: str
    import_format: str
    grow: bool
    wipe: str
    os_parameters: tuple[str, ...] | None
    image_debug: bool
    paths: Paths = field(default=Paths(), compare=False)

    @classmethod
    def from_layers(
        cls, layers: Sequence[Layer], *, paths: Paths | None = None, machine: str | None = None
    ) -> Settings:
        """Check every layer's values and merge them; later layers take precedence.

        machine is by default the node's os.uname().machine. Names that are not known or have no effect are logged.
        Raises SettingsError for the first invalid value, even if a later layer replaces it.
        """
        paths = paths or Paths()
        native = node_architecture(machine or os.uname().machine)
        values: dict[str, Any] = {setting.name: _default(setting, paths, native) for setting in SETTINGS}
        for layer in layers:
            for name, text in layer.values.items():
                setting = BY_NAME.get(name)
                if setting is None:
                    _note_unknown(layer, name)
                elif text:
                    values[name] = _checked(layer, setting, native)
                else:
                    values[name] = _default(setting, paths, native)
        values["IMAGE_TYPE"] = values["IMAGE_TYPE"] or type_by_ending(values["IMAGE_NAME"]) or "qemu"
        return cls(**{BY_NAME[name].field: value for name, value in values.items()}, paths=paths)

    @property
    def identity_is_off(self) -> str:
        """The setting that keeps everything inside the guest as in the image; empty if none does."""
        switches = {
            "NOMOUNT=yes": self.nomount,
            "CDINSTALL=yes": self.cdinstall,
            "IDENTITY=no": not self.identity,
        }
        return next((name for name, is_set in switches.items() if is_set), "")

    def texts(self) -> dict[str, str]:
        """Return every setting by its name, in the form of the file; for a secret one only that it is set."""
        texts = {setting.name: _text(getattr(self, setting.field)) for setting in SETTINGS}
        texts |= {"OS_PARAMETERS": NO_NAMES} if self.os_parameters == () else {}
        return {name: "(not shown)" if text and BY_NAME[name].secret else text for name, text in texts.items()}

    def for_scripts(self) -> dict[str, str]:
        """Return the settings for customisation scripts, by name and in the form of the file."""
        return {name: text for name, text in self.texts().items() if BY_NAME[name].for_scripts}


def read_settings(
    paths: Paths,
    *,
    variant: str | None = None,
    parameters: Mapping[str, str] = MappingProxyType({}),
    machine: str | None = None,
) -> Settings:
    """Return the settings of an instance with this variant of the OS and these OS parameters.

    parameters are by name without OSP_, as in Request. Raises SettingsError for invalid values, StorageError for a file
    that cannot be read. If several parameters are wrong, each is logged first.
    """
    native = node_architecture(machine or os.uname().machine)
    values, wrong = read_parameters(parameters, native=native)
    try:
        layers = _files(paths, variant, native)
        values, wrong = read_parameters(parameters, native=native, allowed=_allowed(layers, paths, native))
        layers.append(Layer("the OS parameters", values))
        settings = Settings.from_layers(layers, paths=paths, machine=machine)
    except DiskImageError:
        _log_each(wrong)
        raise
    if len(wrong) == 1:
        raise SettingsError(wrong[0])
    if wrong:
        _log_each(wrong)
        raise SettingsError(f"{len(wrong)} of {len(parameters)} OS parameters are wrong; see above")
    return settings


def check_contradictions(settings: Settings) -> None:
    """Raise SettingsError for settings that contradict each other."""
    if settings.image_keyring and not settings.image_verify and settings.image_url:
        raise SettingsError(
            "IMAGE_VERIFY=no contradicts IMAGE_KEYRING: a signature is of the checksum that would not be checked; "
            "expected IMAGE_VERIFY=yes, or no IMAGE_KEYRING"
        )
    if settings.nomount and settings.image_type in ("tarball", "dump") and not settings.cdinstall:
        raise SettingsError(
            f"NOMOUNT=yes contradicts IMAGE_TYPE={settings.image_type}: a {settings.image_type} is unpacked into a "
            "mounted disk; expected qemu, raw or qcow2, or NOMOUNT=no"
        )


def warn_of_missing_directories(settings: Settings) -> None:
    """Warn of directories that settings name and that do not exist; the default ones need not exist."""
    for name, effect in (("CUSTOMIZE_DIR", "no customisation script runs"), ("NETWORKS_DIR", "it gives no addresses")):
        path = getattr(settings, BY_NAME[name].field)
        if path != settings.paths.default(BY_NAME[name]) and not os.path.exists(path):
            log.warning("%s: the directory in %s does not exist on this node; %s", path, name, effect)


def _files(paths: Paths, variant: str | None, native: str) -> list[Layer]:
    """Return the layers of the settings file and of the variant's file, if these exist."""
    layers = []
    directory = paths.default(BY_NAME["VARIANTS_DIR"])
    try:
        layers.append(Layer.from_file(paths.settings_file))
    except FileNotFoundError:
        log.debug("%s does not exist; every setting has its default", paths.settings_file)
    else:
        if layers[0].values.get("VARIANTS_DIR"):
            directory = str(_checked(layers[0], BY_NAME["VARIANTS_DIR"], native))
    if variant is None:
        return layers
    path = variant_file(directory, variant)
    try:
        layers.append(Layer.from_file(path))
    except FileNotFoundError:
        if variant != DEFAULT_VARIANT:
            raise missing_variant(path, variant) from None
    else:
        _check_variant(layers[-1], paths)
    return layers


def _check_variant(layer: Layer, paths: Paths) -> None:
    """Refuse a list of OS parameters in a variant, which the user who creates an instance chooses."""
    if "OS_PARAMETERS" in layer.values:
        where = layer.location("OS_PARAMETERS")
        raise SettingsError(
            f"{where}: OS_PARAMETERS is not allowed in a variant, which the person who creates an instance chooses; "
            "set "
            f"it in {paths.settings_file}"
        )
    if layer.values.get("VARIANTS_DIR"):
        log.warning("%s: VARIANTS_DIR has an effect only in the settings file", layer.location("VARIANTS_DIR"))


def _allowed(layers: Sequence[Layer], paths: Paths, native: str) -> Allowed | None:
    """Return OS_PARAMETERS of the settings file; None for all."""
    setting = BY_NAME["OS_PARAMETERS"]
    for layer in layers:
        if layer.name == paths.settings_file and layer.values.get(setting.name):
            names = _checked(layer, setting, native)
            assert isinstance(names, tuple)
            return Allowed(names, layer.location(setting.name))
    return None


def _log_each(problems: Sequence[str]) -> None:
    for problem in problems:
        log.error("%s", problem)


def _default(setting: Setting, paths: Paths, native: str) -> object:
    text = native if setting.name == "ARCH" else paths.default(setting)
    return checked(setting, text, native=native) if text else setting.kind.empty


def _checked(layer: Layer, setting: Setting, native: str) -> object:
    try:
        return checked(setting, layer.values[setting.name], native=native)
    except ValueError as error:
        raise SettingsError(f"{layer.location(setting.name)}: {setting.name} {error}") from None


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return "" if value is None else str(value)


def _note_unknown(layer: Layer, name: str) -> None:
    if name in WITHOUT_EFFECT:
        if layer.values[name]:
            log.info("%s: %s has no effect: %s", layer.location(name), name, WITHOUT_EFFECT[name])
        return
    if name in layer.helpers:  # the administrator's own name, for a later value
        return
    nearest = difflib.get_close_matches(name.upper(), BY_NAME, n=1)
    offer = f"; did you mean {nearest[0]}?" if nearest else ""
    log.warning("%s: %s is not a setting and is ignored%s", layer.location(name), name, offer)
