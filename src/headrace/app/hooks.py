"""The declarations of an app: each decorator leaves on its function when the runtime calls it.

Nothing runs and nothing is registered when a module is imported; :func:`hooks_of` looks a module through.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final, Literal, TypeVar

import msgspec

from headrace.app.durations import duration_us, minute_of_day
from headrace.model.errors import Misconfigured

HookKind = Literal["window", "score", "alarm", "schedule", "order", "service", "train"]
F = TypeVar("F", bound=Callable[..., Any])
_MARK: Final = "__headrace_hooks__"
STEPS_MAX: Final = 1_000_000
LATENESS: Final = "2 s"


class Declared(msgspec.Struct, frozen=True, kw_only=True):
    """One declaration, as plain data.

    Attributes:
        name: of the function.
        type: needed type of a window, score or alarm. model: of a train or score.
        alarm: its name; empty: each alarm of the type.
        length_us, every_us, step_us, lateness_us: of a window or score; ``every_us`` of a schedule too.
        per_asset: of a train: once for each asset too.
        minute: of the day of a schedule by the plant's clock; -1 where it is none.
        arrivals: a window tells how its samples came, too.
        always: a score is called without a model too.
    """

    kind: HookKind
    name: str
    type: str = ""
    model: str = ""
    alarm: str = ""
    length_us: int = 0
    every_us: int = 0
    step_us: int = 0
    lateness_us: int = 0
    minute: int = -1
    per_asset: bool = False
    arrivals: bool = False
    always: bool = False


class Hook(Declared, frozen=True, kw_only=True):
    """One declaration with its function."""

    function: Callable[..., Any]


def _declare(function: F, hook: Hook) -> F:
    vars(function).setdefault(_MARK, []).append(hook)
    return function


def _span(
    kind: HookKind, function: Callable[..., Any], length: str, every: str, step: str, late: str
) -> dict[str, Any]:
    length_us, every_us, step_us = duration_us(length), duration_us(every), duration_us(step)
    if length_us % step_us or length_us // step_us > STEPS_MAX:
        raise Misconfigured(
            "APPS-2202",
            f"{kind} {function.__name__}: {length} cannot be cut into steps of {step}",
            f"Give a step that divides the length, at most {STEPS_MAX:,} times.",
        )
    late_us = duration_us(late) if late.strip() not in ("0", "0 s") else 0
    return {
        "kind": kind,
        "name": function.__name__,
        "function": function,
        "length_us": length_us,
        "every_us": every_us,
        "step_us": step_us,
        "lateness_us": late_us,
    }


def on_window(
    type: str,
    *,
    length: str,
    every: str,
    step: str = "1 s",
    lateness: str = LATENESS,
    arrivals: bool = False,
) -> Callable[[F], F]:
    """Call ``function(window)`` for all assets of a needed type at once, at each multiple of ``every``.

    Args:
        type: needed type, by the app's own name. length: of the window, which ends at that multiple.
        step: distance of its rows; each has the newest sample at or before it.
        lateness: how long samples are waited for; what comes later is in later windows only.
        arrivals: ``window.arrivals`` tells how the samples came, for apps that watch devices and clocks.

    Raises:
        Misconfigured: APPS-2201 no duration, APPS-2202 the step does not divide the length.

    Example:
        >>> @on_window("pump", length="15 min", every="1 min")
        ... def watch(window):
        ...     return window.frame.select("asset", "time", load="power")
    """

    def mark(function: F) -> F:
        told = _span("window", function, length, every, step, lateness)
        return _declare(function, Hook(type=type, arrivals=arrivals, **told))

    return mark


def score(
    model: str,
    *,
    type: str,
    length: str,
    every: str,
    step: str = "1 s",
    lateness: str = LATENESS,
    always: bool = False,
) -> Callable[[F], F]:
    """As :func:`on_window`, called as ``function(window, model)`` when the registry has the model.

    Args:
        always: call it with None for a model too, so that it can say that there is none yet.

    Raises:
        Misconfigured: as :func:`on_window`.
    """

    def mark(function: F) -> F:
        told = _span("score", function, length, every, step, lateness)
        return _declare(function, Hook(type=type, model=model, always=always, **told))

    return mark


def train(model: str, *, per_asset: bool = False) -> Callable[[F], F]:
    """Call ``function(history, context)`` when somebody trains the model; it gives ``Trained``.

    Args:
        per_asset: call it for all assets together, and then for each one alone, with the history of that
            one and it alone in ``context.assets``. Windows are scored with the asset's own model where it
            has one in use, else with that of all; where the function fails for an asset, it has none.
    """

    def mark(function: F) -> F:
        hook = Hook(
            kind="train",
            name=function.__name__,
            function=function,
            model=model,
            per_asset=per_asset,
        )
        return _declare(function, hook)

    return mark


def on_alarm(type: str, alarm: str = "") -> Callable[[F], F]:
    """Call ``function(change, context)`` when an alarm of an asset of the type changes.

    Args:
        alarm: name of it; empty: each one.
    """

    def mark(function: F) -> F:
        hook = Hook(kind="alarm", name=function.__name__, function=function, type=type, alarm=alarm)
        return _declare(function, hook)

    return mark


def on_schedule(when: str) -> Callable[[F], F]:
    """Call ``function(context)`` at each multiple of a duration, or each day at a time of the plant's clock.

    Args:
        when: ``1 h``, or ``06:00``.

    Raises:
        Misconfigured: APPS-2201 when it is neither.
    """

    def mark(function: F) -> F:
        minute = minute_of_day(when)
        hook = Hook(
            kind="schedule",
            name=function.__name__,
            function=function,
            every_us=0 if minute is not None else duration_us(when),
            minute=-1 if minute is None else minute,
        )
        return _declare(function, hook)

    return mark


def on_order(function: F) -> F:
    """Call ``function(order, context)`` when an operations request comes."""
    return _declare(function, Hook(kind="order", name=function.__name__, function=function))


def service(function: F) -> F:
    """Let people and other apps ask ``function(request, context)``; both types are ``msgspec.Struct``."""
    return _declare(function, Hook(kind="service", name=function.__name__, function=function))


def hooks_of(module: ModuleType) -> list[Hook]:
    """All declarations of a module and of the modules below it that it imported, by kind and name.

    Raises:
        Misconfigured: APPS-2203 when two functions of one kind have the same name.

    Example:
        >>> hooks_of(sys.modules["headrace.app.hooks"])
        []
    """
    below = f"{module.__name__}."
    modules = [module, *(m for name, m in sorted(sys.modules.items()) if name.startswith(below))]
    found: dict[tuple[str, str], Hook] = {}
    for each in modules:
        for value in list(vars(each).values()):
            for hook in getattr(value, "__dict__", {}).get(_MARK, ()):
                known = found.setdefault((hook.kind, hook.name), hook)
                if known is not hook:
                    raise Misconfigured(
                        "APPS-2203",
                        f"{module.__name__} has two hooks of kind {hook.kind} named {hook.name}",
                        "Give one of the functions another name.",
                    )
    return [found[key] for key in sorted(found)]
