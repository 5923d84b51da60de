# SPDX-License-Identifier: MIT
"""Sequences of commands by pydiskimg and by qemu-img make the same images; thousands by: python -m tests.fuzz.twins"""

from __future__ import annotations

import tempfile
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.twins import run_sequence

pytestmark = pytest.mark.oracle


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.randoms(use_true_random=False))
def test_any_sequence(rng: Random) -> None:
    with tempfile.TemporaryDirectory() as directory:
        run_sequence(Path(directory), rng, steps=8)
