"""`weir describe`: all that is known of one route, as text to be read and searched."""

import argparse
import time
from collections.abc import Iterable

from weir_cli import parts
from weir_cli.get import as_data
from weir_cli.parts import Told
from weir_cli.sources import source_of
from weir_cli.table import aligned, tabled


def run(args: argparse.Namespace) -> int:
    """Print one route."""
    source = source_of(args)
    told = source.route(source.key(args.route))
    print(as_data(told, args.output) if args.output else as_text(told, now_s=time.time()))
    return 0


def as_text(told: Told, *, now_s: float) -> str:
    """Return everything; a part that has nothing to tell is left out."""
    status = told["status"]
    sections = (
        ("", aligned(_facts(told, now_s))),
        ("Problems", _lines(told.get("problems", ()))),
        ("Changes, canary against stable", _lines(status["canary"].get("changes", ()))),
        ("Conditions", _conditions(status, now_s)),
        ("Evidence", _evidence(status)),
        ("Last rollback", _rollback(status, now_s)),
        ("Backends", _backends(told, now_s)),
        ("Tiers", _tiers(told)),
        ("Revisions", _history(told, now_s)),
        ("Events", _events(told, now_s)),
    )
    shown = (f"{title}:\n{body}" if title else body for title, body in sections if body)
    return "\n\n".join(shown)


def _facts(told: Told, now_s: float) -> Iterable[tuple[str, str]]:
    status, created = told["status"], told.get("created")
    step, routers = status["step"], status["routers"]
    canary, command = status["canary"], status["lastCommand"]
    yield "Name:", told["name"]
    yield "Namespace:", told["namespace"]
    if created is not None:
        yield "Age:", parts.age(created, now_s)
    yield "Models:", ", ".join(told["modelNames"])
    yield "Phase:", status["phase"]
    yield "Message:", status["message"]
    yield "Stable:", status["stable"]["revision"] or "-"
    if canary["revision"]:
        yield "Canary:", f"{canary['revision']}, attempt {canary['attempt']}"
        yield "Weight:", parts.weight(status)
        yield "Verdict:", parts.evidence(status)
    if step["progress"]:
        yield "Step:", f"{step['progress']} {step['kind']}"
    for place, why in enumerate(parts.standstill(status)):
        yield "" if place else "Stands still:", why
    yield "Routers:", f"{routers['inSync']} of {routers['of']} in sync"
    if command:
        done = f"{command['result']}, {command['message']}"
        verb, _, which = command["command"].partition("#")[0].partition("@")
        given = f"{verb} of {which}, {parts.age_of(command['at'], now_s)} ago"
        yield "Command:", f"{given}: {done}"
    saved = parts.saving(told)
    if saved:
        yield "Cost:", saved.text()


def _lines(lines: Iterable[str]) -> str:
    return "\n".join(f"  {line}" for line in lines)


def _conditions(status: Told, now_s: float) -> str:
    rows = [
        (
            one["type"],
            one["status"],
            one["reason"],
            parts.age_of(one["lastTransitionTime"], now_s),
            one["message"],
        )
        for one in status["conditions"]
    ]
    return tabled(("TYPE", "STATUS", "REASON", "AGE", "MESSAGE"), rows, indent="  ")


def _evidence(status: Told) -> str:
    found = status["evidence"]
    if not found["objectives"]:
        return ""
    covered = found["coverage"]
    counts = [
        (f"{word.capitalize()}:", f"canary {found[word]['canary']}, stable {found[word]['stable']}")
        for word in ("assigned", "settled")
    ]
    facts = [
        *counts,
        ("Coverage:", f"{found['coverage']} of what is due is settled" if covered else "-"),
        ("Sample ratio:", f"E {found['sampleRatioEValue']}"),
        ("Audits:", str(found["audits"])),
        ("Bad served:", f"{found['badServed']} canary requests"),
    ]
    names = ("OBJECTIVE", "EVENT", "MODE", "CANARY", "STABLE", "RATIO")
    header = (*names, "E", "E-SAFE", "2X-NEEDS", "VERDICT")
    rows = [
        (
            one["name"],
            one["event"],
            one["mode"],
            one["canary"],
            one["stable"],
            parts.interval(one),
            one["eValue"],
            one["promoteEValue"],
            one.get("requestsToDetect", ""),
            f"{one['verdict']} ⚠ suspect" if one["suspect"] else one["verdict"],
        )
        for one in found["objectives"]
    ]
    return f"{aligned(facts, indent='  ')}\n{tabled(header, rows, indent='  ')}"


def _rollback(status: Told, now_s: float) -> str:
    last = status["lastRollback"]
    if not last:
        return ""
    suspect = f" on {last['suspect']}" if last["suspect"] else ""
    facts = [
        ("Revision:", f"{last['revision']}, attempt {last['attempt']}"),
        ("When:", f"{parts.age_of(last['at'], now_s)} ago, {last['at']}"),
        ("Why:", f"{last['reason']}{suspect}, decided by {last['decidedBy']}"),
        ("Weight:", last["weight"]),
        ("Requests:", f"{last['requests']}, {last['canaryRequests']} of them the canary's"),
        ("Bad served:", f"{last['badServed']}"),
    ]
    if last["eValue"]:
        facts.insert(3, ("Evidence:", f"E {last['eValue']} of {last['threshold']}"))
    return aligned(facts, indent="  ")


def _backends(told: Told, now_s: float) -> str:
    rows = [
        (
            # Of servers that Weir runs there may be several versions, each with its own address.
            one["identity"] if one["identity"] in one["url"] else one["name"],
            one["model"],
            ", ".join(one["parts"]),
            ", ".join(one["arms"]),
            parts.out(one, now_s) if one["ejected"] else one.get("state", "ok"),
        )
        for one in told.get("backends", ())
    ]
    header = ("BACKEND", "MODEL", "USED-BY", "ARMS", "STATE")
    return tabled(header, rows, indent="  ") if rows else ""


def _tiers(told: Told) -> str:
    tiers = parts.tier_shares(told)
    rows = [
        (
            tier.name,
            str(tier.requests),
            f"{tier.share:.1%}",
            str(tier.input_tokens),
            str(tier.output_tokens),
            cost,
        )
        for tier, cost in zip(tiers, parts.costs(tiers), strict=True)
    ]
    header = ("TIER", "ANSWERED", "SHARE", "TOKENS-IN", "TOKENS-OUT", "COST")
    return tabled(header, rows, indent="  ") if rows else ""


def _history(told: Told, now_s: float) -> str:
    rows = [
        (
            one["revision"],
            one["outcome"],
            str(one["attempt"]),
            parts.age(one["since"], now_s) if one["since"] else "",
            one["reason"],
            one.get("eValue", ""),
        )
        for one in reversed(told["history"])
    ]
    header = ("REVISION", "OUTCOME", "ATTEMPT", "AGE", "REASON", "E-VALUE")
    return tabled(header, rows, indent="  ") if rows else ""


def _events(told: Told, now_s: float) -> str:
    rows = [
        (parts.age(one["at"], now_s), one["type"], one["reason"], one["message"])
        for one in reversed(told["events"])
    ]
    return tabled(("AGE", "TYPE", "REASON", "MESSAGE"), rows, indent="  ") if rows else ""
