"""Routes as the management API tells of them, and a small real server that tells it."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import Any

import msgspec
import pytest

from support.rollouts import HARM, A, B, Course, hold, judged, pause, rolled_back, started, weight
from support.routes import LARGE, SMALL, behaviour
from weir_cli.__main__ import main as weir
from weir_core.errors import Problem
from weir_core.evidence import Judgement, ObjectiveJudgement
from weir_core.snapshot import Backend, Objective, Revision
from weir_core.status import Observed, route_status

Told = dict[str, Any]
KEY = "llm/assistant"
NOW_S = 1_234.0


def objective(name: str, **changes: Any) -> ObjectiveJudgement:
    """Return an objective that shows no harm, with these changes."""
    shown: dict[str, Any] = {
        "event": "Error",
        "mode": "Enforce",
        "verdict": "NoHarmYet",
        "log_e": -1.2,
        "promote_log_e": 1.0,
        "failed": (30, 2),
        "settled": (1_650, 87),
        "ratio": 1.26,
        "low": 0.21,
        "high": 4.2,
    }
    return ObjectiveJudgement(name=name, **{**shown, **changes})


QUIET = (
    objective("errors"),
    objective("ttft", event="Slow", log_e=1.5, failed=(40, 4), ratio=1.9, low=0.6, high=5.1),
    objective("leaks", event="Violation", failed=(0, 0), ratio=0.0, low=0.0, high=1e9),
    objective("load", event="Escalated", mode="Hold", log_e=-9.0, failed=(400, 19), ratio=0.9),
)
OBJECTIVES = tuple(
    Objective(name=one.name, event=one.event, mode=one.mode, max_rate=0.05)  # type: ignore[arg-type]
    for one in QUIET
)
LOUD = (
    objective("errors", log_e=6.1, verdict="Harm", suspect=True, failed=(30, 9), ratio=5.7),
    *QUIET[1:],
)


def told_of(
    course: Course,
    judgement: Judgement | None = None,
    problems: tuple[Problem, ...] = (),
    ejected: Mapping[str, str] = MappingProxyType({}),
    actual_weight_bp: float | None = None,
) -> Told:
    """Return what GET /weir/v1/routes/llm/assistant says of a rollout."""
    observed = Observed(
        policy=course.policy,
        target="" if problems else course.state.canary or course.state.stable,
        routers=1,
        routers_serving=1,
        routers_in_sync=1,
        judgement=judgement,
        problems=problems,
        objectives=OBJECTIVES,
        ejected=dict(ejected),
        actual_weight_bp=actual_weight_bp,
    )
    return {
        "namespace": "llm",
        "name": "assistant",
        "modelNames": ["assistant"],
        "status": route_status(course.state, observed, now_s=course.now_s),
        "problems": [problem.sentence() for problem in problems],
        "backends": [called(SMALL, "small", ejected), called(LARGE, "large", ejected)],
        "events": [
            {
                "at": course.now_s,
                "type": "Warning" if one.warning else "Normal",
                "reason": one.reason,
                "message": one.message,
            }
            for one in course.happened
        ],
        "tiers": {
            "small": tier(1_212, 123_456, 7_890, 7_750_000_000),
            "large": tier(525, 54_321, 3_456, 170_362_500_000),
        },
        "alwaysLast": {"tier": "large", "costPico": 557_902_500_000},
        "history": [
            {
                "revision": one.revision.name,
                "outcome": one.outcome,
                "attempt": one.attempt,
                "since": one.since_s,
                "reason": one.reason,
            }
            for one in course.state.records
        ],
    }


def called(backend: Backend, tier_name: str, ejected: Mapping[str, str]) -> Told:
    cause = ejected.get(backend.identity)
    out = {"cause": cause, "failures": 7, "since": NOW_S - 12} if cause else None
    return {
        "name": backend.name,
        "identity": backend.identity,
        "url": backend.url,
        "model": backend.model,
        "arms": ["stable"],
        "parts": [f"tier {tier_name}"],
        "ejected": out,
    }


def tier(requests: int, input_tokens: int, output_tokens: int, cost_pico: int) -> Told:
    return {
        "requests": requests,
        "inputTokens": input_tokens,
        "outputTokens": output_tokens,
        "costPico": cost_pico,
    }


def healthy() -> Told:
    course = Course()
    course.tell()
    return told_of(course)


def progressing() -> Told:
    course = started()
    quiet = judged(
        log_e=1.1,
        objectives=QUIET,
        assigned=(1_690, 90),
        settled=(1_650, 87),
        coverage=0.967,
        audits=12,
        bad_served=6,
    )
    course.tell(judgement=quiet)
    return told_of(course, quiet)


def held() -> Told:
    """A canary that changes much, and a stable that is no better."""
    course = Course()
    course.tell(target=Revision(name=A.name, behaviour=behaviour(), content="a"))
    changed = behaviour(
        deadline_ms=9_000,
        max_attempts=2,
        on_exhausted="ReturnLast",
        commit="FirstToken",
    )
    course.tell(target=Revision(name=B.name, behaviour=changed, content="b"))
    unwell = judged(canary=300, holds=("StableUnhealthy",), objectives=QUIET)
    course.tell(judgement=unwell)
    return told_of(course, unwell, actual_weight_bp=512.0)


def outage() -> Told:
    """No backend is left."""
    course = Course()
    course.tell(target=Revision(name=A.name, behaviour=behaviour(), content="a"))
    course.tell()
    return told_of(course, ejected={"small-1": "Connect", "large-1": "Timeout"})


def paused() -> Told:
    course = started(weight(25), pause(), weight(50), hold(200))
    course.tell(judgement=judged(canary=300))
    return told_of(course, judged(canary=300, objectives=QUIET))


def degraded() -> Told:
    return told_of(rolled_back())


def harmed() -> Told:
    """The moment before the rollback is acted on: the evidence is over the threshold."""
    course = started()
    return told_of(course, msgspec.structs.replace(HARM, objectives=LOUD))


def broken() -> Told:
    course = Course()
    course.tell()
    course.tell(target=None)
    problem = Problem(
        object="ModelRoute llm/assistant",
        field="spec.behaviour.tiers[0].backendRef.name",
        seen="'smal'",
        wanted="a ModelBackend in namespace llm; did you mean 'small'?",
        reason="BackendNotFound",
        condition="ResolvedRefs",
        source="route.yaml:12",
    )
    return told_of(course, problems=(problem,))


SCENES: dict[str, Callable[[], Told]] = {
    "healthy": healthy,
    "progressing": progressing,
    "paused": paused,
    "held": held,
    "outage": outage,
    "degraded": degraded,
    "harmed": harmed,
    "broken": broken,
}


@pytest.fixture(params=sorted(SCENES))
def scene(request: pytest.FixtureRequest) -> tuple[str, Told]:
    """Give each scene with its name."""
    return request.param, SCENES[request.param]()


@pytest.fixture
def scenes() -> dict[str, Callable[[], Told]]:
    """Give all scenes by name."""
    return SCENES


@dataclass
class Management:
    """A management API with canned answers, and what it was asked to do."""

    url: str = ""
    routes: dict[str, Told] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    ejected: list[Told] = field(default_factory=list)
    acknowledgement: Told = field(default_factory=lambda: {"result": "Done", "message": "ok"})
    explanation: Told = field(default_factory=dict)
    asked: list[Told] = field(default_factory=list)

    def answer(self, path: str, content: Told | None) -> tuple[int, Told]:
        """Return status and body, in the shapes of weir_router.app."""
        if content is not None:
            self.asked.append({"path": path, **content})
        if path == "/weir/v1/status":
            routes = {key: told["status"] for key, told in self.routes.items()}
            return 200, {"routes": routes, "problems": self.problems, "ejected": self.ejected}
        if path == "/weir/v1/explain":
            return 200, self.explanation
        if not path.startswith("/weir/v1/routes/"):
            return 404, {"detail": "Not Found"}
        key = path.removeprefix("/weir/v1/routes/").removesuffix("/command")
        if key not in self.routes:
            code, message = "route_not_found", f"no route {key}"
            return 404, {"error": {"code": code, "message": message}}
        return 200, self.acknowledgement if path.endswith("/command") else self.routes[key]


@pytest.fixture
def management() -> Iterator[Management]:
    """Serve on a free port until the test ends."""
    canned = Management()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._reply(None)

        def do_POST(self) -> None:
            self._reply(json.loads(self.rfile.read(int(self.headers["content-length"]))))

        def _reply(self, content: Told | None) -> None:
            status, body = canned.answer(self.path, content)
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        canned.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield canned
        server.shutdown()
        thread.join()


@dataclass
class Ran:
    """How one command ended."""

    code: int
    out: str
    err: str


Weir = Callable[..., Ran]


@pytest.fixture
def weir_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Weir:
    """Run `weir` in this process, 80 columns wide, without colours."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("WEIR_SERVER", raising=False)

    def run(*words: str) -> Ran:
        try:
            code = weir(words)
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = capsys.readouterr()
        return Ran(code, out, err)

    return run
