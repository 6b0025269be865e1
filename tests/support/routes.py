"""Small routes to test with: two tiers, one backend each, built without files."""

from weir_core.snapshot import (
    Backend,
    Behaviour,
    Check,
    Monitoring,
    Objective,
    Revision,
    RolloutPolicy,
    RoutePolicy,
    Rule,
    Tier,
)

SMALL = Backend(
    name="small",
    identity="small-1",
    url="http://127.0.0.1:1",
    model="s",
    input_price_pico=10,
    output_price_pico=20,
    context_window=4096,
)
LARGE = Backend(
    name="large",
    identity="large-1",
    url="http://127.0.0.1:2",
    model="l",
    input_price_pico=100,
    output_price_pico=200,
    context_window=4096,
)
SPARE = Backend(
    name="spare",
    identity="spare-1",
    url="http://127.0.0.1:3",
    model="p",
    input_price_pico=50,
    output_price_pico=50,
    context_window=4096,
)
WHOLE = Check(name="whole", type="Finish")


def behaviour(**changes: object) -> Behaviour:
    """Return small (checked by Finish) then large, 30 s, four attempts."""
    fields: dict[str, object] = {
        "deadline_ms": 30_000,
        "max_attempts": 4,
        "tiers": (
            Tier(name="small", backend=SMALL, accept=(WHOLE,)),
            Tier(name="large", backend=LARGE),
        ),
    }
    return Behaviour(**(fields | changes))  # type: ignore[arg-type]


def revision(name: str = "assistant-0000000001", **changes: object) -> Revision:
    """Return a revision of that behaviour; its content is its name."""
    return Revision(name=name, behaviour=behaviour(**changes), content=name)


def policy(**changes: object) -> RoutePolicy:
    """Return the route llm/assistant, stable alone, with one Error objective."""
    fields: dict[str, object] = {
        "uid": "llm/assistant",
        "namespace": "llm",
        "name": "assistant",
        "model_names": ("assistant",),
        "stable": revision(),
        "monitoring": Monitoring(objectives=(Objective(name="errors", event="Error"),)),
        "rollout": RolloutPolicy(),
        "brake_alpha": 0.01,
    }
    return RoutePolicy(**(fields | changes))  # type: ignore[arg-type]


def broken(name: str) -> RoutePolicy:
    """Return a route with a rule that cannot be compiled."""
    rule = Rule(name="r", when="prompt_tokens <", start=0, end=1)
    return policy(name=name, uid=f"llm/{name}", stable=revision(rules=(rule,)))
