"""The application: addresses, who may use them, bodies within limits, errors in one line."""

import asyncio
import contextlib
import hmac
import ipaddress
import sys
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from http.cookies import CookieError, SimpleCookie
from typing import Any

import orjson
from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from fastbert.serve import api, play, views, watch
from fastbert.serve.frame import HEADERS, key_page
from fastbert.serve.metrics import Metrics
from fastbert.serve.models import NoSuchModel
from fastbert.serve.queue import QueueFull, Stopping
from fastbert.serve.schemas import PlayBody, one_line
from fastbert.serve.service import Service, TooLarge
from fastbert.system.errors import InputError

BODY_TIMEOUT_S = 30.0
STOP_S = 2.0  # for the batch that is being computed
KEY_COOKIE = "fastbert_key"
OPEN_PATHS = ("/health", "/key")  # without a key

Handler = Callable[[Request], Awaitable[Response]]


def json_response(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(
        orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY), status, headers, media_type="application/json"
    )


def html(content: str) -> Response:
    return Response(content, media_type="text/html", headers=HEADERS)


def problem(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    """An error in the form of OpenAI's: one line."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    line = " ".join(message.split())
    return json_response({"error": {"message": line, "type": kind, "code": status}}, status, headers)


# ---- requests ----
async def read_body(request: Request, most: int) -> bytes:
    """The body of a request.

    Raises:
        TooLarge: over ``most`` bytes.
    """
    too_large = TooLarge(f"the body has over {most:,} bytes. Try: fewer texts in a request")
    if (declared := request.headers.get("content-length", "")).isdigit() and int(declared) > most:
        raise too_large
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise too_large
        parts.append(part)
    return b"".join(parts)


async def unless_client_leaves(request: Request, work: Awaitable[Response]) -> Response:
    """The answer; the work is cancelled when the client closes its connection."""

    async def left() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(left())
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            return Response(status_code=499)  # nobody reads it, but it is counted
        return task.result()
    finally:
        task.cancel()
        gone.cancel()


def posted(
    body_type: type[BaseModel], answer: Callable[[Service, Any], Awaitable[Any]], respond: Callable[[Any], Response]
) -> Handler:
    """A handler that validates a JSON body, answers it and turns errors into one line."""

    async def handler(request: Request) -> Response:
        service: Service = request.app.state.service
        try:
            raw = await asyncio.wait_for(read_body(request, service.limits.body_bytes), BODY_TIMEOUT_S)
            body = body_type.model_validate_json(raw)

            async def work() -> Response:
                return respond(await answer(service, body))

            return await unless_client_leaves(request, work())
        except ValidationError as error:
            return problem(422, one_line(error))
        except QueueFull as error:
            return problem(503, str(error), {"Retry-After": str(error.retry_after_s)})
        except Stopping:
            return problem(503, "the server stops. Try: again later", {"Retry-After": "5"})
        except NoSuchModel as error:
            return problem(404, str(error))
        except TooLarge as error:
            return problem(413, str(error))
        except InputError as error:
            return problem(422, str(error))
        except TimeoutError:
            return problem(408, f"no complete body within {BODY_TIMEOUT_S:.0f} s")
        except ClientDisconnect:
            return Response(status_code=499)

    return handler


# ---- who may ask ----
def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


class Guard:
    """Refuses other sites' pages and requests without the key; counts requests.

    A page of another site may send requests to this machine, and by a name that it controls even read the answers: a
    server on the loopback address answers to no other name, and to no page but its own.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, api_key: str | None, local: bool, paths: frozenset[str]):
        self.app, self.metrics, self.api_key, self.local, self.paths = app, metrics, api_key, local, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def counted(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        refused = self.refused(Request(scope))
        try:
            await (refused or self.app)(scope, receive, counted)
        finally:
            path = scope["path"] if scope["path"] in self.paths else "other"
            self.metrics.count(path, status, time.perf_counter() - began)

    def refused(self, request: Request) -> Response | None:
        host = request.headers.get("host", "")
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        if self.local and not is_loopback(name):
            return problem(403, f"host {name!r:.80}: this server answers on the loopback address. Try: 127.0.0.1")
        origin = request.headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            return problem(403, f"origin {origin!r:.80}: pages of other sites are not answered")
        if self.api_key is None or request.url.path in OPEN_PATHS or self._has_key(request):
            return None
        if request.method == "GET" and "text/html" in request.headers.get("accept", ""):
            return key_page(request)
        wrong = "the key is missing or wrong. Try: Authorization: Bearer KEY"
        return problem(401, wrong, {"WWW-Authenticate": "Bearer"})

    def _has_key(self, request: Request) -> bool:
        assert self.api_key is not None
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            given = key_of_cookie(request.headers.get("cookie", ""))
        return hmac.compare_digest(given.strip().encode(), self.api_key.encode())


def key_of_cookie(header: str) -> str:
    try:
        found = SimpleCookie(header).get(KEY_COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""


class KeyBody(BaseModel):
    """The key, typed into the page."""

    key: str


async def give_key(request: Request) -> Response:
    """Keep the key in a cookie that scripts cannot read, for the pages."""
    expected = request.app.state.api_key
    try:
        given = KeyBody.model_validate_json(await read_body(request, 4096)).key
    except (ValidationError, TooLarge):
        given = ""
    if expected is None or not hmac.compare_digest(given.encode(), expected.encode()):
        return problem(401, "the key is wrong")
    response = Response(status_code=204)
    response.set_cookie(KEY_COOKIE, expected, httponly=True, samesite="strict")
    return response


# ---- the application ----
def make_app(service: Service, *, api_key: str | None = None, local: bool = True) -> Starlette:
    """The ASGI application.

    Args:
        service: its models and queue.
        api_key: needed for everything but /health; None: no key.
        local: answer only to names of the loopback address.
    """
    metrics = Metrics()

    async def health(_request: Request) -> Response:
        requests, tokens = service.queue.waiting
        return json_response({"status": "ok", "models": service.models.names, "waiting": requests, "tokens": tokens})

    async def models(_request: Request) -> Response:
        listed = [{"id": name, "object": "model", "owned_by": "fastbert"} for name in service.models.names]
        return json_response({"object": "list", "data": listed})

    async def prometheus(_request: Request) -> Response:
        return Response(metrics.text(service.queue), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def description(_request: Request) -> Response:
        return json_response(api.openapi())

    routes = [Route(e.path, posted(e.body, e.answer, json_response), methods=["POST"]) for e in api.ENDPOINTS]
    routes += [Route(path, posted(PlayBody, view, html), methods=["POST"]) for path, view in views.VIEWS.items()]
    gets = {"/health": health, "/v1/models": models, "/metrics": prometheus, "/openapi.json": description}
    routes += [Route(path, handler) for path, handler in (gets | play.PAGES | watch.PAGES).items()]
    routes.append(Route("/key", give_key, methods=["POST"]))

    async def not_found(_request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return problem(error.status_code, f"{error.detail}. Try: /docs lists the addresses", error.headers)  # type: ignore[arg-type]

    async def failed(_request: Request, error: Exception) -> Response:
        traceback.print_exception(error, file=sys.stderr)
        return problem(500, "the server failed on this request; its log says why")

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        app.state.stopping.set()
        await asyncio.to_thread(service.queue.stop, STOP_S)

    app = Starlette(routes=routes, exception_handlers={HTTPException: not_found, Exception: failed}, lifespan=lifespan)
    app.state.service, app.state.api_key = service, api_key
    app.state.stopping = asyncio.Event()
    paths = frozenset(route.path for route in routes)
    app.add_middleware(Guard, metrics=metrics, api_key=api_key, local=local, paths=paths)
    return app
