# SPDX-License-Identifier: MIT
"""pydiskimg amend: change options of an existing qcow2 image."""

from __future__ import annotations

import os

from pydiskimg.cli.arguments import require_file_name
from pydiskimg.cli.image_options import READERS, option_pairs, options_type
from pydiskimg.cli.options import add_cache_option, add_format_option, add_progress_option, add_quiet_option
from pydiskimg.cli.progress import progress
from pydiskimg.cli.references import add_references_option, references
from pydiskimg.errors import UnsupportedImageError
from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.units import parse_size

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from typing import Any

    from pydiskimg.images.amend import Amendment

KEYS = {
    "compat": "1.1 or v3, 0.10 or v2",
    "size": "the virtual size; a smaller one loses data",
    "refcount_bits": "1, 2, 4, 8, 16, 32, 64",
    "lazy_refcounts": "off, on",
    "data_file": "the name of the external data file, which is not opened",
    "data_file_raw": "off: the data file need not stay a raw image",
    "backing_file": "as it is: see rebase",
    "backing_fmt": "as it is: see rebase",
}
_ONLY_NEW = (
    "cluster_size",
    "compression_type",
    "preallocation",
    "extended_l2",
    "encryption",
    "nocow",
    "extent_size_hint",
)
_EXAMPLES = """\
pydiskimg amend -o lazy_refcounts=on disk.qcow2
pydiskimg amend -o help disk.qcow2
"""


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "amend",
        description="Change options of the qcow2 image FILE. Each option is changed by one write of the header, one "
        "after the other; after an interruption FILE shows the same contents.",
        examples=_EXAMPLES,
    )
    add_format_option(parser, note="format; only qcow2 has options")
    parser.add_argument(
        "-o",
        dest="amendments",
        action="append",
        required=True,
        type=options_type("Amend options for 'qcow2':", KEYS),
        metavar="OPTIONS",
        help="options to change: key=value,key=value; -o help lists them",
    )
    add_progress_option(parser)
    add_quiet_option(parser, "show no progress, even with -p")
    parser.add_argument(
        "--force", action="store_true", help="accepted as by qemu-img: it is for the keys of encrypted images"
    )
    add_cache_option(parser, "-t")
    add_references_option(parser)
    parser.add_argument("file", metavar="FILE", help="qcow2 image")
    parser.set_defaults(run=run, usage_error=parser.error, opens_described_data_file=True)


def run(arguments: argparse.Namespace) -> None:
    """Change the options of the image that the arguments name."""
    from pydiskimg.images.amend import Amendment, amend_image

    require_file_name(arguments.file)
    amendment = Amendment()
    try:
        for text in arguments.amendments:
            amendment = parse_amendment(text, amendment)
    except ValueError as error:
        arguments.usage_error(f"argument -o: {error}")
    if amendment.size is not None and getattr(arguments, "has_described_files", False):
        raise UnsupportedImageError(
            f"{arguments.file}: a new size is for an image with the files that it names itself; describe no others"
        )
    shown = arguments.progress and not arguments.quiet
    with (
        references(arguments) as policy,
        progress(os.path.basename(arguments.file), shown=shown, as_qemu_img=True) as callback,
    ):
        amend_image(arguments.file, amendment, format=arguments.format, references=policy, progress=callback)


def parse_amendment(text: str, amendment: Amendment) -> Amendment:
    """Return amendment changed by text. Raises ValueError with a sentence for an invalid option."""
    for key, value in option_pairs(text):
        if key in _ONLY_NEW or key.partition(".")[0] == "encrypt":
            raise ValueError(
                f"{key} is chosen when an image is made, and cannot be changed afterwards; convert the image"
            )
        if key not in _READERS:
            raise ValueError(f"the option {key!r} is not known; expected one of {', '.join(KEYS)}")
        name, read = _READERS[key]
        amendment = amendment._replace(**{name: read(key, value)})
    return amendment


_READERS: dict[str, tuple[str, Callable[[str, str], object]]] = {
    **{key: READERS[key] for key in ("compat", "refcount_bits", "lazy_refcounts", "data_file_raw")},
    "data_file": ("data_file", lambda _, value: value),  # "" removes the name
    "size": ("size", lambda _, value: parse_size(value)),
    "backing_file": ("backing_file", lambda _, value: value),
    "backing_fmt": ("backing_format", lambda _, value: value),
}
