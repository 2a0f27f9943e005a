"""The address of an OPC UA tag: a node id, then at most one element, then at most one field.

::

    [ns=<index>; | nsu=<uri>;] (i=<number> | s=<text> | g=<guid> | b=<base64>) [suffix]
    suffix: [<element>] and then #<Field> or #<Field>.<Field>...

The node id is the text form of OPC 10000-6, 5.3.1.10. String identifiers may themselves hold ``[3]``
or ``#`` (Siemens controllers do): a node whose id is the whole text wins over the suffix, see
:meth:`Address.whole`; who asks the server is the session, not this file.
"""

from __future__ import annotations

import base64
import binascii
import re
import uuid
from dataclasses import dataclass, replace
from typing import Final, Literal

from headrace.model.errors import Misconfigured

Kind = Literal["i", "s", "g", "b"]
ADDRESS_EXAMPLE: Final = "ns=2;s=cnc_1.spindle.load"

_NODE = re.compile(
    r"^(?:ns=(?P<ns>\d{1,5});|nsu=(?P<nsu>[^;]+);)?(?P<kind>[isgb])=(?P<rest>.+)$", re.S
)
_SUFFIX = re.compile(
    r"^(?P<identifier>.+?)(?:\[(?P<element>\d{1,9})\])?(?:#(?P<fields>[^\W\d]\w*(?:\.[^\W\d]\w*)*))?$",
    re.S,
)


@dataclass(frozen=True)
class Address:
    """A parsed address.

    Attributes:
        namespace_index: 0 when ``namespace_uri`` is given or none was written.
        namespace_uri: "" unless written as ``nsu=``; its index may differ from session to session.
        kind: type of the identifier.
        identifier: its text.
        element: index into an array value, or None.
        fields: path into a structure value.
        suffix: the text of element and fields as written.
    """

    namespace_index: int
    namespace_uri: str
    kind: Kind
    identifier: str
    element: int | None = None
    fields: tuple[str, ...] = ()
    suffix: str = ""

    @property
    def node_key(self) -> tuple[int, str, str, str]:
        """What names the node, without element and fields."""
        return (self.namespace_index, self.namespace_uri, self.kind, self.identifier)

    @property
    def is_ambiguous(self) -> bool:
        """True when the suffix might as well belong to a string identifier."""
        return self.kind == "s" and bool(self.suffix)

    def whole(self) -> Address:
        """The same text read as a node id without suffix."""
        return replace(
            self, identifier=self.identifier + self.suffix, element=None, fields=(), suffix=""
        )


def parse_address(text: str) -> Address:
    """The address that a text stands for.

    Raises:
        Misconfigured: EDGE-2009 with the text and what is wrong with it.

    Example:
        >>> parse_address("ns=2;s=cnc_1.position[1]").element
        1
        >>> parse_address("i=2256#BuildInfo.ProductName").fields
        ('BuildInfo', 'ProductName')
    """
    match = _NODE.match(text.strip())
    if match is None:
        raise _wrong(text, "it is no node id")
    suffixed = _SUFFIX.match(match["rest"])
    if suffixed is None:
        raise _wrong(text, "it has no identifier")
    index = int(match["ns"] or 0)
    if index > 65_535:
        raise _wrong(text, f"namespace index {index} is above 65535")
    kind: Kind = match["kind"]  # type: ignore[assignment] # the pattern allows only these four
    identifier = suffixed["identifier"]
    _check_identifier(text, kind, identifier)
    return Address(
        namespace_index=index,
        namespace_uri=match["nsu"] or "",
        kind=kind,
        identifier=identifier,
        element=int(suffixed["element"]) if suffixed["element"] else None,
        fields=tuple(suffixed["fields"].split(".")) if suffixed["fields"] else (),
        suffix=match["rest"][len(identifier) :],
    )


def _check_identifier(text: str, kind: str, identifier: str) -> None:
    if kind == "i" and not (
        identifier.isascii() and identifier.isdigit() and int(identifier) < 2**32
    ):
        raise _wrong(text, f"{identifier!r} is no number of 32 bits")
    if kind == "g":
        try:
            uuid.UUID(identifier)
        except ValueError as error:
            raise _wrong(text, f"{identifier!r} is no GUID") from error
    if kind == "b":
        try:
            base64.b64decode(identifier, validate=True)
        except (binascii.Error, ValueError) as error:
            raise _wrong(text, f"{identifier!r} is not base64") from error


def _wrong(text: str, why: str) -> Misconfigured:
    return Misconfigured(
        "EDGE-2009",
        f"{text!r} is not an OPC UA address: {why}",
        f"Write a node id such as {ADDRESS_EXAMPLE}, nsu=urn:acme;s=load or i=2258, "
        "then [3] for one array element or #Field for one field.",
    )
