"""An operations request (IEC 62264-2 / ISA-95 part 2, operations schedule): what operations are asked to do.

It travels on ``v1.<enterprise>.<site>.order.<id>`` (stream ORDERS). Words are those of the standard and of
B2MML's ``OperationsRequest``, in this platform's spelling.
"""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

import msgspec

from headrace.model.errors import Misconfigured
from headrace.model.ids import NAME

OperationsType = Literal["production", "maintenance", "quality", "inventory", "mixed"]
OPERATIONS_TYPES: Final = ("production", "maintenance", "quality", "inventory", "mixed")
BODY_BYTES_MAX: Final = 64 * 1024
_PLACE: Final = re.compile(r"(?:[A-Za-z0-9_-]{1,64}(?:/[A-Za-z0-9_-]{1,64}){0,7})?", re.ASCII)
Text = Annotated[str, msgspec.Meta(max_length=500)]


class OperationsRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One request.

    Attributes:
        id: unlike all others; a second one with it is refused.
        operations_type: what kind of operations. description: for people.
        equipment: path of its hierarchy scope; empty: the whole site.
        operations_definition_id: what is to be done, in the asker's own words; may be empty.
        priority: 0 the highest; 9 the lowest. start_us, end_us: when; UTC microseconds, 0 not said.
        parameters: name -> value, as the definition knows them.
        work_request: id of the proposal of an app that it came of; empty: of none.
        asked_by: who sent it. at_us: when it was sent.
    """

    id: str
    operations_type: OperationsType
    description: Text = ""
    equipment: Text = ""
    operations_definition_id: Text = ""
    priority: Annotated[int, msgspec.Meta(ge=0, le=9)] = 5
    start_us: int = 0
    end_us: int = 0
    parameters: dict[str, float | str | bool] = {}
    work_request: Text = ""
    asked_by: Text = ""
    at_us: int = 0

    def check(self) -> None:
        """Whether it can be sent.

        Raises:
            Misconfigured: APPS-2285 naming the field.

        Example:
            >>> OperationsRequest(
            ...     id="r-1", operations_type="maintenance", equipment="a/b", description="Look at it"
            ... ).check()
        """
        wrong = ""
        if not NAME.match(self.id):
            wrong = f"id {self.id[:80]!r}: 1 to 64 of A-Z a-z 0-9 _ and -"
        elif not _PLACE.fullmatch(self.equipment):
            wrong = f"equipment {self.equipment[:80]!r}: a path such as utilities/pumping/pump_1"
        elif self.end_us and self.end_us < self.start_us:
            wrong = "end_us: it is before start_us"
        elif not (self.description.strip() or self.operations_definition_id.strip()):
            wrong = "description: say what is to be done, here or by operations_definition_id"
        elif len(msgspec.json.encode(self)) > BODY_BYTES_MAX:
            wrong = f"parameters: the whole has more than {BODY_BYTES_MAX:,} bytes"
        if wrong:
            raise Misconfigured(
                "APPS-2285", f"the operations request is wrong in {wrong}", "Correct that field."
            )

    def concerns(self, path: str) -> bool:
        """Whether it is about equipment: about that itself, what it is part of, or a part of it.

        Example:
            >>> order = OperationsRequest(id="r-1", operations_type="quality", equipment="a/b")
            >>> order.concerns("a"), order.concerns("a/b/c"), order.concerns("a/bc")
            (True, True, False)
        """
        own = f"{self.equipment}/" if self.equipment else ""
        return f"{path}/".startswith(own) or own.startswith(f"{path}/")
