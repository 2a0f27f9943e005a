"""Which assets of a site an app could serve, and what its names are there: proposed with reasons, asked where
that is not clear, never guessed.

::

    manifest ──► needed type ──► types of the site ──► each quantity ──► a name of the site, or a question
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

from headrace.apps.asset_types.catalog import NamedUnit, TypePackage
from headrace.model.app_manifest import AppManifest, NeededType
from headrace.site.app_assets import scale_of
from headrace.site.model import AssetType, SiteModel

SURE: Final = 0.6
"""From this confidence on a proposal is no question."""
NEAR: Final = 0.1
"""Two candidates nearer to each other than this are a question."""
WORST_OPTIONAL: Final = 0.8
Word = Literal["quantities", "optional", "attributes"]
_SPLIT: Final = re.compile(r"[\W_]+")


class Candidate(NamedTuple):
    """What a name could be on the site. ``confidence``: 0 to 1, with the reason for it."""

    name: str
    confidence: float
    reason: str


@dataclass(frozen=True, slots=True)
class NameProposal:
    """What one of an app's names is on the site.

    Attributes:
        word: under which the manifest has it. unit: of the manifest.
        chosen: the site's name; None when that is a question, or when an optional one is left out.
        candidates: best first.
    """

    name: str
    word: Word
    unit: str
    chosen: Candidate | None
    candidates: tuple[Candidate, ...] = ()

    @property
    def is_open(self) -> bool:
        """Somebody must say it."""
        return self.chosen is None and self.word != "optional"


@dataclass(frozen=True, slots=True)
class TypeProposal:
    """A type of the site for a needed type of the app. ``assets``: how many the site has of it."""

    needed: str
    type: str
    confidence: float
    reason: str
    assets: int
    names: tuple[NameProposal, ...] = ()


@dataclass(frozen=True, slots=True)
class Proposal:
    """What ``[app.ID]`` could be.

    Attributes:
        types: those to bind; several for one needed type where the site has several.
        unclear: needed type -> types of the site among which somebody must choose; none: there is nothing.
        absent: needed types of which the site has none, while it has others of the app's.
    """

    manifest: AppManifest
    types: tuple[TypeProposal, ...] = ()
    unclear: dict[str, tuple[TypeProposal, ...]] = field(default_factory=dict)
    absent: tuple[str, ...] = ()

    @property
    def questions(self) -> tuple[str, ...]:
        """What somebody must say before it can be written."""
        asked = []
        for needed, others in self.unclear.items():
            shown = ", ".join(each.type for each in others) or "none that fits"
            asked.append(f"which asset type is {needed}? ({shown})")
        for kind in self.types:
            for each in kind.names:
                if each.is_open:
                    shown = ", ".join(one.name for one in each.candidates) or "none that fits"
                    unit = f" in {each.unit}" if each.unit else ""
                    asked.append(
                        f"what is {kind.needed}.{each.name}{unit} of {kind.type}? ({shown})"
                    )
        return tuple(asked)

    def section(self) -> dict[str, Any]:
        """``[app.ID]`` as plain data, of all that is clear."""
        binds: dict[str, list[dict[str, Any]]] = {}
        for kind in self.types:
            table: dict[str, Any] = {"type": kind.type}
            for each in kind.names:
                if each.chosen is not None and each.chosen.name != each.name:
                    word = "attributes" if each.word == "attributes" else "quantities"
                    table.setdefault(word, {})[each.name] = each.chosen.name
            binds.setdefault(kind.needed, []).append(table)
        bind = {name: each[0] if len(each) == 1 else each for name, each in binds.items()}
        return {"version": self.manifest.version, "bind": bind}


def propose(
    model: SiteModel,
    manifest: AppManifest,
    types: Mapping[str, TypePackage],
    given: Mapping[str, str] | None = None,
) -> Proposal:
    """How an app could be bound to a site.

    Args:
        types: known kinds of assets, by id; see :func:`headrace.apps.asset_types.catalog.known_types`.
        given: what somebody said: ``pump`` or ``pump.flow`` -> the site's name.
    """
    given = given or {}
    found: list[TypeProposal] = []
    unclear: dict[str, tuple[TypeProposal, ...]] = {}
    for needed, kind in manifest.types.items():
        fitting = _Fitting(model, needed, kind, types.get(kind.package), given)
        candidates = sorted(
            (fitting.type(each) for each in model.asset_types),
            key=lambda each: -each.confidence,
        )
        chosen = _chosen(candidates)
        if chosen:
            found += chosen
        else:
            unclear[needed] = tuple(each for each in candidates if each.confidence > 0)[:5]
    found = _each_once(found)
    for needed in manifest.types:
        if needed not in unclear and all(each.needed != needed for each in found):
            unclear[needed] = ()
    absent = tuple(needed for needed in manifest.types if found and unclear.get(needed) == ())
    unclear = {needed: others for needed, others in unclear.items() if needed not in absent}
    return Proposal(manifest, tuple(found), unclear, absent)


def _each_once(found: list[TypeProposal]) -> list[TypeProposal]:
    """A type of the site is what it is most surely: what else it could be by its units alone is no proposal."""
    best: dict[str, float] = {}
    for each in found:
        best[each.type] = max(best.get(each.type, 0.0), each.confidence)
    return [each for each in found if each.confidence >= min(1.0, best[each.type])]


def _chosen(candidates: list[TypeProposal]) -> list[TypeProposal]:
    """Those that say themselves what they are, however many; else the one that is alone in front."""
    declared = [each for each in candidates if each.confidence >= 1.0]
    if declared:
        return declared
    if not candidates or candidates[0].confidence < SURE:
        return []
    rivals = [each.confidence for each in candidates[1:]]
    is_alone = all(candidates[0].confidence - each >= NEAR for each in rivals)
    return candidates[:1] if is_alone else []


class _Fitting:
    """One needed type against the types of a site."""

    def __init__(
        self,
        model: SiteModel,
        needed: str,
        kind: NeededType,
        package: TypePackage | None,
        given: Mapping[str, str],
    ) -> None:
        self._needed, self._kind, self._package, self._given = needed, kind, package, given
        self._model = model
        self._titles = _titles(model)

    def type(self, its: AssetType) -> TypeProposal:
        assets = sum(asset.type == its.name for asset in self._model.assets)
        names = tuple(self._names(its))
        confidence, reason = self._type_confidence(its, names)
        if not assets:
            confidence, reason = 0.0, "the site has no asset of it"
        return TypeProposal(self._needed, its.name, confidence, reason, assets, names)

    def _type_confidence(
        self, its: AssetType, names: tuple[NameProposal, ...]
    ) -> tuple[float, str]:
        said = self._given.get(self._needed)
        if said is not None:
            return (1.0, "you said so") if said == its.name else (0.0, "")
        if its.package:
            fits = its.package == self._kind.package
            return (1.0, f"it says that it is a {its.package}") if fits else (0.0, "")
        words = {plain(each) for each in (self._kind.package, self._needed)}
        if self._package is not None:
            words |= {plain(each) for each in self._package.names}
        needed = [each for each in names if each.word == "quantities"]
        share = sum(each.chosen is not None for each in needed) / max(len(needed), 1)
        called = (
            plain(its.name) in words or plain(its.title) in words or plain(its.title_zh) in words
        )
        if called:
            return 0.7 + 0.25 * share, f"{its.name} is a word for {self._kind.package}"
        return 0.6 * share, f"it has {round(100 * share)} % of what is needed"

    def _names(self, its: AssetType) -> Iterable[NameProposal]:
        """Best pairs first, so that a name of the site is used once."""
        wanted: list[tuple[Word, str, str]] = []
        for word in ("quantities", "optional", "attributes"):
            wanted += [(word, name, unit) for name, unit in getattr(self._kind, word).items()]
        every = {
            (word, name): self._candidates(its, word, name, unit) for word, name, unit in wanted
        }
        pairs = sorted(
            ((one, key) for key, found in every.items() for one in found),
            key=lambda pair: -pair[0].confidence,
        )
        taken: set[tuple[bool, str]] = set()
        chosen: dict[tuple[str, str], Candidate] = {}
        for one, key in pairs:
            place = key[0] == "attributes", one.name
            if key in chosen or place in taken or not _is_clear(one, every[key], key[0]):
                continue
            chosen[key] = one
            taken.add(place)
        for word, name, unit in wanted:
            found = tuple(every[word, name][:5])
            yield NameProposal(name, word, unit, chosen.get((word, name)), found)

    def _candidates(self, its: AssetType, word: Word, name: str, unit: str) -> list[Candidate]:
        said = self._given.get(f"{self._needed}.{name}")
        there = its.attributes if word == "attributes" else its.quantities
        if said is not None:
            return [Candidate(said, 1.0, "you said so")] if said in there else []
        fits = [other for other, its_unit in there.items() if scale_of(its_unit, unit) is not None]
        words = self._words(word, name)
        found = [self._judge(its, name, other, words) for other in fits]
        if len(fits) == 1 and found[0].confidence < SURE / 2:
            found = [Candidate(fits[0], SURE / 2, f"the only one that can be in {unit or '1'}")]
        return sorted((each for each in found if each.confidence > 0), key=lambda c: -c.confidence)

    def _words(self, word: Word, name: str) -> set[str]:
        """All words for a name of the app, by the catalog; it may itself be another word there."""
        table: Mapping[str, NamedUnit] = {}
        if self._package is not None:
            attributes = word == "attributes"
            table = self._package.attributes if attributes else self._package.quantities
        found = {plain(name)}
        for key, each in table.items():
            words = {plain(one) for one in (key, *each.names, *each.title.values())}
            if key == name or (name not in table and plain(name) in words):
                found |= words
        return found

    def _judge(self, its: AssetType, name: str, other: str, words: set[str]) -> Candidate:
        if other == name:
            return Candidate(other, 1.0, "it is called so")
        if plain(other) in words:
            return Candidate(other, 0.9, f"{other} is a word for {name}")
        for title in self._titles.get((its.name, other), ()):
            if plain(title) in words:
                return Candidate(other, 0.8, f"its tags are called {title}")
        parts, mine = set(_SPLIT.split(other.lower())), set(_SPLIT.split(name.lower()))
        if mine <= parts or parts <= mine:
            return Candidate(other, 0.5, f"{other} and {name} have a word in common")
        return Candidate(other, 0.0, "")


def _is_clear(one: Candidate, candidates: list[Candidate], word: str) -> bool:
    if one.confidence < (WORST_OPTIONAL if word == "optional" else SURE):
        return False
    rivals = [each for each in candidates if each.name != one.name]
    return all(one.confidence - each.confidence >= NEAR for each in rivals)


def _titles(model: SiteModel) -> dict[tuple[str, str], set[str]]:
    """(asset type, quantity) -> what its tags are called."""
    types = {asset.path: asset.type for asset in model.assets}
    found: dict[tuple[str, str], set[str]] = {}
    for tag in model.tags:
        place, _, name = tag.path.rpartition("/")
        if place in types:
            titles = {each for each in (tag.title, tag.title_zh) if each}
            found.setdefault((types[place], name), set()).update(titles)
    return found


def plain(text: str) -> str:
    """A name without case, accents, and what parts its words.

    Example:
        >>> plain("Förderhöhe"), plain("foerder_hoehe"), plain("流量")
        ('forderhohe', 'forderhohe', '流量')
    """
    folded = unicodedata.normalize("NFKD", text.casefold())
    word = "".join(each for each in folded if each.isalnum())
    return word.replace("ae", "a").replace("oe", "o").replace("ue", "u")
