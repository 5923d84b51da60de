# SPDX-License-Identifier: MIT
"""OS parameters: settings that somebody chose for one instance.

That somebody may be a user of Ganeti's remote API and nobody on the node, so only some settings can be chosen this way
(docs/adr/0043-what-an-os-parameter-may-choose.md).
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from ganeti_os.setting_table import BY_NAME, SETTINGS, checked, shown

PUBLISHED = tuple(setting for setting in SETTINGS if setting.per_instance)


def read_parameters(parameters: Mapping[str, str], *, native: str) -> tuple[dict[str, str], list[str]]:
    """Return the settings of the acceptable parameters, and a sentence about each of the others.

    parameters are by name without OSP_, in upper case as Ganeti passes them; native is the node's ARCH.
    """
    values = {}
    wrong = []
    for name, text in sorted(parameters.items()):
        problem = _problem(name, text, native)
        if problem:
            wrong.append(f"OS parameter {problem}")
        else:
            values[name] = text
    return values, wrong


def parameters_list() -> str:
    """Return the contents of parameters.list, by which Ganeti knows what there is: name and meaning, one a line."""
    return "".join(f"{setting.parameter} {setting.kind.expected}: {setting.meaning}\n" for setting in PUBLISHED)


def _problem(name: str, text: str, native: str) -> str:
    setting = BY_NAME.get(name)
    if setting is None:
        known = [setting.parameter for setting in PUBLISHED]
        nearest = difflib.get_close_matches(name.lower(), known, n=1)
        offer = f"did you mean {nearest[0]}?" if nearest else f"there are: {', '.join(known)}"
        return f"{shown(name.lower())} does not exist; {offer}"
    if not setting.per_instance:
        return (
            f"{setting.parameter} is refused: what runs as root on a node, and which of its directories are used, is "
            f"for the node's administrator to say, by {name} in the settings file or in a variant"
        )
    if not text:  # the default
        return ""
    try:
        checked(setting, text, native=native)
    except ValueError as error:
        return f"{setting.parameter} {error}"
    return ""
