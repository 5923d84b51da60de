# SPDX-License-Identifier: MIT
"""The headers of encrypted devices: LUKS1 and LUKS2 On-Disk Format Specification; big-endian."""

from __future__ import annotations

from pydiskimg.records import Record

MAGIC = b"LUKS\xba\xbe"
LUKS1 = Record("LUKS1 header", ">", 208, """
    00 6s  magic
    06 H   version
    08 32s cipher-name
    28 32s cipher-mode
    48 32s hash-spec
    68 I   payload-offset           sectors
    6c I   key-bytes
    70 20s mk-digest
    84 32s mk-digest-salt
    a4 I   mk-digest-iter
    a8 40s uuid                     as text; KEY_SLOTS of KEY_SLOT follow
""")  # fmt: skip
KEY_SLOT = Record("LUKS1 key slot", ">", 48, """
    00 I   active
    04 I   iterations
    08 32s salt
    28 I   key-material-offset      sectors
    2c I   stripes
""")  # fmt: skip
KEY_SLOTS = 8
ACTIVE = 0x00AC71F3
LUKS2 = Record("LUKS2 binary header", ">", 208, """
    00 6s  magic
    06 H   version
    08 Q   hdr_size
    10 Q   seqid
    18 48s label
    48 32s csum_alg
    68 64s salt
    a8 40s uuid                     as in version 1
""")  # fmt: skip
