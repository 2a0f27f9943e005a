"""Runs the hooks of one app: samples and moments in, effects out; no clock, no connection, no thread.

The app's process and the bench drive the same executor. What it gives depends on what it was given, not on
how that was cut: samples may come in any order and twice as long as each is in before its window is due.
``save`` is all that it knows between two calls; a new executor made of that goes on as if nothing had been,
when it is fed again what came after ``replay_after``.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any, Final, get_type_hints

import msgspec
import numpy as np
import polars as pl

from headrace.app.context import Context, State, Window
from headrace.app.hooks import Hook, hooks_of
from headrace.app.records import AlarmChange, Asset, Order, Trained
from headrace.apps.models.baseline import Sight
from headrace.apps.runtime.arrivals import Arrivals
from headrace.apps.runtime.due import Due, due_calls
from headrace.apps.runtime.effects import Effects, Problem, merged
from headrace.apps.runtime.frames import Shape, output_samples
from headrace.apps.runtime.hands import Doing, Doors, NoDoors
from headrace.apps.runtime.rehearsal import Call, OnlyPast, Scoring, rehearsed, sight_of
from headrace.apps.runtime.shelf import ModelSource, PlainShelf, Shelf, Use
from headrace.apps.runtime.store import Store
from headrace.model.app_manifest import AppManifest
from headrace.model.decoding import UNREADABLE
from headrace.model.deployment import AppDeployment, BoundAsset
from headrace.model.errors import Corrupt, HeadraceError, Misconfigured, Refused, Terminal
from headrace.model.sample import Int64Array, microseconds

STATE_VERSION: Final = 1
STATE_BYTES_MAX: Final = 4 << 20


class Saved(msgspec.Struct, kw_only=True):
    """What an executor knows between two calls.

    Attributes:
        to_us: source time up to which hooks ran. start_us: after which the first one was due.
        sequence: see ``replay_after``. event_sequence: every change of alarm up to it was told;
            order_sequence: every operations request. states: hook -> its state.
        held: Arrow stream of the newest sample of each tag before the windows to come.
        arrived: the same of when samples came, where a hook asks for that.
    """

    version: int = STATE_VERSION
    to_us: int
    start_us: int = 0
    sequence: int = 0
    event_sequence: int = 0
    order_sequence: int = 0
    states: dict[str, State] = {}
    held: bytes = b""
    arrived: bytes = b""


def begun_anew(state: bytes, at_us: int, after: int) -> bytes:
    """A state whose hooks are due after another time and which has no samples yet; what hooks keep stays.

    Args:
        after: the newest message of the log before those that it is fed.

    Raises:
        Corrupt: APPS-2210 when the state is none of ours.
    """
    states = _decoded(state).states if state else {}
    saved = Saved(to_us=at_us, start_us=at_us, sequence=after, states=states)
    return msgspec.msgpack.encode(saved, order="sorted")


class Executor:
    """One app on its assets.

    Args:
        manifest: of the app. module: its Python, imported.
        deployment: its assets with their tags. state: what :meth:`save` of an earlier one gave.
        start_us: without a state, hooks are due after it; 0: after the first :meth:`advance`.
        after: without a state, the newest message of the log before those that it is fed.
        doors: to the historian and other apps' services. models: see :mod:`.shelf`.

    Raises:
        Misconfigured: APPS-2203 two hooks with one name, APPS-2208 a unit that cannot be converted,
            APPS-2209 a hook names what the manifest does not.
        Corrupt: APPS-2210 when the state is none of ours.

    Attributes:
        to_us: source time up to which hooks ran; 0 none yet.
        event_sequence, order_sequence: of the newest change of alarm, and operations request, told.
    """

    def __init__(
        self,
        manifest: AppManifest,
        module: ModuleType,
        deployment: AppDeployment,
        state: bytes = b"",
        *,
        start_us: int = 0,
        after: int = 0,
        doors: Doors | None = None,
        models: ModelSource | Shelf = lambda name: None,
    ) -> None:
        self.manifest = manifest
        self._deployment = deployment
        self._doors = doors or NoDoors()
        self._shelf = models if isinstance(models, Shelf) else PlainShelf(models)
        self._hooks = hooks_of(module)
        check_hooks(manifest, self._hooks)
        by_type = {
            name: [asset for asset in deployment.assets if asset.type == name]
            for name in manifest.types
        }
        self._shapes = {name: Shape(manifest, name, found) for name, found in by_type.items()}
        self._assets = {name: tuple(map(self._shown, by_type[name])) for name in by_type}
        self._longest_us = max((hook.length_us for hook in self._spans()), default=0)
        self._latest_us = max((hook.lateness_us for hook in self._spans()), default=0)
        saved = (
            _decoded(state) if state else Saved(to_us=start_us, start_us=start_us, sequence=after)
        )
        self.to_us, self.event_sequence = saved.to_us, saved.event_sequence
        self.order_sequence = saved.order_sequence
        self._start_us = saved.start_us
        self._states = saved.states
        self._replay_after = self._fed = saved.sequence
        # What came after this message -> its newest source time; forgotten with the samples.
        self._marks: dict[int, int] = {}
        tags = sorted(set().union(*(shape.tag_ids for shape in self._shapes.values())))
        held = pl.read_ipc_stream(saved.held) if saved.held else None
        self._store = Store(np.array(tags, np.int64), held)
        self._arrivals = self._new_arrivals(saved.arrived)
        self._log = logging.getLogger(f"headrace.app.{manifest.word}")

    # -- what comes in --------------------------------------------------------------------------

    def feed(self, batch: pl.DataFrame, sequence: int = 0) -> Effects:
        """Take samples; those of other tags are left aside. Nothing is done for them yet.

        Args:
            batch: columns of :data:`headrace.model.sample.SCHEMA`.
            sequence: of the newest message of the log that they are of.
        """
        taken = self._store.put(batch)
        if self._arrivals is not None:
            self._arrivals.put(taken)
        if sequence and taken.height:
            # The batch may be of several messages: it begins after the one that was the newest before.
            after = min(self._fed, sequence - 1)
            newest_us = self._newest_us(taken)
            self._marks[after] = max(newest_us, self._marks.get(after, newest_us))
        self._fed = max(self._fed, sequence)
        return Effects()

    def advance(self, to_us: int) -> Effects:
        """Run every hook that is due up to a source time, in the order in which they are due."""
        done = []
        if not self.to_us:
            self.to_us = self._start_us = to_us
        for due in due_calls(self._hooks, self.to_us, to_us, self._deployment.calendar):
            done.append(self._run(due))
        self.to_us = max(self.to_us, to_us)
        self._forget()
        return merged(done)

    def tell(self, told: AlarmChange | Order, sequence: int = 0) -> Effects:
        """Run the hooks of an alarm that changed or an order that came; one that was told is not again.

        Args:
            sequence: of its message, changes of alarms and orders each by themselves; 0: there is none.
        """
        is_order = isinstance(told, Order)
        if sequence and sequence <= (self.order_sequence if is_order else self.event_sequence):
            return Effects()
        done = []
        types = {asset.path: asset.type for asset in self._deployment.assets}
        for hook in self._hooks:
            if isinstance(told, Order):
                wanted = hook.kind == "order"
            else:
                own = types.get(told.asset) == hook.type and hook.alarm in ("", told.name)
                wanted = hook.kind == "alarm" and own
            if wanted:
                doing = self._doing(hook, told.at_us, told.id)
                context = Context(**self._told(hook, told.at_us, doing))
                done.append(self._guarded(hook, doing, context, told, context))
        if is_order:
            self.order_sequence = max(sequence, self.order_sequence)
        else:
            self.event_sequence = max(sequence, self.event_sequence)
        return merged(done)

    def serve(self, name: str, body: bytes, at_us: int, call_id: str = "") -> tuple[bytes, Effects]:
        """Answer a question.

        Args:
            name: of the service. body: the request as JSON. call_id: unlike those of other calls.

        Raises:
            Misconfigured: APPS-2214 no such service, APPS-2215 the request is not of its type.
            Terminal: APPS-2216 when the app failed at it.
        """
        hook = next((h for h in self._hooks if (h.kind, h.name) == ("service", name)), None)
        if hook is None:
            raise Misconfigured(
                "APPS-2214", f"{self.manifest.id} has no service {name!r}", "Look at its page."
            )
        doing = self._doing(hook, at_us, call_id)
        context = Context(**self._told(hook, at_us, doing))
        request = _request(hook, body)
        answer = _called(hook, request, context)
        self._keep_state(hook, context)
        return msgspec.json.encode(answer), doing.effects

    def trains(self, model: str) -> Hook:
        """The hook that trains a model.

        Raises:
            Misconfigured: APPS-2217 when the app trains no such model.
        """
        hook = next((h for h in self._hooks if (h.kind, h.model) == ("train", model)), None)
        if hook is None:
            raise Misconfigured(
                "APPS-2217",
                f"{self.manifest.id} trains no model {model!r}",
                "Look at its manifest.",
            )
        return hook

    def sight(self, model: str, type: str) -> Sight | None:
        """The windows in which a model sees assets of a type; None when no hook scores them with it."""
        hook = next((h for h in self._hooks if is_score(h, model, type)), None)
        return sight_of(hook) if hook is not None else None

    def train(self, model: str, history: pl.DataFrame, at_us: int, asset: str = "") -> Trained:
        """Train a model.

        Args:
            history: handed to the app as it is. asset: path of the one that it is for; empty: for all.

        Raises:
            Misconfigured: APPS-2217 when the app trains no such model.
            Terminal: APPS-2216 when the app failed at it.
        """
        hook = self.trains(model)
        told = self._told(hook, at_us, self._doing(hook, at_us, ""))
        if asset:
            told["assets"] = tuple(each for each in told["assets"] if each.path == asset)
        context = Context(**told)
        trained = _called(hook, history, context)
        if not isinstance(trained, Trained):
            raise Terminal(
                "APPS-2216", f"{hook.name} gave {type(trained).__name__}", "Return app.Trained."
            )
        return trained

    # -- what is kept ---------------------------------------------------------------------------

    @property
    def tag_ids(self) -> Int64Array:
        """All tags that it reads, sorted."""
        return self._store.tag_ids

    @property
    def wants_alarms(self) -> bool:
        """Whether a hook is told of alarms."""
        return any(hook.kind == "alarm" for hook in self._hooks)

    @property
    def wants_orders(self) -> bool:
        """Whether a hook is told of operations requests."""
        return any(hook.kind == "order" for hook in self._hooks)

    @property
    def past_span_us(self) -> tuple[int, int] | None:
        """``[start, end)`` of what was before the app's first hook and windows to come still look at: feed
        that too, before all else; None when there is nothing."""
        span = (self.horizon_us, self._start_us)
        return span if len(self.tag_ids) and span[0] < span[1] else None

    @property
    def horizon_us(self) -> int:
        """No window to come begins before it."""
        return self.to_us - self._latest_us - self._longest_us

    @property
    def replay_after(self) -> int:
        """A new executor with this one's state needs what came after this sequence."""
        return min(self._marks, default=self._fed)

    def save(self) -> bytes:
        """All that is needed to go on; see the module.

        Raises:
            Terminal: APPS-2218 when the hooks keep too much.
        """
        held = self._store.held(self.horizon_us)
        saved = Saved(
            to_us=self.to_us,
            start_us=self._start_us,
            sequence=self.replay_after,
            event_sequence=self.event_sequence,
            order_sequence=self.order_sequence,
            states=self._states,
            held=_arrow(held) if held.height else b"",
            arrived=self._arrivals.held(self.horizon_us) if self._arrivals is not None else b"",
        )
        raw = msgspec.msgpack.encode(saved, order="sorted")
        if len(raw) > STATE_BYTES_MAX:
            raise Terminal(
                "APPS-2218",
                f"the state of {self.manifest.id} has {len(raw):,} bytes, of {STATE_BYTES_MAX:,}",
                "Keep less in the state of its hooks; long series belong into outputs.",
            )
        return raw

    # -- one hook -------------------------------------------------------------------------------

    def _run(self, due: Due) -> Effects:
        hook = self._hooks[due.place]
        doing = self._doing(hook, due.at_us, str(due.at_us))
        if hook.kind == "schedule":
            context = Context(**self._told(hook, due.at_us, doing))
            return self._guarded(hook, doing, context, context)
        if not self._assets[hook.type]:
            return Effects()
        champions = self._shelf.uses(hook.model) if hook.kind == "score" else []
        if hook.always and all(each.asset for each in champions):
            champions = [*champions, Use(None)]  # those that have no model are asked about too
        if hook.kind == "score" and not champions:
            return Effects()
        start_us = due.at_us - hook.length_us
        count = hook.length_us // hook.step_us
        told = self._told(hook, due.at_us, doing) | {"assets": self._assets[hook.type]}
        frame = self._shapes[hook.type].frame(self._store, start_us, hook.step_us, count)
        window = Window(**told, frame=frame, type=hook.type, start_us=start_us, end_us=due.at_us)
        if hook.arrivals and self._arrivals is not None:
            assets = self._shapes[hook.type].assets
            window.arrivals = self._arrivals.table(assets, start_us, due.at_us)
        if champions:
            return self._scored(hook, due, window, champions)
        return self._guarded(hook, doing, window, window, due=due)

    def _scored(self, hook: Hook, due: Due, window: Window, champions: Sequence[Use]) -> Effects:
        """The champions on their assets, the challengers beside them, and the drift of what both see."""
        challengers = self._shelf.uses(hook.model, "challenger")
        scoring = Scoring(hook, champions, challengers, window, self._shapes[hook.type].assets)
        done = []
        for call in scoring.calls():
            doors = OnlyPast(self._doors) if call.is_shadow else self._doors
            what = f"{due.at_us}/{call.use.asset}" if call.use.asset else str(due.at_us)
            doing = Doing(self.manifest, self._deployment, doors, hook, due.at_us, what)
            told = self._told(hook, due.at_us, doing, call.state)
            given = scoring.window(call, told)
            found = self._guarded(hook, doing, given, given, call.use.model, due=due, call=call)
            done.append(found if not call.is_shadow else rehearsed(found, call, hook))
        self._states = {key: s for key, s in self._states.items() if not scoring.is_stale(key)}
        if not self._is_first(hook):  # a model has one drift, whatever else scores with it
            return merged(done)
        drift = scoring.drift(self._states, due.due_us)
        return merged([*done, Effects(samples=drift)] if drift.height else done)

    def _is_first(self, hook: Hook) -> bool:
        return next(h for h in self._hooks if is_score(h, hook.model, hook.type)) is hook

    def _guarded(
        self,
        hook: Hook,
        doing: Doing,
        context: Context,
        *given: Any,
        due: Due | None = None,
        call: Call | None = None,
    ) -> Effects:
        """Call a hook; when it fails, what it did in this call is undone and told."""
        done = doing.effects
        done.calls = 1
        try:
            result = _called(hook, *given)
            if due is not None and result is not None:
                done.samples = self._samples(hook, result, due, call)
            self._keep_state(hook, context, call.state if call is not None else "")
        except HeadraceError as error:
            self._log.error("%s", error, exc_info=error.__cause__)
            told = Problem(
                code=error.code,
                what=error.what,
                remedy=error.remedy,
                hook=hook.name,
                at_us=context.at_us,
            )
            return Effects(problems=[told], calls=1)
        return done

    def _samples(self, hook: Hook, result: object, due: Due, call: Call | None) -> pl.DataFrame:
        outputs = {each.name: each for each in self.manifest.outputs if each.type == hook.type}
        span_us = (due.at_us - hook.length_us, due.at_us)
        assets = self._shapes[hook.type].assets if call is None else call.bound
        return output_samples(result, outputs, assets, span_us, due.due_us)

    def _keep_state(self, hook: Hook, context: Context, key: str = "") -> None:
        try:
            # Through its encoding each time: a restart then changes nothing, not even a tuple to a list.
            raw = msgspec.msgpack.encode(context.state)
            self._states[key or hook.name] = msgspec.msgpack.decode(raw, type=State)
        except (TypeError, OverflowError, *UNREADABLE) as error:
            raise Terminal(
                "APPS-2219",
                f"the state of {hook.name} cannot be kept: {error}",
                "Keep numbers, texts, lists and dicts with texts as keys only.",
            ) from error

    def _doing(self, hook: Hook, at_us: int, what: str) -> Doing:
        return Doing(self.manifest, self._deployment, self._doors, hook, at_us, what)

    def _told(self, hook: Hook, at_us: int, doing: Doing, key: str = "") -> dict[str, Any]:
        raw = msgspec.msgpack.encode(self._states.get(key or hook.name, {}))
        every = tuple(asset for found in self._assets.values() for asset in found)
        return {
            "at_us": at_us,
            "assets": every,
            "settings": dict(self._deployment.settings),
            "state": msgspec.msgpack.decode(raw, type=State),
            "log": self._log,
            "hands": doing,
            "calendar": self._deployment.calendar,
        }

    def _new_arrivals(self, kept: bytes) -> Arrivals | None:
        """Of the tags of those types whose hooks ask for it; None where none does."""
        types = {hook.type for hook in self._hooks if hook.arrivals}
        tags = sorted(set().union(*(self._shapes[each].tag_ids for each in types)))
        return Arrivals(np.array(tags, np.int64), kept) if types else None

    def _newest_us(self, taken: pl.DataFrame) -> int:
        """The time until which these samples are needed, should this executor be made anew."""
        newest_us = int(microseconds(taken["source_timestamp"]).max())
        if self._arrivals is None:
            return newest_us
        return max(newest_us, int(microseconds(taken["received_timestamp"]).max()))

    def _spans(self) -> list[Hook]:
        return [hook for hook in self._hooks if hook.length_us]

    def _forget(self) -> None:
        horizon_us = self.horizon_us
        self._store.forget(horizon_us)
        if self._arrivals is not None:
            self._arrivals.forget(horizon_us)
        for sequence in [s for s, newest in self._marks.items() if newest <= horizon_us]:
            del self._marks[sequence]

    def _shown(self, bound: BoundAsset) -> Asset:
        return Asset(
            path=bound.path,
            type=bound.type,
            title=bound.title,
            title_zh=bound.title_zh,
            attributes=bound.attributes,
            settings={**self._deployment.settings, **bound.settings},
            relations=bound.relations,
        )


def is_score(hook: Hook, model: str, type: str) -> bool:
    """Whether a hook scores assets of a type with a model; the first such one watches its drift."""
    return (hook.kind, hook.model, hook.type) == ("score", model, type)


def check_hooks(manifest: AppManifest, hooks: Sequence[Hook]) -> None:
    """Whether the Python and the manifest of an app fit together.

    Raises:
        Misconfigured: APPS-2209 naming the hook, or what has none.
    """
    services = {service.name for service in manifest.services}
    known: Mapping[str, tuple[set[str], Callable[[Hook], str]]] = {
        "type": (set(manifest.types), lambda hook: hook.type),
        "model": (set(manifest.models), lambda hook: hook.model),
        "service": (services, lambda hook: hook.name if hook.kind == "service" else ""),
    }
    for what, (names, of) in known.items():
        for hook in hooks:
            if of(hook) and of(hook) not in names:
                raise Misconfigured(
                    "APPS-2209",
                    f"{hook.kind} {hook.name} is for {what} {of(hook)!r}, which app.toml does not name",
                    f"It names {', '.join(sorted(names)) or 'none'}.",
                )
    if any(hook.kind == "order" for hook in hooks) and not manifest.permissions.orders:
        raise Misconfigured(
            "APPS-2209",
            "a hook is told of operations requests, which app.toml does not ask for",
            "Write below [permissions]: orders = true",
        )
    lacking = services - {hook.name for hook in hooks if hook.kind == "service"}
    if lacking:
        raise Misconfigured(
            "APPS-2209",
            f"app.toml names the service {min(lacking)!r}, which no function is",
            "Write @app.service above the function of that name.",
        )


def _called(hook: Hook, *given: Any) -> Any:
    """What the app's function gives; what it raises becomes an error of ours."""
    try:
        return hook.function(*given)
    except HeadraceError:
        raise
    except PermissionError as error:
        raise Refused(
            "APPS-2224",
            f"{hook.kind} {hook.name} tried what its manifest does not declare: {error}",
            "An app reads its own folder and connects where permissions.network says, nothing else.",
        ) from error
    except Exception as error:
        raise Terminal(
            "APPS-2216",
            f"{hook.kind} {hook.name} failed: {type(error).__name__}: {error}",
            "See the app's log; whoever wrote the app can tell.",
        ) from error


def _request(hook: Hook, body: bytes) -> Any:
    kind = request_type(hook)
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except UNREADABLE as error:
        raise Misconfigured(
            "APPS-2215", f"the request of {hook.name} is wrong: {error}", "Correct the field."
        ) from error


def request_type(hook: Hook) -> Any:
    """The type of a service's first argument.

    Raises:
        Misconfigured: APPS-2209 when it says none.
    """
    hints = get_type_hints(hook.function, include_extras=True)
    names = [name for name in hints if name != "return"]
    if not names or "return" not in hints:
        raise Misconfigured(
            "APPS-2209",
            f"service {hook.name} does not say the types of its request and answer",
            "Write: def name(request: Request, context: app.Context) -> Answer.",
        )
    return hints[names[0]]


def _decoded(state: bytes) -> Saved:
    try:
        saved = msgspec.msgpack.decode(state, type=Saved)
    except UNREADABLE as error:
        raise Corrupt("APPS-2210", f"{len(state)} bytes are not the state of an app") from error
    if saved.version != STATE_VERSION:
        raise Corrupt("APPS-2210", f"the state of an app is of version {saved.version}")
    return saved


def _arrow(rows: pl.DataFrame) -> bytes:
    body = io.BytesIO()
    rows.write_ipc_stream(body, compression="lz4")
    return body.getvalue()
