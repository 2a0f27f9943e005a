"""What a track has now that it had not before."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from headrace.formula.steps import Floats, Keys, Statuses
from headrace.formula.track import Rows, Track
from headrace.model import status as st


class Changed(NamedTuple):
    """Rows that are new or other than before; those that are no more have the status RETRACTED."""

    asset: Keys
    at_us: Keys
    value: Floats
    status: Statuses


def put_rows(
    track: Track, who: Keys, from_us: Keys, rows: Rows, received_us: Keys | None = None
) -> Changed | None:
    """Let a track have these rows from a time on; what that changed is noted in the track."""
    place, end = track.locate(who, from_us), track.end[who]
    changed = Changed(who[rows.slot], rows.at_us, rows.value, rows.status)
    if (place < end).any():
        changed = _difference(track, who, track.take(place, end), rows)
        track.cut(who, place)
    track.append(who, rows, received_us)
    if not len(changed.asset):
        return None
    first = np.flatnonzero(np.r_[True, changed.asset[1:] != changed.asset[:-1]])
    track.changed_us[changed.asset[first]] = changed.at_us[first]
    return changed


def both(one: Changed | None, other: Changed | None) -> Changed | None:
    if one is None or other is None:
        return one or other
    order = np.argsort(np.concatenate([one.asset, other.asset]), kind="stable")
    return Changed(
        np.concatenate([one.asset, other.asset])[order],
        np.concatenate([one.at_us, other.at_us])[order],
        np.concatenate([one.value, other.value])[order],
        np.concatenate([one.status, other.status])[order],
    )


def _difference(track: Track, who: Keys, old: Rows, new: Rows) -> Changed:
    slot = np.r_[old.slot, new.slot]
    at_us = np.r_[old.at_us, new.at_us]
    value = np.r_[old.value, new.value]
    status = np.r_[old.status, new.status]
    is_new = np.arange(len(slot)) >= len(old.at_us)
    order = np.lexsort((is_new, at_us, slot))
    slot, at_us, value, status = slot[order], at_us[order], value[order], status[order]
    is_new = is_new[order]
    pair = np.zeros(len(slot), np.bool_)  # the second of the same time
    pair[1:] = (slot[1:] == slot[:-1]) & (at_us[1:] == at_us[:-1])
    same = pair.copy()
    bits = value.view(np.int64)
    same[1:] &= (bits[1:] == bits[:-1]) & (status[1:] == status[:-1])
    replaced = np.r_[pair[1:], False]
    gone = ~is_new & ~replaced
    value, status = np.where(gone, np.nan, value), np.where(gone, np.uint32(st.RETRACTED), status)
    keep = (is_new & ~same) | gone
    return Changed(who[slot[keep]], at_us[keep], value[keep], status[keep])
