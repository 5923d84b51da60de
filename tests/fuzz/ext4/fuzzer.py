# SPDX-License-Identifier: MIT
"""The cases of ext file systems."""

from __future__ import annotations

import random

from tests.fuzz.ext4.mutations import find_places, mutate
from tests.fuzz.ext4.targets import outcome
from tests.fuzz.worker import Fuzzer

_TURNS = (
    *("read", "check", "used", "tar"),
    *("change", "change", "change", "put", "put", "grow", "grow", "shrink", "shrink", "shrink"),
)


class ExtFuzzer(Fuzzer):
    """Changes the metadata of a file system, and puts it through a target."""

    suffix = ".ext"

    def find_places(self) -> None:
        self.ext_places = {name: find_places(image) for name, image in self.seeds.items()}

    def outcome(self, target: str, image: bytes, number: int) -> str:
        return outcome(target, image, number)

    def case(self, number: int) -> tuple[str, str, bytes]:
        rng = random.Random(number)
        target, name = rng.choice(_TURNS), rng.choice([*self.seeds])
        return name, target, mutate(self.seeds[name], self.ext_places[name], rng)
