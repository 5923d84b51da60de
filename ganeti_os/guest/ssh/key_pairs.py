# SPDX-License-Identifier: MIT
"""New key pairs for ssh servers. Finding the primes of an RSA key takes longest, so that begins early.

The library is imported where it is used: most verbs make no keys.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

RSA, ECDSA, ED25519 = KINDS = ("rsa", "ecdsa", "ed25519")
RSA_BITS = 3072  # as ssh-keygen does (ADR 0103)
_EXPONENT = 65537


@dataclass(frozen=True, slots=True)
class Pair:
    """The contents of both files. private must never appear in a message or a log."""

    private: bytes
    public: bytes

    def __repr__(self) -> str:
        return "Pair(...)"


class KeyMaker:
    """Makes one key of each kind on demand; the RSA key in a thread from start() on.

    The thread must end by itself before the process does: if it is interrupted in the library, the process aborts.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._rsa: RSAPrivateKey | None = None
        self._error: BaseException | None = None

    def start(self) -> None:
        """Begin with the RSA key; further calls do nothing. Raises ImportError without the library."""
        import cryptography  # noqa: F401 - what is missing has to be reported before a disk is written

        if self._thread is None:
            self._thread = threading.Thread(target=self._make_rsa, name="RSA host key")
            self._thread.start()

    def _make_rsa(self) -> None:
        try:
            from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

            self._rsa = generate_private_key(_EXPONENT, RSA_BITS)
        except BaseException as error:  # noqa: BLE001 - raised by rsa()
            self._error = error

    def rsa(self) -> RSAPrivateKey:
        """Return the RSA key, once it is ready."""
        self.start()
        assert self._thread is not None
        self._thread.join()
        if self._error is not None:
            raise self._error
        assert self._rsa is not None
        return self._rsa

    def ecdsa(self) -> EllipticCurvePrivateKey:
        """Return a new key on the curve NIST P-256."""
        from cryptography.hazmat.primitives.asymmetric import ec

        return ec.generate_private_key(ec.SECP256R1())

    def ed25519(self) -> Ed25519PrivateKey:
        """Return a new Ed25519 key."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return Ed25519PrivateKey.generate()

    def key(self, kind: str) -> RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey:
        """Return a key of one of KINDS."""
        if kind == RSA:
            return self.rsa()
        return self.ecdsa() if kind == ECDSA else self.ed25519()

    def pair(self, kind: str, *, comment: str, pem: bool = False) -> Pair:
        """Return a new pair in the form of ssh-keygen.

        comment is for the public file. pem: the private key in the form that OpenSSH before 6.5 also reads; Ed25519 has
        none.
        """
        from cryptography.hazmat.primitives import serialization as form

        key = self.key(kind)
        private = form.PrivateFormat.TraditionalOpenSSL if pem and kind != ED25519 else form.PrivateFormat.OpenSSH
        public = key.public_key().public_bytes(form.Encoding.OpenSSH, form.PublicFormat.OpenSSH)
        return Pair(
            key.private_bytes(form.Encoding.PEM, private, form.NoEncryption()),
            public + b" " + comment.encode("ascii") + b"\n",
        )
