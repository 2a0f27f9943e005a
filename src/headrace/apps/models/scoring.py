"""Asking a model: rows in, results out, the same on every machine that has the same processor kind.

Numbers of a matrix product depend on how many rows are multiplied at once, because libraries choose another
order of adding. So a model is always asked about blocks of the same number of rows, the last one filled up,
in one thread: how a caller cuts its rows changes nothing, to the bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from headrace.apps.models.inspection import need_libraries
from headrace.apps.models.operators import BLOCK_ROWS
from headrace.model.errors import Corrupt, Misconfigured

if TYPE_CHECKING:
    from collections.abc import Sequence

Rows = npt.NDArray[np.floating[Any]]


class OnnxModel:
    """A model, ready to be asked; the ``Model`` that hooks of apps get.

    Args:
        content: ONNX bytes, from the registry. inputs: names of the columns. version: as people see it.

    Raises:
        Misconfigured: APPS-2501 when ``onnxruntime`` is not installed.
        Corrupt: APPS-2504 when the bytes cannot be loaded.
    """

    def __init__(self, content: bytes, inputs: Sequence[str], version: str) -> None:
        need_libraries()
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 4
        options.use_deterministic_compute = True
        try:
            self._session = onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])
        except Exception as error:  # a class for each state of ONNX Runtime, none of them ours
            raise Corrupt(
                "APPS-2504",
                f"model {version} cannot be loaded",
                "Take another version: headrace model list",
            ) from error
        asked = self._session.get_inputs()[0]
        self._name = asked.name
        self._type = np.float64 if asked.type == "tensor(double)" else np.float32
        self.inputs = list(inputs)
        self.version = version

    def run(self, rows: Rows) -> npt.NDArray[np.float64]:
        """Results of rows, columns of all outputs beside each other.

        Args:
            rows: shape (n, columns), columns as :attr:`inputs`; n may be 0.

        Returns:
            Shape (n, outputs).

        Raises:
            Misconfigured: APPS-2505 when the columns are not those of the model.
        """
        if rows.ndim != 2 or rows.shape[1] != len(self.inputs):
            raise Misconfigured(
                "APPS-2505",
                f"model {self.version} was asked about rows of shape {rows.shape}",
                f"Give {len(self.inputs)} columns: {', '.join(self.inputs)[:200]}.",
            )
        count = rows.shape[0]
        block = np.zeros((BLOCK_ROWS, len(self.inputs)), self._type)
        parts = []
        for first in range(0, max(count, 1), BLOCK_ROWS):
            given = rows[first : first + BLOCK_ROWS]
            block[: len(given)] = given
            block[len(given) :] = 0
            found = self._session.run(None, {self._name: block})
            columns = [np.asarray(each, np.float64).reshape(BLOCK_ROWS, -1) for each in found]
            parts.append(np.concatenate(columns, axis=1)[: len(given)])
        return np.concatenate(parts)
