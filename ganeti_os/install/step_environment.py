# SPDX-License-Identifier: MIT
"""The environment of guest-step in addition to that of every customisation script: where the settings are."""

from __future__ import annotations

from collections.abc import Mapping

from ganeti_os.settings.settings import Paths, Settings

_SYSCONFDIR, _LOCALSTATEDIR = "GUEST_STEP_SYSCONFDIR", "GUEST_STEP_LOCALSTATEDIR"


def steps_environment(settings: Settings) -> dict[str, str]:
    """Return the variables by which a step finds the settings of its verb."""
    return {_SYSCONFDIR: settings.paths.sysconfdir, _LOCALSTATEDIR: settings.paths.localstatedir}


def paths_of(environment: Mapping[str, str]) -> Paths:
    """Return the directories in the variables of steps_environment()."""
    default = Paths()
    return Paths(
        environment.get(_SYSCONFDIR) or default.sysconfdir, environment.get(_LOCALSTATEDIR) or default.localstatedir
    )
