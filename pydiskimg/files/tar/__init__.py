# SPDX-License-Identifier: MIT
"""Archives: a tarball unpacked faithfully and safely, a compressed image read, entries packed.

The only importer of libarchive, for reading; each name is imported on first use, because writing does not need
libarchive.
"""

from __future__ import annotations

from pydiskimg.startup import TYPE_CHECKING, found_when_used

if TYPE_CHECKING:
    from pydiskimg.files.tar.from_pipe import FileInArchive, files_in_archive, looks_like_archive
    from pydiskimg.files.tar.packed import PackedFile, first_file, only_file, open_packed
    from pydiskimg.files.tar.unpack import Extracted, check_archive, extract, open_tar
    from pydiskimg.files.tar.writer import write_archive

__all__ = [
    "Extracted",
    "FileInArchive",
    "PackedFile",
    "check_archive",
    "extract",
    "files_in_archive",
    "first_file",
    "looks_like_archive",
    "only_file",
    "open_packed",
    "open_tar",
    "write_archive",
]

if not TYPE_CHECKING:  # with a __getattr__, a type checker would take any name for one of these
    __getattr__ = found_when_used(
        globals(),
        {
            "Extracted": "unpack",
            "FileInArchive": "from_pipe",
            "PackedFile": "packed",
            "check_archive": "unpack",
            "extract": "unpack",
            "files_in_archive": "from_pipe",
            "first_file": "packed",
            "looks_like_archive": "from_pipe",
            "only_file": "packed",
            "open_packed": "packed",
            "open_tar": "unpack",
            "write_archive": "writer",
        },
    )
