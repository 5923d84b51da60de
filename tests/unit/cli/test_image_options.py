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
        (
            "preallocation=off,refcount_bits=16,lazy_refcounts=off,extended_l2=no,encryption=false",
            ImageOptions(given=True),
        ),
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
        ("preallocation=all", "preallocation=all is not possible here; expected off or metadata or falloc or full"),
        ("extended_l2=perhaps", "extended_l2=perhaps is not possible here; expected on or true or yes or off"),
        ("encryption=on", "encryption=on is not written by pydiskimg"),
        ("encrypt.format=luks", "an encrypted image is not written by pydiskimg"),
        ("data_file_raw=maybe", "data_file_raw=maybe is not possible here; expected on"),
        ("nonsense=on", "the option 'nonsense' is not known; expected one of cluster_size, compat"),
        (" cluster_size=64k", "the option ' cluster_size' is not known"),
        ("cluster_size= 64k", "' 64k' is not a size"),
        ("refcount_bits=3", "refcount_bits=3 is not possible here; expected 1 or 2 or 4"),
        ("cluster_size", "'cluster_size' has no value; expected key=value"),
        ("cluster_size=4k,,help", "'4k,help' is not a size"),
        ("cluster_size=4k,,,compat=v2", "'4k,' is not a size"),
        ("compat=1.1,", "'compat=1.1,' begins or ends with a comma; expected key=value,key=value"),
        (",compat=1.1", "',compat=1.1' begins or ends with a comma"),
        (",,compat=1.1", "',,compat=1.1' begins or ends with a comma"),
        (",", "',' begins or ends with a comma"),
        ("", "the list of options is empty; expected key=value,key=value"),
        ("data_file=", "data_file= has no value; expected the name of a file"),
    ],
)
def test_wrong_words(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_image_options(text)


def test_what_only_an_empty_image_has() -> None:
    assert parse_image_options("size=3G", empty=True) == ImageOptions(size=3 << 30)
    assert parse_image_options("size=1k,compat=v2", empty=True) == ImageOptions(version=2, size=1024, given=True)
    with pytest.raises(ValueError, match="size is not an option here: a copy has the size of what is copied"):
        parse_image_options("size=3G")
    with pytest.raises(ValueError, match="'many' is not a size"):
        parse_image_options("size=many", empty=True)


def test_a_backing_file() -> None:
    expected = ImageOptions(backing_file="a,b", backing_format="qcow2", given=True)
    assert parse_image_options("backing_file=a,,b,backing_fmt=qcow2") == expected
    with pytest.raises(ValueError, match="backing_fmt=vmdk is not possible here; expected raw or qcow2"):
        parse_image_options("backing_fmt=vmdk")


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


@pytest.mark.parametrize("text", [",help", "help,", "cluster_size=4k,,help", "help=on", "compat=,,?"])
def test_what_does_not_ask_for_help(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser(prog="test")
    add_image_options(parser)
    with pytest.raises(SystemExit) as ended:
        image_options(parser.parse_args(["-o", text]))
    assert ended.value.code == 2
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("word", ["help", "?", "compat=1.1,help", "help,compat=1.1", "nonsense,?"])
def test_help(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser(prog="test")
    add_image_options(parser)
    parser.add_argument("file")
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(["-o", word])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    for key in ("cluster_size", "compat", "compression_type", "preallocation", "refcount_bits", "lazy_refcounts"):
        assert f"  {key}=" in shown
    assert "-o help lists them" in " ".join(parser.format_help().split())
