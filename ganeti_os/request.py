# SPDX-License-Identifier: MIT
"""The request of Ganeti: arguments (OS API 5) or environment (API 10, 15, 20) become one frozen Request.

It follows ganeti-os-interface(7) and the observed calls of Ganeti 3.0. Only the two parameters of parse_request() are
read.
"""

from __future__ import annotations

import getopt
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from types import MappingProxyType

from pydiskimg.errors import DiskImageError

VERBS = ("create", "import", "export", "rename", "verify")
API_VERSIONS = (20, 15, 10, 5)

_MAX_DISKS = 1024  # any number, except one made by a typing error; Ganeti stops at 16
_MAX_NICS = 1024  # Ganeti stops at 8
_OPTIONS = {  # OS API 5: option letter -> its meaning
    "create": {"i": "instance_name", "b": "blockdev_sda", "s": "blockdev_sdb"},
    "import": {"i": "instance_name", "b": "blockdev_sda", "s": "blockdev_sdb"},
    "export": {"i": "instance_name", "b": "blockdev_sda"},
    "rename": {"o": "old_name", "n": "new_name", "b": "blockdev_sda", "s": "blockdev_sdb"},
}
_CHECKS = ("parameters",)
_DOES = {
    "create": "Install the image of the settings on the instance's first disk, and make its system the instance.",
    "import": "Restore the backup on standard input on one of the instance's disks.",
    "export": "Write a backup of one of the instance's disks to standard output.",
    "rename": "Give the system on the instance's disks the new name and what Ganeti knows of its network.",
    "verify": "Check the OS parameters in the environment against the settings of this node.",
}
_HOST_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,254}")  # normalised as by Ganeti, for either case
_VARIANT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,254}")
_DIGITS = re.compile(r"[0-9]{1,15}")
_GANETI_VARIABLE = re.compile(
    r"(?:INSTANCE|DISK|NIC|OSP|EXPORT|IMPORT)_[A-Za-z0-9_]+"
    r"|OS_API_VERSION|OS_NAME|OS_VARIANT|OLD_INSTANCE_NAME|HYPERVISOR|DEBUG_LEVEL|EXP_SIZE_FD|PATH"
)


class HelpRequested(Exception):  # noqa: N818 - not an error: the text is the usage, the exit status 0
    """-h or --help was given; the text is the help."""


class UsageError(DiskImageError):
    """The arguments are wrong (exit status 2); usage is the usage message to print after the text."""

    def __init__(self, message: str, *, usage: str) -> None:
        super().__init__(message)
        self.usage = usage


class RequestError(DiskImageError):
    """The values from Ganeti are invalid, or the request is not supported."""


@dataclass(frozen=True, slots=True)
class InstanceDisk:
    """A disk of the instance; path is absolute, size_mib is Ganeti's size (None: not given)."""

    index: int
    path: str
    access: str = "rw"
    size_mib: int | None = None
    uuid: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class InstanceNic:
    """A network interface of the instance; network holds NIC_n_NETWORK_* by the names after that prefix."""

    index: int
    mac: str | None = None
    ip: str | None = None
    mode: str | None = None
    link: str | None = None
    bridge: str | None = None
    network: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One call of a verb.

    disks are in Ganeti's order. With OS API 5 disks[0] is sda and swap_path is sdb (None for export, and with the other
    versions, where settings determine swap). device is the disk (or its snapshot) for export and import, device_index
    its number. kernel_path is None when the kernel is on the instance's own disk; serial_console is a hypervisor
    parameter. environment holds Ganeti's own variables, for customisation scripts.
    """

    verb: str
    api_version: int
    instance: str
    disks: tuple[InstanceDisk, ...] = ()
    nics: tuple[InstanceNic, ...] = ()
    swap_path: str | None = None
    hypervisor: str | None = None
    uuid: str | None = None
    memory_mib: int | None = None
    kernel_path: str | None = None
    serial_console: bool = False
    reinstall: bool = False
    old_instance: str | None = None
    os_name: str | None = None
    variant: str | None = None
    parameters: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    debug_level: int = 0
    device: str | None = None
    device_index: int | None = None
    size_fd: int | None = None
    checks: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def kernel_inside(self) -> bool:
        """True if the instance boots the kernel on its own disk: Ganeti gives no kernel of the node."""
        return self.kernel_path is None


def help_text(verb: str) -> str:
    """Return the text of --help: the usage message of a verb, and its description."""
    return f"{usage(verb)}\n\n{_DOES[verb]}"


def usage(verb: str) -> str:
    """Return the usage message of a verb."""
    if verb == "verify":
        return f"usage: verify {' | '.join(_CHECKS)}     with OS API 20: OSP_* in the environment"
    options = " ".join(f"-{letter} {meaning}" for letter, meaning in _OPTIONS[verb].items())
    return (
        f"usage: {verb} {options}     with OS API 5\n"
        f"       {verb}     with OS API 10, 15 and 20: OS_API_VERSION, INSTANCE_NAME, DISK_COUNT, DISK_0_PATH, ... "
        "in the environment"
    )


def parse_request(verb: str, argv: Sequence[str], environ: Mapping[str, str]) -> Request:
    """Return the request of a verb from its arguments (without the program's name) and environment.

    Raises HelpRequested, UsageError (wrong arguments) or RequestError (invalid values).
    """
    if verb not in VERBS:
        raise ValueError(f"{verb!r} is not one of {', '.join(VERBS)}")
    if any(argument in ("-h", "--help") for argument in argv):
        raise HelpRequested(help_text(verb))
    version = _api_version(environ)
    if verb == "verify":
        return _verify_request(argv, environ, version)
    if version == 5:
        return _arguments_request(verb, argv, environ)
    if argv:
        message = f"{verb} takes no arguments with OS API {version}, which uses the environment; found {argv[0]!r}"
        raise UsageError(message, usage=usage(verb))
    return _environment_request(verb, environ, version)


def apparent_instance(verb: str, argv: Sequence[str], environ: Mapping[str, str]) -> str:
    """Return the instance of a call as far as it can be determined, for messages about an invalid call."""
    option = "-n" if verb == "rename" else "-i"
    given = [value for name, value in pairwise(argv) if name == option]
    names = given if given and verb in _OPTIONS else [environ.get("INSTANCE_NAME", "")]
    return names[0] if _HOST_NAME.fullmatch(names[0]) else ""


def _api_version(environ: Mapping[str, str]) -> int:
    text = environ.get("OS_API_VERSION") or "5"
    if text not in map(str, API_VERSIONS):
        raise RequestError(f"OS_API_VERSION is {text!r}; expected one of {', '.join(map(str, sorted(API_VERSIONS)))}")
    return int(text)


def _verify_request(argv: Sequence[str], environ: Mapping[str, str], version: int) -> Request:
    unknown = [argument for argument in argv if argument not in _CHECKS]
    if unknown or not argv:
        found = f"found {unknown[0]!r}" if unknown else "found no argument"
        raise UsageError(f"verify: {found}, expected {' or '.join(_CHECKS)}", usage=usage("verify"))
    return Request(
        verb="verify",
        api_version=version if environ.get("OS_API_VERSION") else max(API_VERSIONS),
        instance="",
        os_name=environ.get("OS_NAME") or None,
        variant=_variant(environ),
        parameters=_parameters(environ),
        debug_level=_number(environ, "DEBUG_LEVEL") or 0,
        checks=tuple(argv),
        environment=_ganeti_variables(environ),
    )


def _arguments_request(verb: str, argv: Sequence[str], environ: Mapping[str, str]) -> Request:
    values = _options(verb, argv)
    for letter in ("b", "s"):
        if letter in values:
            _check_path(f"-{letter}", values[letter])
    letter = "n" if verb == "rename" else "i"
    _check_name(f"-{letter}", values[letter])
    if "o" in values:
        _check_name("-o", values["o"])
    _check_distinct({f"-{letter}": values[letter] for letter in ("b", "s") if letter in values})
    disk = InstanceDisk(0, values["b"])
    works_on_device = verb in ("import", "export")
    return Request(
        verb=verb,
        api_version=5,
        instance=values[letter],
        disks=(disk,),
        swap_path=values.get("s"),
        memory_mib=_memory(environ),
        kernel_path=environ.get("INSTANCE_HV_kernel_path") or None,
        serial_console=_serial_console(environ),
        old_instance=values.get("o"),
        debug_level=_number(environ, "DEBUG_LEVEL") or 0,
        device=disk.path if works_on_device else None,
        device_index=0 if works_on_device else None,
        size_fd=_number(environ, "EXP_SIZE_FD") if verb == "export" else None,
        environment=_variables_from_arguments(values, environ),
    )


def _options(verb: str, argv: Sequence[str]) -> dict[str, str]:
    """Return the API 5 options of a verb by letter; all of them, each once."""
    meanings = _OPTIONS[verb]
    try:
        found, rest = getopt.getopt(list(argv), "".join(f"{letter}:" for letter in meanings))
    except getopt.GetoptError as error:
        raise UsageError(f"{verb}: {error.msg}", usage=usage(verb)) from None
    if rest:
        raise UsageError(f"{verb}: found the argument {rest[0]!r}, expected only options", usage=usage(verb))
    values: dict[str, str] = {}
    for option, value in found:
        if option[1:] in values:
            raise UsageError(f"{verb}: the option {option} is given twice", usage=usage(verb))
        values[option[1:]] = _from_here(value) if value and option in ("-b", "-s") else value
    missing = [f"-{letter} {meaning}" for letter, meaning in meanings.items() if letter not in values]
    if missing:
        found_nothing = "" if argv else "; for a call by environment OS_API_VERSION must be set"
        raise UsageError(f"{verb}: missing {', '.join(missing)}{found_nothing}", usage=usage(verb))
    return values


def _from_here(path: str) -> str:
    """Make a relative path absolute: only people give one, and scripts run in another directory."""
    try:
        return os.path.abspath(path)
    except OSError as error:
        raise RequestError(f"{path!r} is a relative path, and the current directory is gone") from error


def _variables_from_arguments(values: Mapping[str, str], environ: Mapping[str, str]) -> Mapping[str, str]:
    """Give scripts under API 5 the variables of the later versions."""
    variables = dict(_ganeti_variables(environ))
    variables |= {"OS_API_VERSION": "5", "INSTANCE_NAME": values.get("i") or values["n"], "DISK_0_PATH": values["b"]}
    if "s" in values:
        variables["DISK_1_PATH"] = values["s"]
    if "o" in values:
        variables["OLD_INSTANCE_NAME"] = values["o"]
    variables["DISK_COUNT"] = "2" if "s" in values else "1"
    return MappingProxyType(variables)


def _environment_request(verb: str, environ: Mapping[str, str], version: int) -> Request:
    instance = environ.get("INSTANCE_NAME", "")
    _check_name("INSTANCE_NAME", instance)
    disks = _disks(verb, environ)
    device, index = _device(verb, environ)
    return Request(
        verb=verb,
        api_version=version,
        instance=instance,
        disks=disks,
        nics=_nics(environ),
        hypervisor=environ.get("HYPERVISOR") or None,
        uuid=environ.get("INSTANCE_UUID") or None,
        memory_mib=_memory(environ),
        kernel_path=environ.get("INSTANCE_HV_kernel_path") or None,
        serial_console=_serial_console(environ),
        reinstall=_flag(environ, "INSTANCE_REINSTALL"),
        old_instance=_old_instance(environ) if verb == "rename" else None,
        os_name=environ.get("OS_NAME") or environ.get("INSTANCE_OS") or None,
        variant=_variant(environ),
        parameters=_parameters(environ),
        debug_level=_number(environ, "DEBUG_LEVEL") or 0,
        device=device,
        device_index=index,
        size_fd=_number(environ, "EXP_SIZE_FD") if verb == "export" else None,
        environment=_ganeti_variables(environ),
    )


def _disks(verb: str, environ: Mapping[str, str]) -> tuple[InstanceDisk, ...]:
    count = _count(environ, "DISK_COUNT", _MAX_DISKS, required=True)
    if not count and verb != "rename":  # a diskless instance can be renamed
        raise RequestError(f"DISK_COUNT is 0; {verb} needs at least one disk")
    disks = tuple(_disk(environ, index) for index in range(count))
    _check_distinct({f"DISK_{disk.index}_PATH": disk.path for disk in disks})
    return disks


def _disk(environ: Mapping[str, str], index: int) -> InstanceDisk:
    prefix = f"DISK_{index}_"
    path = environ.get(prefix + "PATH", "")
    if not path:
        uri = environ.get(prefix + "URI")
        if uri:
            raise RequestError(
                f"disk {index} is reachable only by {prefix}URI ({uri}), and {prefix}PATH is not set; give the disk "
                "template kernel-space access, so that the node has a block device for it"
            )
        raise RequestError(f"{prefix}PATH is not set; expected the absolute path of disk {index}")
    _check_path(prefix + "PATH", path)
    access = environ.get(prefix + "ACCESS") or "rw"
    if access not in ("rw", "ro"):
        raise RequestError(f"{prefix}ACCESS is {access!r}; expected rw or ro")
    return InstanceDisk(
        index,
        path,
        access=access,
        size_mib=_number(environ, prefix + "SIZE"),
        uuid=environ.get(prefix + "UUID") or None,
        name=environ.get(prefix + "NAME") or None,
    )


def _nics(environ: Mapping[str, str]) -> tuple[InstanceNic, ...]:
    count = _count(environ, "NIC_COUNT", _MAX_NICS, required=False)
    return tuple(_nic(environ, index) for index in range(count))


def _nic(environ: Mapping[str, str], index: int) -> InstanceNic:
    prefix = f"NIC_{index}_"
    network = f"{prefix}NETWORK_"
    return InstanceNic(
        index,
        mac=environ.get(prefix + "MAC") or None,
        ip=environ.get(prefix + "IP") or None,
        mode=environ.get(prefix + "MODE") or None,
        link=environ.get(prefix + "LINK") or None,
        bridge=environ.get(prefix + "BRIDGE") or None,
        network=MappingProxyType({k.removeprefix(network): v for k, v in environ.items() if k.startswith(network)}),
    )


def _device(verb: str, environ: Mapping[str, str]) -> tuple[str | None, int | None]:
    """Return the disk of export and import: with snapshots its path is not one of the instance's own."""
    if verb not in ("import", "export"):
        return None, None
    prefix = verb.upper()
    name = f"{prefix}_DEVICE" if environ.get(f"{prefix}_DEVICE") else f"{prefix}_DISK_PATH"
    device = environ.get(name, "")
    if not device:
        raise RequestError(f"{prefix}_DEVICE is not set; expected the absolute path of the disk to {verb}")
    _check_path(name, device)
    return device, _number(environ, f"{prefix}_INDEX")


def _old_instance(environ: Mapping[str, str]) -> str:
    name = environ.get("OLD_INSTANCE_NAME", "")
    _check_name("OLD_INSTANCE_NAME", name)
    return name


def _memory(environ: Mapping[str, str]) -> int | None:
    """Return the instance's memory in MiB; INSTANCE_BE_memory is its name before Ganeti 2.6."""
    name = "INSTANCE_BE_maxmem" if environ.get("INSTANCE_BE_maxmem") else "INSTANCE_BE_memory"
    memory = _number(environ, name)
    if memory == 0:
        raise RequestError(f"{name} is 0; expected the instance's memory in MiB")
    return memory


def _variant(environ: Mapping[str, str]) -> str | None:
    variant = environ.get("OS_VARIANT") or None
    if variant is not None and not _VARIANT.fullmatch(variant):
        raise RequestError(f"OS_VARIANT is {variant!r}; expected letters, digits and any of . _ + - after the first")
    return variant


def _parameters(environ: Mapping[str, str]) -> Mapping[str, str]:
    return MappingProxyType({k.removeprefix("OSP_"): v for k, v in environ.items() if k.startswith("OSP_")})


def _ganeti_variables(environ: Mapping[str, str]) -> Mapping[str, str]:
    """Remove variables that export and import inherit from the node daemon."""
    return MappingProxyType({k: v for k, v in environ.items() if _GANETI_VARIABLE.fullmatch(k)})


def _count(environ: Mapping[str, str], name: str, limit: int, *, required: bool) -> int:
    count = _number(environ, name)
    if count is None:
        if required:
            raise RequestError(f"{name} is not set; expected a number from 0 to {limit}")
        return 0
    if count > limit:
        raise RequestError(f"{name} is {count}; expected a number from 0 to {limit}")
    return count


def _number(environ: Mapping[str, str], name: str) -> int | None:
    text = environ.get(name, "")
    if not text:
        return None
    if not _DIGITS.fullmatch(text):
        raise RequestError(f"{name} is {text!r}; expected a whole number, 0 or larger")
    return int(text)


def _flag(environ: Mapping[str, str], name: str) -> bool:
    text = environ.get(name, "")
    if text not in ("", "0", "1"):
        raise RequestError(f"{name} is {text!r}; expected 1, 0 or nothing")
    return text == "1"


def _serial_console(environ: Mapping[str, str]) -> bool:
    """True if the instance has a serial console: a hypervisor parameter, which Ganeti writes in Python's form."""
    return environ.get("INSTANCE_HV_serial_console", "").lower() in ("true", "1", "yes")


def _check_name(what: str, name: str) -> None:
    if not name:
        raise RequestError(f"{what} is empty or not set; expected the instance's name")
    if not _HOST_NAME.fullmatch(name) or ".." in name:
        raise RequestError(
            f"{what} is {name!r}, not an instance name; expected a host name of letters, digits, '.', '_' and '-'"
        )


def _check_path(what: str, path: str) -> None:
    if not path.startswith("/") or not path.isprintable() or path.endswith("/"):
        raise RequestError(f"{what} is {path!r}; expected the absolute path of a block device or file")


def _check_distinct(paths: Mapping[str, str]) -> None:
    seen: dict[str, str] = {}
    for what, path in paths.items():
        if path in seen:
            raise RequestError(
                f"{what} is {path!r}, which {seen[path]} already names; each disk must be a different one"
            )
        seen[path] = what
