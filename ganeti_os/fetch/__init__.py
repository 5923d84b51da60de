# SPDX-License-Identifier: MIT
"""Fetch images from IMAGE_URL into CACHE_DIR, each once for all creates on the node."""

from ganeti_os.fetch.image import fetched, fetched_first
from pydiskimg.web.errors import FetchError, NotThereError, UnreachableError

__all__ = ["FetchError", "NotThereError", "UnreachableError", "fetched", "fetched_first"]
