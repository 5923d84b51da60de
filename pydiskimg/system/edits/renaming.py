# SPDX-License-Identifier: MIT
"""The names of a system so far, and its instance's name, each with and without its domain."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

# Names of a system that was given none: the defaults of distributions, and hostname(1)'s placeholder.
_UNSET = frozenset({"", "(none)", "localhost", "localhost.localdomain", "localhost.localdomain6", "localhost6"})


def short(name: str) -> str:
    """Return a host name without its domain."""
    return name.partition(".")[0]


def is_unset(name: str) -> bool:
    """True for a placeholder."""
    return name.lower() in _UNSET


@dataclass(frozen=True, slots=True)
class Renaming:
    """new is the new name, old are the previous names of the system, each with the domain if it has one."""

    old: tuple[str, ...]
    new: str

    @classmethod
    def of(cls, new: str, old: Iterable[str | None]) -> Renaming:
        """Return the replacement of each of old by new; None, placeholders and the new name are left out."""
        kept = dict.fromkeys(name for name in old if name and not is_unset(name))
        return cls(tuple(name for name in kept if name.lower() not in (new.lower(), short(new).lower())), new)

    def is_new(self, found: str) -> bool:
        """True for the new name with or without its domain, in any case of letters."""
        return found.lower() in (self.new.lower(), short(self.new).lower())

    def replaced(self, found: str) -> str | None:
        """Return the replacement of an old name, in the form that found has; None for any other name."""
        name = found.lower()
        # The short form first: if the old name has no domain, the system gets none either.
        if any(name == short(old).lower() for old in self.old):
            return short(self.new)
        return self.new if any(name == old.lower() for old in self.old) else None

    def replaced_in_any_domain(self, found: str) -> str | None:
        """Return the replacement of an old name, even in a domain that is not the instance's; None for any other name.

        It gets the new name's domain, or keeps its own if the new name has none; a dot at the end stays. If the
        instance keeps its name, so does the guest.
        """
        name = found.removesuffix(".")
        dot = found[len(name) :]
        host, _, domain = name.partition(".")
        new = self.replaced(name)
        if new is None and any(host.lower() == short(old).lower() for old in self.old):
            new = self.new if "." in self.new else f"{self.new}.{domain}"
        return None if new is None else new + dot

    def replaced_bytes(self, found: bytes) -> bytes:
        """Return found, or its replacement if it is an old name."""
        # Latin-1 maps each byte to one character and back, and no other byte equals a letter of a host name.
        new = self.replaced(found.decode("latin-1"))
        return found if new is None else new.encode("ascii")
