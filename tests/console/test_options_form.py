"""The form of a connector's options: every shape, and back to what the connector takes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.console.draft import Draft
from headrace.console.options_form import answers_to_options, fields_of
from headrace.edge.catalog import connector_type, protocols
from headrace.edge.contract import BrowseItem
from headrace.model.errors import Misconfigured
from headrace.model.ids import check_path


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Settings.

    Attributes:
        mode: how it works,
            in two lines.
        unit_id, other: which unit.
    """

    mode: Literal["fast", "slow"] = "fast"
    unit_id: Annotated[int, msgspec.Meta(ge=0, le=255)] = 1
    other: int | None = None
    timeout_s: float = 1.5
    strict: bool = False
    names: tuple[str, ...] = ()
    title: str = ""
    deep: dict[str, list[int]] = {}


def test_every_shape_has_its_field() -> None:
    fields = {field.name: field for field in fields_of(Options)}
    kinds = {name: field.kind for name, field in fields.items()}
    assert kinds == {
        "mode": "choice",
        "unit_id": "integer",
        "other": "integer",
        "timeout_s": "number",
        "strict": "boolean",
        "names": "list",
        "title": "text",
        "deep": "json",
    }
    assert fields["mode"].choices == ("fast", "slow")
    assert (fields["unit_id"].minimum, fields["unit_id"].maximum) == (0, 255)
    assert fields["mode"].explained == "how it works, in two lines."
    assert fields["other"].explained == "which unit."


@given(
    st.sampled_from(["fast", "slow"]),
    st.integers(0, 255),
    st.floats(0.1, 60),
    st.booleans(),
    st.lists(st.text("abc:", min_size=1, max_size=5), max_size=4),
)
def test_answers_become_the_options_that_were_meant(
    mode: str, unit_id: int, timeout_s: float, strict: bool, names: list[str]
) -> None:
    answers: dict[str, Any] = {
        "mode": mode,
        "unit_id": str(unit_id),
        "timeout_s": repr(timeout_s),
        "strict": strict,
        "names": ", ".join(names),
    }
    options = answers_to_options(fields_of(Options), answers)
    made = msgspec.convert(options, Options)
    assert (made.mode, made.unit_id, made.timeout_s, made.strict) == (
        mode,
        unit_id,
        timeout_s,
        strict,
    )
    assert list(made.names) == names


@pytest.mark.parametrize(
    ("name", "answer"),
    [("unit_id", "256"), ("unit_id", "one"), ("mode", "never"), ("timeout_s", "x"), ("deep", "{")],
)
def test_an_answer_that_does_not_fit_is_refused(name: str, answer: str) -> None:
    with pytest.raises(Misconfigured, match="CONS-1011"):
        answers_to_options(fields_of(Options), {name: answer})


@pytest.mark.parametrize("protocol", protocols())
def test_an_untouched_form_changes_nothing_for_every_connector(protocol: str) -> None:
    fields = fields_of(connector_type(protocol).options)
    shown = {f.name: ", ".join(f.default) if f.kind == "list" else f.default for f in fields}
    assert answers_to_options([f for f in fields if f.kind != "json"], shown) == {}


@given(st.lists(st.text(max_size=12), max_size=12), st.sampled_from(["", "a/b", "a/b/c/"]))
def test_proposed_paths_are_valid_and_differ(names: list[str], base: str) -> None:
    draft = Draft(name="plc_1", base=base)
    for place, name in enumerate(names):
        draft.choose(BrowseItem(address=str(place), name=name, proposed_path=name[:4]))
    paths = [tag.path for tag in draft.tags.values()]
    assert len(set(paths)) == len(names)
    for path in paths:
        check_path(path, "tag")
    draft.rebase("x/y")
    assert all(tag.path.startswith("x/y/") for tag in draft.tags.values())
