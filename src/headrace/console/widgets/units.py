"""Units as people write them: the site file keeps UCUM symbols, the screen shows usual ones."""

from __future__ import annotations

import re
from typing import Final

_SHOWN: Final = {"Cel": "°C", "[degF]": "°F", "deg": "°", "Ohm": "Ω"}
_POWERS: Final = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


def shown_unit(unit: str) -> str:
    """A unit for the screen.

    Example:
        >>> shown_unit("m3/h"), shown_unit("Cel"), shown_unit("uS/cm"), shown_unit("1/min")
        ('m³/h', '°C', 'µS/cm', '1/min')
    """
    if unit in _SHOWN:
        return _SHOWN[unit]
    text = re.sub(r"(?<=[A-Za-z])(-?[0-9]+)", lambda found: found[1].translate(_POWERS), unit)
    return re.sub(r"\bu(?=[A-Z])|\bu(?=[mgs]\b)", "µ", text).replace(".", "·")
