# SPDX-License-Identifier: MIT
"""Archives: a tarball unpacked faithfully and safely. The only importer of libarchive."""

from pydiskimg.archive.extract import Extracted, check_archive, extract

__all__ = ["Extracted", "check_archive", "extract"]
