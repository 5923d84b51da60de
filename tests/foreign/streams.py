# SPDX-License-Identifier: MIT
"""What a program writes to standard output and standard error, in the order in which it writes it."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Iterable, Mapping
from itertools import groupby

OUTPUT, ERROR = 1, 2  # file descriptors
Pieces = list[tuple[int, bytes]]  # the stream, and what was written to it
_LARGEST_WRITE = 1 << 22
_END = b""


def run(command: list[str], environment: Mapping[str, str] | None) -> tuple[int, Pieces]:
    """Run command with both streams on datagram sockets, one queue for both: two pipes would not keep the order.

    Returns its status as subprocess has it, and what it wrote.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as queue:
        queue.bind("")  # an abstract address of the kernel's choice
        senders = {number: _sender(queue) for number in (OUTPUT, ERROR)}
        end = _sender(queue)
        files = [senders[stream].fileno() for stream in (OUTPUT, ERROR)]
        streams = {sender.getsockname(): number for number, sender in senders.items()}
        with subprocess.Popen(command, env=environment, stdout=files[0], stderr=files[1]) as process:
            threading.Thread(target=lambda: (process.wait(), end.send(_END))).start()
            pieces = []
            while (piece := queue.recvfrom(_LARGEST_WRITE))[1] != end.getsockname():
                pieces.append((streams[piece[1]], piece[0]))
        for sender in (*senders.values(), end):
            sender.close()
    return process.returncode, joined(pieces)


def _sender(queue: socket.socket) -> socket.socket:
    sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _LARGEST_WRITE)
    sender.bind("")
    sender.connect(queue.getsockname())
    return sender


def joined(pieces: Iterable[tuple[int, bytes]]) -> Pieces:
    """Return pieces with those joined that follow each other on the same stream."""
    groups = groupby(pieces, key=lambda piece: piece[0])
    return [(stream, b"".join(data for _, data in group)) for stream, group in groups]


def write(pieces: Iterable[tuple[int, bytes]]) -> None:
    """Write pieces to this process's own streams."""
    for stream, data in pieces:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(stream, rest) :]


def with_errors(ours: Pieces, theirs: Pieces) -> Pieces:
    """Return ours with the standard error of theirs, if both have some; where the orders differ, in our first place."""
    sentences = [data for stream, data in theirs if stream == ERROR]
    places = [at for at, (stream, _) in enumerate(ours) if stream == ERROR]
    if not sentences or not places:
        return ours
    if [stream for stream, _ in ours] == [stream for stream, _ in theirs]:
        return [(stream, sentences.pop(0) if stream == ERROR else data) for stream, data in ours]
    moved = {places[0]: b"".join(sentences)} | dict.fromkeys(places[1:], b"")
    return [(stream, moved.get(at, data)) for at, (stream, data) in enumerate(ours)]
