"""The HTTP surface beside the model endpoints: health, metrics, feedback; and the management API.

Two FastAPI applications: `public` stands behind the front door with the model endpoints, `admin`
on an address of its own, because whoever may ask a model may not promote a canary.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException

from weir_router import dialect
from weir_router.peers import PATH, Brought, Peers
from weir_router.serve import Router


class Ready(Protocol):
    """Whatever knows whether this process may get requests."""

    def ready(self) -> str:
        """Return why this process is not ready, "" when it is."""


class Explains(Ready, Protocol):
    """What the management API of a pod needs beside the router."""

    def explain(self, body: bytes, headers: dict[str, str]) -> dict[str, Any]:
        """Return what would be decided for a request, without calling a model."""


class Control(Explains, Protocol):
    """What the management API needs of the control loop beside the router."""

    def statuses(self) -> dict[str, Any]:
        """Return every route's status and the problems of the configuration."""

    def describe(self, key: str) -> dict[str, Any] | None:
        """Return one route's status, events and totals; None when there is no such route."""

    async def command(self, key: str, verb: str, revision: str, *, full: bool) -> dict[str, Any]:
        """Carry out a command and return how it was acknowledged."""


class Feedback(BaseModel):
    """A person's or a judge's label for an earlier reply."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: str
    harm: bool


class Command(BaseModel):
    """A command for one revision of a route."""

    model_config = ConfigDict(extra="forbid", strict=True)

    verb: str
    revision: str
    full: bool = False


class Question(BaseModel):
    """A request to be explained: its body as JSON text and its headers."""

    model_config = ConfigDict(extra="forbid", strict=True)

    body: str
    headers: dict[str, str] = {}


def public(router: Router, control: Ready, peers: Peers | None = None) -> FastAPI:
    """Return the application behind the front door; `peers` bring labels to other routers."""
    app = FastAPI(title="Weir router", openapi_url=None, docs_url=None, redoc_url=None)
    _add_health(app, control)

    @app.get("/v1/models")
    async def models() -> Response:
        return Response(router.models(), media_type="application/json")

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> Response:
        found = router.model(name)
        if found is None:
            return _error(404, "model_not_found", f"The model {name[:100]!r} does not exist")
        return Response(found, media_type="application/json")

    @app.post("/v1/feedback")
    async def feedback(label: Feedback) -> Response:
        brought = _label(router, label)
        if brought == "unknown" and peers is not None:
            brought = await peers.label(label.id, harm=label.harm)
        return _labelled(label, brought)

    _add_errors(app)
    return app


def admin(router: Router, control: Control) -> FastAPI:
    """Return the application of the management address."""
    app = FastAPI(title="Weir management", docs_url="/docs", redoc_url=None)
    _add_health(app, control)
    _add_metrics(app, router)

    @app.get("/weir/v1/status")
    async def statuses() -> dict[str, Any]:
        return control.statuses()

    @app.get("/weir/v1/routes/{namespace}/{name}")
    async def describe(namespace: str, name: str) -> Response:
        found = control.describe(f"{namespace}/{name}")
        if found is None:
            return _error(404, "route_not_found", f"no route {namespace}/{name}")
        return JSONResponse(found)

    @app.post("/weir/v1/routes/{namespace}/{name}/command")
    async def command(namespace: str, name: str, wanted: Command) -> Response:
        key = f"{namespace}/{name}"
        if control.describe(key) is None:
            return _error(404, "route_not_found", f"no route {key}")
        done = await control.command(key, wanted.verb, wanted.revision, full=wanted.full)
        return JSONResponse(done)

    _add_explain(app, control)
    _add_errors(app)
    return app


def pod(router: Router, control: Explains) -> FastAPI:
    """Return the application of a pod's management address: it takes no commands."""
    app = FastAPI(title="Weir router", docs_url="/docs", redoc_url=None)
    _add_health(app, control)
    _add_metrics(app, router)
    _add_explain(app, control)

    @app.post(PATH.decode())
    async def label(label: Feedback) -> Response:
        # Asked by another router: what this one does not know goes nowhere else.
        return _labelled(label, _label(router, label))

    _add_errors(app)
    return app


def _add_explain(app: FastAPI, control: Explains) -> None:
    @app.post("/weir/v1/explain")
    async def explain(question: Question) -> dict[str, Any]:
        return control.explain(question.body.encode(errors="replace"), question.headers)


def _add_health(app: FastAPI, control: Ready) -> None:
    @app.get("/healthz")
    async def healthz() -> Response:
        return Response("ok\n", media_type="text/plain")

    @app.get("/readyz")
    async def readyz() -> Response:
        why = control.ready()
        return Response(f"{why or 'ok'}\n", 503 if why else 200, media_type="text/plain")


def _add_metrics(app: FastAPI, router: Router) -> None:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(router.metrics)

    @app.get("/metrics")
    async def metrics() -> Response:
        text = await asyncio.to_thread(generate_latest, registry)
        return Response(text, media_type=CONTENT_TYPE_LATEST)


def _label(router: Router, label: Feedback) -> Brought:
    return "taken" if router.label(label.id, harm=label.harm) else "unknown"


def _labelled(label: Feedback, brought: Brought) -> Response:
    if brought == "taken":
        return Response(status_code=204)
    if brought == "unreachable":
        message = f"the router that gave {label.id!r} could not be asked: try again"
        return _error(503, "router_unreachable", message, {"retry-after": "1"})
    message = f"saw {label.id[:100]!r}, wanted the x-request-id of a recent canary-time reply"
    return _error(404, "reply_not_found", message)


def _add_errors(app: FastAPI) -> None:
    """Answer what is wrong with a request in the words of the model endpoints."""

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        # What was seen is not repeated: it may be long, or no text at all.
        told = [f"{_place(one['loc'])}: {one['msg']}" for one in error.errors()[:8]]
        message = "; ".join(told)
        return _error(400, "invalid_type", message)

    @app.exception_handler(HTTPException)
    @app.exception_handler(404)
    @app.exception_handler(405)
    async def refused(request: Request, error: HTTPException) -> Response:
        if error.status_code == 404:
            return _error(404, "not_found", f"Unknown path {request.url.path[:200]}")
        if error.status_code == 405:
            return _error(405, "method_not_allowed", f"{request.method} is not for this path")
        return _error(error.status_code, "bad_request", str(error.detail))


def _place(loc: Sequence[str | int]) -> str:
    """Return where in a body something is wrong; the first of `loc` says that it is the body."""
    return ".".join(part for part in loc[1:] if isinstance(part, str)) or "body"


def _error(
    status: int, code: str, message: str, headers: Mapping[str, str] | None = None
) -> Response:
    body = dialect.error_body(status, code, message)
    return Response(body, status, headers, media_type="application/json")
