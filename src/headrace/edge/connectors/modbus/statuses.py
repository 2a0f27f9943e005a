"""What a Modbus exception means for a tag.

====== ========================== ===================== =========================================
code   Modbus V1.1b3, clause 7    StatusCode            what to do
====== ========================== ===================== =========================================
1      illegal function           BadNotSupported       the device lacks the table or the function
2      illegal data address       BadNodeIdUnknown      check the register map
3      illegal data value         BadOutOfRange         check the register map, lower registers_max
4      server device failure      BadDeviceFailure      look at the device
5      acknowledge                BadResourceUnavailable  the device is busy with a long command
6      server device busy         BadResourceUnavailable  the device is busy
8      memory parity error        BadDeviceFailure      look at the device
10     gateway path unavailable   BadCommunicationError check the gateway
11     gateway target no answer   BadNotConnected       check the unit and its wiring
other  (not in the standard)      BadUnexpectedError    see the vendor's manual
====== ========================== ===================== =========================================

A unit that stays silent is BadTimeout; digits or text that cannot be decoded are BadDecodingError.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from headrace.model import status as codes

BAD_RESOURCE_UNAVAILABLE: Final = 0x8004_0000  # OPC 10000-6, Annex A.2
BAD_DECODING_ERROR: Final = 0x8007_0000

ILLEGAL_FUNCTION: Final = 1
ILLEGAL_ADDRESS: Final = 2
ILLEGAL_VALUE: Final = 3
DEVICE_FAILURE: Final = 4


class Meaning(NamedTuple):
    """A Modbus exception: the standard's name, our status, and what to do."""

    text: str
    status: int
    remedy: str


MEANINGS: Final[dict[int, Meaning]] = {
    1: Meaning(
        "illegal function", codes.BAD_NOT_SUPPORTED, "The device lacks this table or function."
    ),
    2: Meaning("illegal data address", codes.BAD_NODE_ID_UNKNOWN, "Check the register map."),
    3: Meaning(
        "illegal data value", codes.BAD_OUT_OF_RANGE, "Check the register map and registers_max."
    ),
    4: Meaning("server device failure", codes.BAD_DEVICE_FAILURE, "Look at the device."),
    5: Meaning("acknowledge", BAD_RESOURCE_UNAVAILABLE, "The device is busy; wait."),
    6: Meaning("server device busy", BAD_RESOURCE_UNAVAILABLE, "The device is busy; wait."),
    8: Meaning("memory parity error", codes.BAD_DEVICE_FAILURE, "Look at the device."),
    10: Meaning("gateway path unavailable", codes.BAD_COMMUNICATION_ERROR, "Check the gateway."),
    11: Meaning(
        "gateway target failed to respond",
        codes.BAD_NOT_CONNECTED,
        "Check the unit number and the unit's wiring.",
    ),
}


def meaning(code: int) -> Meaning:
    """What the exception code means.

    Example:
        >>> meaning(2).text
        'illegal data address'
    """
    unknown = Meaning(
        "an exception of its own", codes.BAD_UNEXPECTED_ERROR, "See the device's manual."
    )
    return MEANINGS.get(code, unknown)
