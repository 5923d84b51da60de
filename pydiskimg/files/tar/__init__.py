# SPDX-License-Identifier: MIT
"""Archives: a tarball unpacked faithfully and safely, a compressed image read. The only importer of libarchive."""

from pydiskimg.files.tar.extract import Extracted, check_archive, extract, open_tar
from pydiskimg.files.tar.from_pipe import FileInArchive, files_in_archive, looks_like_archive
from pydiskimg.files.tar.packed import PackedFile, first_file, only_file, open_packed
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
