# SPDX-License-Identifier: MIT
"""netplan's YAML: several files whose interfaces are joined by their names."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import suppress

from ganeti_os.guest.facts.addresses import DEFAULT_ROUTES, Interface
from ganeti_os.guest.network.files import NetworkFiles, has_wildcard
from ganeti_os.guest.syntax.yaml_nodes import Mapping, Node, Scalar, Sequence, YamlError, yaml_document

log = logging.getLogger(__name__)

# A file hides one of its name in a later directory; they are read in the order of their names.
_DIRECTORIES = ("/run/netplan", "/etc/netplan", "/usr/lib/netplan", "/lib/netplan")
_KINDS = (
    "ethernets",
    "bonds",
    "bridges",
    "vlans",
    "wifis",
    "modems",
    "tunnels",
    "vrfs",
    "dummy-devices",
    "virtual-ethernets",
    "nm-devices",
)
_TOTAL = 256 << 10  # bytes of all files
_MOST = 2000  # values; a list that many interfaces refer to by an alias counts each time


def netplan_paths(files: NetworkFiles) -> list[str]:
    """Return the files that netplan joins, in its order."""
    return files.search_path(_DIRECTORIES, "*.yaml")


def netplan_interfaces(files: NetworkFiles) -> Iterator[Interface]:
    """Yield each interface with the values of all files. A file that cannot be interpreted is logged, and stays."""
    interfaces: dict[str, Interface] = {}
    rest, values = _TOTAL, 0
    for path in netplan_paths(files):
        data = files.read(path)
        rest -= len(data)
        try:
            if rest < 0:
                raise YamlError(f"with those before it, it is larger than {_TOTAL} bytes")
            document = yaml_document(data)
        except ModuleNotFoundError:
            if b"address" in data:
                log.warning(
                    "%s: netplan's files are not changed: PyYAML is missing on the node; install python3-yaml", path
                )
            files.kept.update(netplan_paths(files))
            break
        except YamlError as error:
            log.warning("%s:%d: %s; the file is not changed", path, error.line, error)
            files.kept.add(path)
            continue
        for name, settings in _definitions(document):
            _add(interfaces.setdefault(name, Interface(name)), path, settings)
            values += len(interfaces[name].addresses) + len(interfaces[name].others)
            if values > _MOST:
                break
    yield from interfaces.values()


def _definitions(document: Node | None) -> Iterator[tuple[str, Mapping]]:
    network = document.get("network") if isinstance(document, Mapping) else None
    for kind, definitions in network.items() if isinstance(network, Mapping) else ():
        if kind.value in _KINDS and isinstance(definitions, Mapping):
            for name, settings in definitions.items():
                if isinstance(settings, Mapping):
                    yield name.value, settings


def _add(interface: Interface, path: str, settings: Mapping) -> None:
    for key, value in settings.items():
        if len(interface.addresses) + len(interface.others) > _MOST:
            return
        match key.value, value:
            case "addresses", Sequence():
                _add_all(interface, path, "address", (_address(item) for item in value.items))
            case (("gateway4" | "gateway6"), Scalar()):
                _add_all(interface, path, "gateway", [value])
            case "routes", Sequence():
                _add_all(interface, path, "gateway", (_default_gateway(item) for item in value.items))
            case "match", Mapping():
                _add_all(interface, path, "mac", [value.get("macaddress")])
                name = value.get("name")
                if isinstance(name, Scalar) and name.value and not has_wildcard(name.value):
                    interface.name = name.value
    new_name = settings.get("set-name")
    if isinstance(new_name, Scalar) and new_name.value:
        interface.name = new_name.value


def _add_all(interface: Interface, path: str, kind: str, nodes: Iterable[Node | None]) -> None:
    for node in nodes:
        if isinstance(node, Scalar) and node.span is not None:
            interface.add(path, kind, node.span)


def _address(item: Node) -> Node | None:
    """Return an item of addresses; one with options of its own is a mapping of one key."""
    return item.pairs[0][0] if isinstance(item, Mapping) and len(item.pairs) == 1 else item


def _default_gateway(item: Node) -> Node | None:
    to = item.get("to") if isinstance(item, Mapping) else None
    if isinstance(item, Mapping) and isinstance(to, Scalar) and to.value.encode() in DEFAULT_ROUTES:
        return item.get("via")
    return None


def installer_interfaces(files: NetworkFiles) -> Iterator[Interface]:
    """Yield the network configuration that Ubuntu's installer gave cloud-init, in netplan's form: netplan's files
    repeat it.

    It decides nothing, because it may be older than those. A file that is not valid YAML is read by words elsewhere.
    """
    for path in files.files("/etc/cloud/cloud.cfg.d", "*.cfg"):
        data = files.read(path) if files.is_file(path) else b""
        with suppress(YamlError, ModuleNotFoundError):
            for name, settings in _definitions(yaml_document(data)) if b"ethernets" in data else ():
                interface = Interface(name, names_only=True)
                _add(interface, path, settings)
                yield interface
