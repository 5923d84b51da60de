# SPDX-License-Identifier: MIT
"""Archives: a tarball unpacked faithfully and safely. The only importer of libarchive."""

from pydiskimg.archive.extract import Extracted, extract

__all__ = ["Extracted", "extract"]
