# SPDX-License-Identifier: MIT
"""The option -o: qemu-img's words, and a sentence for every wrong one."""

from __future__ import annotations

import argparse

import pytest

from pydiskimg.cli.image_options import ImageOptions, add_image_options, image_options, parse_image_options


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cluster_size=64k", ImageOptions(65536, 3, "zlib", given=True)),
        ("cluster_size=2M,compat=1.1,compression_type=zstd", ImageOptions(2 << 20, 3, "zstd", given=True)),
        ("compat=0.10", ImageOptions(65536, 2, "zlib", given=True)),
        ("compat=v3,compat=v2", ImageOptions(65536, 2, "zlib", given=True)),
        ("preallocation=off,refcount_bits=16,lazy_refcounts=off", ImageOptions(given=True)),
    ],
)
def test_words(text: str, expected: ImageOptions) -> None:
    assert parse_image_options(text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cluster_size=3000", "expected a power of two from 512 to 2M"),
        ("cluster_size=4M", "expected a power of two from 512 to 2M"),
        ("cluster_size=many", "'many' is not a size"),
        ("compat=2", "compat=2 is not possible here; expected 0.10 or v2 or 1.1 or v3"),
        ("compression_type=lzo", "expected zlib or zstd"),
        ("preallocation=full", "preallocation=full is not possible here; expected off"),
        ("refcount_bits=1", "expected 16"),
        ("encryption=on", "the option 'encryption' is not known"),
        ("cluster_size", "'cluster_size' is no option; expected key=value"),
        ("compat=1.1,", "'' is no option"),
    ],
)
def test_wrong_words(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_image_options(text)


def test_several_and_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser(prog="test")
    add_image_options(parser)
    assert image_options(parser.parse_args([])) == ImageOptions()
    both = parser.parse_args(["-o", "cluster_size=4k", "-o", "compression_type=zstd"])
    assert image_options(both) == ImageOptions(4096, 3, "zstd", given=True)
    with pytest.raises(SystemExit) as ended:
        image_options(parser.parse_args(["-o", "compat=0.10,compression_type=zstd"]))
    assert ended.value.code == 2
    assert "argument -o: compression_type=zstd needs compat=1.1" in capsys.readouterr().err
