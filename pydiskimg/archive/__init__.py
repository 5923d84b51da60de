# SPDX-License-Identifier: MIT
"""Archives: a tarball unpacked faithfully and safely. The only importer of libarchive."""

from pydiskimg.archive.extract import Extracted, check_archive, extract
from pydiskimg.archive.members import FileInArchive, files_in_archive, looks_like_archive

__all__ = [
    "Extracted",
    "FileInArchive",
    "check_archive",
    "extract",
    "files_in_archive",
    "looks_like_archive",
]
