# SPDX-License-Identifier: MIT
"""The disks and file systems that are named as the virt-* tools name them."""

from __future__ import annotations

import pytest

from pydiskimg.cli.file_facts import short_size
from pydiskimg.cli.virt_words import in_our_words

SPELLED = {
    "df -a test1.img": "df test1.img",
    "df -h --format=raw -a a --add=b --add c": "df a b c -h --format=raw",
    "filesystems --long --uuid -a disk.img": "filesystems disk.img --long --uuid",
    "diff -A new.img -a old.img --times": "diff old.img new.img --times",
    "ls -a disk.img -m /dev/sda2 -lR /etc": "ls disk.img --partition 2 -lR /etc",
    "cat --add disk.img --mount=/dev/sda12:/ /etc/fstab": "cat disk.img --partition 12 /etc/fstab",
    "cat -a disk.img -m /dev/sda /etc/fstab": "cat disk.img --partition 0 /etc/fstab",
    "ls -a disk.img -m /dev/vda2:/:ro /etc": "ls disk.img --partition 2 /etc",
    "copy-in -a disk.img -m /dev/sda3 skel /home": "copy-in disk.img --partition 3 skel /home",
    "tar-in -a disk.img data.tar /destination": "tar-in disk.img data.tar /destination",
}
LEFT = [
    "ls disk.img /etc",
    "ls disk.img -m /dev/sdb1",
    "ls disk.img -m /dev/sda1:/boot",
    "ls disk.img -m LABEL=root",
    "ls disk.img -m /dev/sdax",
    "ls disk.img -- -a",
    "df -A disk.img",
    "mkdir disk.img -m 700 /srv",
    "hash -a md5 disk.img",
    "snapshot -a before disk.img",
    "rm -m /dev/sda1 disk.img /x",
]


@pytest.mark.parametrize("words", SPELLED)
def test_as_the_virt_tools_spell_it(words: str) -> None:
    assert " ".join(in_our_words(words.split())) == SPELLED[words]


@pytest.mark.parametrize("words", LEFT)
def test_what_is_left_as_it_is(words: str) -> None:
    assert list(in_our_words(words.split())) == words.split()


def test_nothing_and_an_option_without_a_value() -> None:
    assert in_our_words([]) == []
    assert in_our_words(["df", "-a"]) == ["df", ""]  # an empty name, which is refused by a sentence


@pytest.mark.parametrize(
    ("size", "nearest", "up"),
    [
        (1023, "1023", "1023"),
        (1024, "1.0K", "1.0K"),
        (1025, "1.0K", "1.1K"),
        (1126, "1.1K", "1.1K"),
        (39_959_552, "38M", "39M"),
        (10 * 1024 - 1, "10K", "10K"),
        (10 * 1024 + 512, "10K", "11K"),  # a half goes to an even number
        (11 * 1024 + 512, "12K", "12K"),
        ((1 << 20) - 600, "1023K", "1.0M"),
        ((1 << 20) - 1, "1.0M", "1.0M"),
    ],
)
def test_sizes_are_rounded_as_the_virt_tools_do_or_up_as_ls_does(size: int, nearest: str, up: str) -> None:
    assert (short_size(size), short_size(size, up=True)) == (nearest, up)
