# SPDX-License-Identifier: MIT
"""The cache of tables and clusters: what it forgets, and when."""

from __future__ import annotations

from pydiskimg.images.qcow2.cache import Cache


def filled(capacity: int, *keys: int, size: int = 10) -> Cache[str]:
    cache: Cache[str] = Cache(capacity)
    for key in keys:
        cache.put(key, f"value {key}", size)
    return cache


def kept(cache: Cache[str], keys: range) -> list[int]:
    return [key for key in keys if cache.get(key) is not None]


def test_the_least_recently_used_is_forgotten() -> None:
    cache = filled(30, 1, 2, 3)
    assert cache.get(1) == "value 1"
    cache.put(4, "value 4", 10)
    assert kept(cache, range(6)) == [1, 3, 4]


def test_one_large_value_pushes_out_several() -> None:
    cache = filled(30, 1, 2, 3)
    cache.put(4, "large", 25)
    assert kept(cache, range(6)) == [4]


def test_room_is_given_back() -> None:
    cache = filled(30, *range(100))
    assert kept(cache, range(100)) == [97, 98, 99]


def test_a_value_put_again_counts_once() -> None:
    cache = filled(30, 1, 2, 2, 2, 2, 2)
    assert kept(cache, range(4)) == [1, 2]
    cache.put(3, "value 3", 10)
    assert kept(cache, range(4)) == [1, 2, 3]


def test_the_newest_stays_however_large() -> None:
    cache = filled(30, 1, 2)
    cache.put(3, "huge", 1000)
    assert kept(cache, range(4)) == [3]
