"""What a scenario plays on: a site, and all samples that reach the platform, in the order of arrival.

::

    virtual site ──┐
                   ├──► Ground ──► hostile conditions ──► the platform
    recording ─────┘
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Final

import msgspec
import numpy as np
import polars as pl

from headrace.model.knowledge import AppsConfig
from headrace.model.sample import Int64Array
from headrace.sim.emulators import PointType

SITE_FILE: Final = "site.toml"
Span = tuple[int, int]


@dataclass(frozen=True)
class Ground:
    """A site with samples.

    Attributes:
        config: the site; its own formulas are in it. files: its site file, and what that names.
        ids: path -> tag_id.
        samples: of :data:`headrace.model.sample.SCHEMA`, sorted by received_timestamp.
        start_us, end_us: the scenario's time.
        labels: asset -> spans of time in which something is wrong with it, as somebody labelled them.
        notes: what was decided on reading.
        sha256: of the file that it is of; empty: of none.
        kinds: path -> as what its own device shows it, where that is known.
    """

    config: AppsConfig
    files: Mapping[str, bytes]
    ids: Mapping[str, int]
    samples: pl.DataFrame
    start_us: int
    end_us: int
    labels: Mapping[str, tuple[Span, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    sha256: str = ""
    kinds: Mapping[str, PointType] = field(default_factory=dict)

    def tags_like(self, patterns: Iterable[str]) -> Int64Array:
        """Sorted ids of tags whose ``asset/quantity`` is like one of these."""
        wanted = tuple(patterns)
        found = [
            tag_id
            for path, tag_id in self.ids.items()
            if any(fnmatchcase(path, each) for each in wanted)
        ]
        return np.unique(np.array(found, np.int64))


class Carried(msgspec.Struct, frozen=True, kw_only=True):
    """What came through a scenario's protocol (:mod:`headrace.bench.carrying`).

    Attributes:
        samples: Arrow file of them. notes: what the report says.
    """

    samples: bytes
    notes: list[str]

    def on(self, ground: Ground) -> Ground:
        """The ground with these samples instead of its own."""
        notes = (*ground.notes, *self.notes)
        return replace(ground, samples=pl.read_ipc(self.samples), notes=notes)
