"""Identity works the same on every database."""

from __future__ import annotations

from postgres_server import postgres  # noqa: F401 # a fixture
