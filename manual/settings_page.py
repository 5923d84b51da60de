# SPDX-License-Identifier: MIT
"""ganeti-os-image(7): the settings of the OS definition, from the table that they are read and checked by."""

from __future__ import annotations

from ganeti_os.settings.settings import Paths
from ganeti_os.settings.table import SETTINGS, Setting
from manual.roff import bold, entry, head, italic, prose, references, section

_DESCRIPTION = """\
The OS definition installs instances of Ganeti from disk images, tarballs and dumps, renames them, and backs them up.
Its settings are assignments in the syntax of a shell, NAME=value, one a line; the files are read and never executed.
The later of these wins: the default, the settings file, the file of the variant, the OS parameters of the instance
(gnt-instance add -O name=value). An empty value stands for the default. yes, 1 and true mean yes; no, 0 and false mean
no. The files are read on the node where a verb runs, so they belong on every node.
"""


def settings_page(name: str, paths: Paths) -> str:
    """Return the page of the OS definition of that name, as it is configured."""
    page = f"ganeti-os-{name}"
    files = {
        paths.settings_file: "the settings",
        f"{paths.sysconfdir}/ganeti/instance-image/variants/NAME.conf": f"settings of instances of {name}+NAME",
        f"{paths.sysconfdir}/ganeti/instance-image/variants.list": "the variants that gnt-os list offers, one a line",
    }
    return (
        head(page, 7)
        + section("name", f"{page.replace('-', chr(92) + '-')} \\- settings of the Ganeti OS definition {name}\n")
        + section("description", prose(_DESCRIPTION))
        + section("settings", "".join(_entry(setting, paths) for setting in SETTINGS))
        + section("files", "".join(entry(italic(path), text) for path, text in files.items()))
        + section(
            "see also", references([("gnt-os", 8), ("gnt-instance", 8), ("ganeti-os-interface", 7), ("pydiskimg", 1)])
        )
    )


def _entry(setting: Setting, paths: Paths) -> str:
    default = paths.default(setting)
    facts = [f"Values: {setting.kind.expected}.", f"Default: {default}." if default else "Empty by default."]
    if setting.per_instance:
        facts.append(f"OS parameter: {setting.parameter}.")
    return entry(bold(setting.name), f"{setting.meaning[0].upper()}{setting.meaning[1:]}. {' '.join(facts)}")
