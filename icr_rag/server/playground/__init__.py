"""A page to try the server by hand, at ``/``: one file, nothing fetched from elsewhere.

The page calls ``/v1/rerank`` as any client does. An API key that is typed in stays in the page.
"""

from __future__ import annotations

import base64
import hashlib
import re
from importlib.resources import files

from fastapi import APIRouter, Response

#: Pages that refer to anything else than this server would be stopped by the browser.
_POLICY = (
    "default-src 'none'; connect-src 'self'; script-src '{script}'; style-src '{style}'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def playground_routes() -> APIRouter:
    """The page at ``/``, with headers that let it run its own script and style and no other."""
    html = files(__package__).joinpath("index.html").read_text(encoding="utf-8")
    headers = {
        "content-security-policy": _POLICY.format(
            script=_digest(html, "script"), style=_digest(html, "style")
        ),
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cache-control": "no-cache",
    }

    async def playground() -> Response:
        return Response(html, media_type="text/html; charset=utf-8", headers=headers)

    router = APIRouter()
    router.add_api_route("/", playground, methods=["GET", "HEAD"], include_in_schema=False)
    return router


def _digest(html: str, element: str) -> str:
    """The digest by which the policy knows the one element of this name."""
    (content,) = re.findall(rf"<{element}>(.*?)</{element}>", html, re.DOTALL)
    digest = hashlib.sha256(content.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"
