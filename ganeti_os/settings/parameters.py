# SPDX-License-Identifier: MIT
"""OS parameters: settings that a user chose for one instance.

That user may have access to Ganeti's remote API only and not to the node, so only some settings can be chosen this way
(docs/adr/0043-what-an-os-parameter-may-choose.md).
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

from ganeti_os.settings.kinds import shown
from ganeti_os.settings.table import BY_NAME, NO_NAMES, SETTINGS, Setting, checked

PUBLISHED = tuple(setting for setting in SETTINGS if setting.per_instance)


@dataclass(frozen=True, slots=True)
class Allowed:
    """The parameters that OS_PARAMETERS in the settings file allows, and the place of that line for messages."""

    names: tuple[str, ...]
    location: str


def read_parameters(
    parameters: Mapping[str, str], *, native: str, allowed: Allowed | None = None
) -> tuple[dict[str, str], list[str]]:
    """Return the settings of the acceptable parameters, and a sentence about each of the others.

    The keys of parameters are names without OSP_, in upper case as Ganeti passes them; native is the node's ARCH.
    Without allowed, each of PUBLISHED is acceptable.
    """
    values = {}
    wrong = []
    for name, text in sorted(parameters.items()):
        problem = _problem(name, text, native, allowed)
        if problem:
            wrong.append(f"OS parameter {problem}")
        else:
            values[name] = text
    return values, wrong


def parameters_list() -> str:
    """Return the contents of parameters.list, which tells Ganeti the parameters: name and meaning, one per line."""
    return "".join(f"{setting.parameter} {setting.kind.expected}: {setting.meaning}\n" for setting in PUBLISHED)


def _problem(name: str, text: str, native: str, allowed: Allowed | None) -> str:
    setting = BY_NAME.get(name)
    if setting is None and name.upper() in BY_NAME:
        return f"{shown(name)} is not in upper case; Ganeti passes the parameter {name.lower()} as OSP_{name.upper()}"
    if setting is None:
        known = [setting.parameter for setting in PUBLISHED]
        nearest = difflib.get_close_matches(name.lower(), known, n=1)
        offer = f"did you mean {nearest[0]}?" if nearest else f"there are: {', '.join(known)}"
        return f"{shown(name.lower())} does not exist; {offer}"
    refusal = _refusal(setting, allowed)
    if refusal:
        return f"{setting.parameter} is refused: {refusal}"
    if not text:  # the default
        return ""
    try:
        checked(setting, text, native=native)
    except ValueError as error:
        return f"{setting.parameter} {error}"
    return ""


def _refusal(setting: Setting, allowed: Allowed | None) -> str:
    """Return why this setting may not be chosen for an instance, with any value."""
    if not setting.per_instance:
        files = "the settings file" if setting.node_only else "the settings file or in a variant"
        return (
            "only the node's administrator may decide what runs as root on a node and which of its directories are "
            f"used, by {setting.name} in {files}"
        )
    if allowed is None or setting.parameter in allowed.names:
        return ""
    return (
        f"{allowed.location}: OS_PARAMETERS has {', '.join(allowed.names) or NO_NAMES}; add it there, or remove it "
        f"from the instance with: gnt-instance modify -O {setting.parameter}=default INSTANCE"
    )
