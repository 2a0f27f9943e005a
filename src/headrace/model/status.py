"""OPC UA StatusCodes as the platform keeps them: the 32 bits unchanged (OPC 10000-4, 7.39).

::

     31 30 | 29 28 | 27 ......... 16 | 15 14 | 13 12 11 10 | 9 .. 0
    severity reserved    SubCode       flags    InfoType       InfoBits

Severity 00 is Good, 01 Uncertain, 10 and 11 Bad.
"""

from __future__ import annotations

from typing import Final

GOOD: Final = 0x0000_0000
GOOD_CLAMPED: Final = 0x0030_0000
GOOD_LOCAL_OVERRIDE: Final = 0x0096_0000
GOOD_NO_DATA: Final = 0x00A5_0000
UNCERTAIN: Final = 0x4000_0000
UNCERTAIN_LAST_USABLE_VALUE: Final = 0x4090_0000
UNCERTAIN_SUBSTITUTE_VALUE: Final = 0x4091_0000
UNCERTAIN_SENSOR_NOT_ACCURATE: Final = 0x4093_0000
UNCERTAIN_SUB_NORMAL: Final = 0x4095_0000
UNCERTAIN_INITIAL_VALUE: Final = 0x4092_0000
UNCERTAIN_DATA_SUB_NORMAL: Final = 0x40A4_0000
BAD: Final = 0x8000_0000
BAD_UNEXPECTED_ERROR: Final = 0x8001_0000
BAD_COMMUNICATION_ERROR: Final = 0x8005_0000
BAD_NO_COMMUNICATION: Final = 0x8031_0000
BAD_TIMEOUT: Final = 0x800A_0000
BAD_WAITING_FOR_INITIAL_DATA: Final = 0x8032_0000
BAD_NODE_ID_INVALID: Final = 0x8033_0000
BAD_NODE_ID_UNKNOWN: Final = 0x8034_0000
BAD_NOT_READABLE: Final = 0x803A_0000
BAD_OUT_OF_RANGE: Final = 0x803C_0000
BAD_NOT_SUPPORTED: Final = 0x803D_0000
BAD_NOT_FOUND: Final = 0x803E_0000
BAD_TYPE_MISMATCH: Final = 0x8074_0000
BAD_CONFIGURATION_ERROR: Final = 0x8089_0000
BAD_NOT_CONNECTED: Final = 0x808A_0000
BAD_DEVICE_FAILURE: Final = 0x808B_0000
BAD_SENSOR_FAILURE: Final = 0x808C_0000
BAD_OUT_OF_SERVICE: Final = 0x808D_0000
BAD_NO_DATA: Final = 0x809B_0000
BAD_NO_ENTRY_EXISTS: Final = 0x80A0_0000

RETRACTED: Final = BAD_NO_ENTRY_EXISTS
"""A sample that took back an earlier one of the same tag and source time: there is none any more. It has
neither value nor text; readers leave it out. Sources do not send it: it answers updates of a history
(OPC 10000-11, 6.8)."""

# OPC 10000-11 (Historical Access): how an aggregate value was made; the low bits of InfoType 01.
HISTORIAN_RAW: Final = 0x0400
HISTORIAN_CALCULATED: Final = 0x0401
HISTORIAN_INTERPOLATED: Final = 0x0402
HISTORIAN_PARTIAL: Final = 0x0404
HISTORIAN_EXTRA_DATA: Final = 0x0408
HISTORIAN_MULTI_VALUE: Final = 0x0410

NAMES: Final[dict[int, str]] = {
    GOOD: "Good",
    GOOD_CLAMPED: "GoodClamped",
    GOOD_LOCAL_OVERRIDE: "GoodLocalOverride",
    GOOD_NO_DATA: "GoodNoData",
    UNCERTAIN: "Uncertain",
    UNCERTAIN_LAST_USABLE_VALUE: "UncertainLastUsableValue",
    UNCERTAIN_SUBSTITUTE_VALUE: "UncertainSubstituteValue",
    UNCERTAIN_SENSOR_NOT_ACCURATE: "UncertainSensorNotAccurate",
    UNCERTAIN_SUB_NORMAL: "UncertainSubNormal",
    UNCERTAIN_INITIAL_VALUE: "UncertainInitialValue",
    UNCERTAIN_DATA_SUB_NORMAL: "UncertainDataSubNormal",
    BAD: "Bad",
    BAD_UNEXPECTED_ERROR: "BadUnexpectedError",
    BAD_COMMUNICATION_ERROR: "BadCommunicationError",
    BAD_NO_COMMUNICATION: "BadNoCommunication",
    BAD_TIMEOUT: "BadTimeout",
    BAD_WAITING_FOR_INITIAL_DATA: "BadWaitingForInitialData",
    BAD_NODE_ID_INVALID: "BadNodeIdInvalid",
    BAD_NODE_ID_UNKNOWN: "BadNodeIdUnknown",
    BAD_NOT_READABLE: "BadNotReadable",
    BAD_OUT_OF_RANGE: "BadOutOfRange",
    BAD_NOT_SUPPORTED: "BadNotSupported",
    BAD_NOT_FOUND: "BadNotFound",
    BAD_TYPE_MISMATCH: "BadTypeMismatch",
    BAD_CONFIGURATION_ERROR: "BadConfigurationError",
    BAD_NOT_CONNECTED: "BadNotConnected",
    BAD_DEVICE_FAILURE: "BadDeviceFailure",
    BAD_SENSOR_FAILURE: "BadSensorFailure",
    BAD_OUT_OF_SERVICE: "BadOutOfService",
    BAD_NO_DATA: "BadNoData",
    BAD_NO_ENTRY_EXISTS: "BadNoEntryExists",
}


def is_good(status: int) -> bool:
    """True when the severity bits say Good.

    Example:
        >>> is_good(GOOD_CLAMPED), is_good(UNCERTAIN)
        (True, False)
    """
    return status >> 30 == 0


def is_uncertain(status: int) -> bool:
    """True when the severity bits say Uncertain."""
    return status >> 30 == 1


def is_bad(status: int) -> bool:
    """True when the severity bits say Bad (10, and the reserved 11)."""
    return status >> 30 >= 2


def severity(status: int) -> str:
    """``"Good"``, ``"Uncertain"`` or ``"Bad"``.

    Example:
        >>> severity(0x80340000)
        'Bad'
    """
    return ("Good", "Uncertain", "Bad", "Bad")[status >> 30]


def name(status: int) -> str:
    """The standard's name where we know it, else severity and the code in hex.

    Example:
        >>> name(0x80340000), name(0x80990000)
        ('BadNodeIdUnknown', 'Bad 0x80990000')
    """
    known = NAMES.get(status & 0xFFFF_0000)
    return known or f"{severity(status)} 0x{status:08X}"
