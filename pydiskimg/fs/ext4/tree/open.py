# SPDX-License-Identifier: MIT
"""An ext file system opened to read its files, as recovery of its journal would leave it."""

from __future__ import annotations

from pydiskimg.errors import FileSystemError
from pydiskimg.fs.ext4.features import KNOWN_TO_FILES
from pydiskimg.fs.ext4.file_system import NotBelievedError, read_file_system
from pydiskimg.fs.ext4.tree.files import ExtFiles
from pydiskimg.fs.ext4.tree.tree import ExtTree
from pydiskimg.protocols import Source


def open_ext_tree(source: Source) -> ExtTree:
    """Return the files of the ext2, ext3 or ext4 file system that begins where source begins; nothing is written.

    What its journal still has to put into place is read from there. source stays the caller's, and is not to change
    while the tree is used. Raises FileSystemError for what is not such a file system, is damaged at its beginning or in
    its journal, or has features that are not known here; StorageError as reading does.
    """
    try:
        fs = read_file_system(source, KNOWN_TO_FILES)
        if fs.needs_recovery:
            from pydiskimg.fs.ext4.recovery import recovered  # only here: most file systems were unmounted

            fs = recovered(fs, KNOWN_TO_FILES)
        return ExtTree(ExtFiles(fs))
    except NotBelievedError as error:
        raise FileSystemError(f"{source.name}: the files of the file system cannot be read: {error.reason}") from error
