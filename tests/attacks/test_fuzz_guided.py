"""The same parsers, fuzzed by atheris: it sees which of our branches an input reaches and goes on from there.

Each parser has a child process of its own; a crash, a hang of ten seconds, more than 2 GB, or an error
that is not ours ends it with the input that did it. Soak only; ``python
tests/attacks/test_fuzz_guided.py NAME SECONDS`` by hand.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

if __name__ == "__main__":  # the child: instruments our modules before they are imported
    import atheris

    sys.path.insert(0, str(Path(__file__).parent))
    with atheris.instrument_imports(include=["headrace"]):
        import parsers

    NAME, SECONDS = sys.argv[1:3]
    ARGUMENTS = [f"-max_total_time={SECONDS}", "-timeout=10", "-rss_limit_mb=2048", "-max_len=4096"]
    atheris.Setup([sys.argv[0], *ARGUMENTS], lambda body: parsers.take_anything(NAME, body))
    atheris.Fuzz()

from parsers import PARSERS

SECONDS_EACH = 20


@pytest.mark.soak
@pytest.mark.parametrize("name", PARSERS)
def test_a_guided_fuzzer_finds_nothing(name: str, tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="install atheris for the guided fuzzer")
    done = subprocess.run(
        [sys.executable, __file__, name, str(SECONDS_EACH)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=160,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr[-3_000:]
    assert "Done " in done.stderr, "it ran to its end"
