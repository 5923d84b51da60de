# SPDX-License-Identifier: MIT
"""The old and the new name of an instance, each with and without its domain."""

from __future__ import annotations

from dataclasses import dataclass

# What a system has that was given no name: the defaults of distributions, and what hostname(1) shows for none.
_UNSET = frozenset({"", "(none)", "localhost", "localhost.localdomain", "localhost.localdomain6", "localhost6"})


def short(name: str) -> str:
    """Return a host name without its domain."""
    return name.partition(".")[0]


def is_unset(name: str) -> bool:
    """True for a name that stands for none."""
    return name.lower() in _UNSET


@dataclass(frozen=True, slots=True)
class Renaming:
    """old and new are the instance's names as Ganeti knows them, with the domain where they have one."""

    old: str
    new: str

    def renamed(self, found: str) -> str | None:
        """Return the new name in the form that found has (short or with the domain), in any case of letters.

        The new name stays as it is; None is a name that is neither the old nor the new one.
        """
        name = found.lower()
        if name in (self.new.lower(), short(self.new).lower()):
            return found
        return self.replaced(found)

    def replaced(self, found: str) -> str | None:
        """Return what becomes of the old name; None for any other."""
        name = found.lower()
        # The short form first: where the old name has no domain, the system gets none either.
        if name == short(self.old).lower():
            return short(self.new)
        return self.new if name == self.old.lower() else None

    def replaced_in_any_domain(self, found: str) -> str | None:
        """Return what becomes of the old name, also in a domain that is not the instance's; None for any other.

        It gets the new name's domain, or keeps its own where the new name has none; a dot at the end stays. Where the
        instance keeps its name, so does the guest.
        """
        name = found.removesuffix(".")
        dot = found[len(name) :]
        host, _, domain = name.partition(".")
        new = self.replaced(name)
        if new is None and self.old != self.new and host.lower() == short(self.old).lower():
            new = self.new if "." in self.new else f"{self.new}.{domain}"
        return None if new is None else new + dot

    def replaced_bytes(self, found: bytes) -> bytes:
        """Return found, or what becomes of it where it is the old name."""
        # Latin-1 maps each byte to one character and back, and no other byte equals a letter of a host name.
        new = self.replaced(found.decode("latin-1"))
        return found if new is None else new.encode("ascii")
