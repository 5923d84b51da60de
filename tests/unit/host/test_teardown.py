# SPDX-License-Identifier: MIT
"""How long the teardown waits."""

from __future__ import annotations

from pydiskimg.host.teardown import Patience


def test_what_was_waited_for_in_vain_is_not_waited_for_again() -> None:
    patience = Patience()
    assert patience.seconds(10.0) == 10.0
    patience.lose()
    assert patience.seconds(10.0) < 1
    assert patience.seconds(0.1) == 0.1
    patience.renew()
    assert patience.seconds(10.0) == 10.0
