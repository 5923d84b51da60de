# SPDX-License-Identifier: MIT
"""The policy that lets images name files below one http:// or https:// address."""

from __future__ import annotations

from urllib.parse import quote, unquote, urljoin

from pydiskimg.errors import UnsupportedImageError
from pydiskimg.images.address import AddressSource, open_source
from pydiskimg.images.references import AllowedDirectory, Reference, check_name, check_text
from pydiskimg.text import is_address
from pydiskimg.web.address import Address, parse_address


class AllowedAddress(AllowedDirectory):
    """Opens files below address, whose user and password go with each request.

    A name that is not an address is relative to the image's own; neither ".." nor escapes in an address may lead out.
    """

    def __init__(self, address: Address) -> None:
        self._address = address

    def open(self, reference: Reference) -> AddressSource:
        """Open the file of reference for reading; close() of the result closes it.

        Raises UnsupportedImageError for a name that leads elsewhere, FetchError as open_address() does.
        """
        check_text(reference)
        name = reference.name.decode()
        if not is_address(name):
            check_name(reference)
            if not is_address(reference.directory):
                raise self._elsewhere(reference, reference.path)
            name = urljoin(f"{reference.directory}/", quote(name))
        found = parse_address(name)
        if not self._holds(found):
            raise self._elsewhere(reference, str(found))
        return open_source(Address(found.parts, self._address.authorization))

    def close(self) -> None:
        """Do nothing: no file is open; may be called repeatedly."""

    def _holds(self, address: Address) -> bool:
        steps = unquote(address.parts.path).split("/")
        above = self._address.parts.path.rstrip("/") + "/"
        is_below = address.parts.path.startswith(above) and address.origin == self._address.origin
        return is_below and ".." not in steps and not address.parts.query

    def _elsewhere(self, reference: Reference, meant: str) -> UnsupportedImageError:
        return UnsupportedImageError(
            f"{reference}, which would be {meant}; it was not opened, since that is not below the address that is "
            f"allowed, {self._address}"
        )
