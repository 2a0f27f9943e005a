"""NiceGUI as the console may show it: its scripts carry the answer's nonce, its errors say nothing.

NiceGUI writes inline scripts into its page and knows no nonce (3.18), so the template is read through a
loader that adds one to the template's own ``<script>`` tags. What people wrote reaches the page as escaped
JSON or escaped markup only, and never passes the loader: a script in a name has no nonce.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from fastapi import Request, Response
from fastapi.responses import PlainTextResponse
from jinja2 import BaseLoader, Environment
from nicegui import app as pages
from nicegui import client

from headrace.console.api.errors import not_found
from headrace.console.api.guard import NONCE

_OPEN: Final = "<script"
_Source = tuple[str, str | None, Callable[[], bool] | None]


class NonceLoader(BaseLoader):
    """Another loader's templates, with a nonce on each of their script tags."""

    def __init__(self, inner: BaseLoader) -> None:
        self._inner = inner

    def get_source(self, environment: Environment, template: str) -> _Source:
        text, path, fresh = self._inner.get_source(environment, template)
        nonce = f'{_OPEN} nonce="{{{{ request.scope["{NONCE}"] }}}}"'
        return text.replace(_OPEN, nonce), path, fresh


def harden() -> None:
    """Let NiceGUI's pages have nonces, and its errors no internals; once, before it is mounted."""
    environment = client.templates.env
    if not isinstance(environment.loader, NonceLoader) and environment.loader is not None:
        environment.loader = NonceLoader(environment.loader)
    pages.add_exception_handler(404, _not_found)
    pages.add_exception_handler(Exception, _failed)


async def _not_found(request: Request, _error: Exception) -> Response:
    # NiceGUI would keep a page in memory for everybody who asks for an address that does not exist.
    return not_found(request.method)


async def _failed(_request: Request, _error: Exception) -> Response:
    # Starlette raises the error again after this answer, so that the log has it.
    return PlainTextResponse("the page failed; the console's log says why", 500)
