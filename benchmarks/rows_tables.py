# SPDX-License-Identifier: MIT
"""Commands that work on the tables of images: chains, very large images, and short commands, mostly a start."""

from __future__ import annotations

from benchmarks.rows import Limit, Peer, Row

# Our short commands may take three times as long: Python's own start is twice that of qemu-img.
_START = 1 / 3
_FRESH_CHAIN = "rm -f *.qcow2 new copy; cp $chain/* ."
_FRESH_SHORT = "cp $short/* ."
_COPY = "dd if={} of=copy bs=1M oflag=append conv=notrunc,fsync status=none"
_CHANGES = Limit("copying the changes", f"rm -f copy; {_COPY.format('top.qcow2')}")
_ALL = Limit("copying both files", f"{_CHANGES.command}; {_COPY.format('base.qcow2')}")


def _on_chain(name: str, what: str, words: str, limit: Limit | None = None) -> Row:
    return Row(
        f"chain-{name}",
        f"{what}: 1 GiB of changes over a backing file with 512 MiB",
        f"pydiskimg {words} --allow-references .",
        (Peer("qemu-img", f"qemu-img {words}", 1.2),),
        limit,
        before=_FRESH_CHAIN,
    )


def _sharing(name: str, what: str, words: str, *others: Peer) -> Row:
    """On a file system whose files can share blocks."""
    return Row(
        f"chain-{name}",
        f"{what} on XFS: 1 GiB of changes over a backing file with 512 MiB",
        f"pydiskimg {words} --allow-references $reflinks",
        others or (Peer("qemu-img", f"qemu-img {words}", 1.2),),
        before="rm -f $reflinks/*; cp $chain/* $reflinks; sync",
    )


def _on_large(command: str, image: str, title: str, wanted: float) -> Row:
    words = f"{command} --output=json ${image}"
    return Row(
        f"{command}-{image.removesuffix('_qcow2')}",
        f"{command} of {title}",
        f"pydiskimg {words}",
        (Peer("qemu-img", f"qemu-img {words}", wanted),),
        times_as_many_rounds=4 if command == "info" else 1,
    )


def _short(words: str, name: str = "") -> Row:
    return Row(
        f"start-{name or words.split(maxsplit=1)[0].strip('-')}",
        f"{' '.join(word for word in words.split() if '.' not in word)}, of a small image",
        f"pydiskimg {words}",
        (Peer("qemu-img", f"qemu-img {words}", _START),),
        before=_FRESH_SHORT,
        times_as_many_rounds=8,
    )


ROWS = (
    _on_chain("commit", "commit", "commit -q top.qcow2", _CHANGES),
    _on_chain("rebase", "rebase onto another file", "rebase -q -b other.qcow2 -F qcow2 top.qcow2"),
    _on_chain("rebase-alone", "rebase onto none", "rebase -q -b '' top.qcow2"),
    _on_chain("to-raw", "convert to raw", "convert -t writeback -O raw top.qcow2 new", _ALL),
    _on_chain("to-qcow2", "convert to qcow2", "convert -t writeback -O qcow2 top.qcow2 new", _ALL),
    _sharing("commit-xfs", "commit", "commit -q $reflinks/top.qcow2"),
    _sharing(
        "to-raw-xfs",
        "convert -C to raw",
        "convert -C -O raw $reflinks/top.qcow2 $reflinks/new",
        Peer("qemu-img", "qemu-img convert -O raw $reflinks/top.qcow2 $reflinks/new", 1.2),
        Peer("qemu-img -C", "qemu-img convert -C -O raw $reflinks/top.qcow2 $reflinks/new", _START),
    ),
    *(
        _on_large(command, image, title, wanted)
        for image, title, check in (
            ("empty_qcow2", "an empty image of 64 TiB", _START),
            ("scattered", "1 TiB, 1 % of it at random", 1.0),
        )
        for command, wanted in (("info", _START), ("map", 1.0), ("check", check))
    ),
    _short("--version"),
    _short("--help"),
    _short("info image.qcow2"),
    _short("map image.qcow2"),
    _short("check image.qcow2"),
    _short("measure -O raw image.qcow2", "measure-raw"),
    _short("measure -O qcow2 image.qcow2", "measure-qcow2"),
    _short("compare -f raw -F raw disk.raw disk.raw"),
    _short("resize -f raw disk.raw 1M", "resize-raw"),
    _short("resize image.qcow2 +1M", "resize-qcow2"),
    _short("resize image.qcow2 +1T", "resize-new-table"),
    _short("resize --shrink image.qcow2 -1M", "resize-shrink"),
    _short("snapshot -l image.qcow2", "snapshot-list"),
    _short("snapshot -c new image.qcow2", "snapshot-create"),
    _short("snapshot -a one image.qcow2", "snapshot-apply"),
    _short("snapshot -d one image.qcow2", "snapshot-delete"),
)
