"""High-water marks: which arriving samples cannot be copies, without looking into the table.

A sample's identity is (tag_id, source_timestamp). Nearly all samples are newer than everything stored of
their tag; only those at or before the tag's mark are suspects that must be compared with the table.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Int64Array = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
BEFORE_ALL: int = np.iinfo(np.int64).min


class Marks:
    """The newest source timestamp stored of each tag.

    Args:
        default_us: mark of tags that are not known yet: the newest timestamp that the table may hold
            of them.

    Example:
        >>> marks = Marks()
        >>> marks.advance(np.array([7, 7]), np.array([10, 20]))
        >>> marks.suspects(np.array([7, 7, 8]), np.array([20, 21, 5])).tolist()
        [True, False, False]
    """

    def __init__(self, default_us: int = BEFORE_ALL) -> None:
        self._default_us = default_us
        self._tag_ids: Int64Array = np.empty(0, np.int64)
        self._newest_us: Int64Array = np.empty(0, np.int64)

    def suspects(self, tag_id: Int64Array, at_us: Int64Array) -> BoolArray:
        """Which samples are at or before their tag's mark; arrays of shape (n,)."""
        if not len(self._tag_ids):
            return at_us <= self._default_us
        slot = np.searchsorted(self._tag_ids, tag_id)
        slot[slot == len(self._tag_ids)] = 0
        known = self._tag_ids[slot] == tag_id
        mark = np.where(known, self._newest_us[slot], self._default_us)
        return np.asarray(at_us <= mark)

    def advance(self, tag_id: Int64Array, at_us: Int64Array) -> None:
        """Take in stored samples, sorted by (tag_id, source_timestamp)."""
        if not len(tag_id):
            return
        last = np.append(np.flatnonzero(tag_id[1:] != tag_id[:-1]), len(tag_id) - 1)
        tags = np.concatenate([self._tag_ids, tag_id[last]])
        newest = np.concatenate([self._newest_us, np.maximum(at_us[last], self._default_us)])
        order = np.lexsort((newest, tags))
        tags, newest = tags[order], newest[order]
        keep = np.append(tags[1:] != tags[:-1], True)
        self._tag_ids, self._newest_us = tags[keep], newest[keep]
