"""What is told of objects that could not be applied: refused, failed at, too large. Pure."""

from typing import Any

from msgspec.structs import replace

from weir_core import reasons
from weir_core.errors import Problem
from weir_core.resources import title_of_object
from weir_core.revision_spec import MAX_CONTENT
from weir_operator.kube import KubeError

Obj = dict[str, Any]

REFUSALS = (400, 403, 413, 422)
"""Answers that asking again does not change."""


def refused(title: str, error: KubeError, *, what: str = "pods and services") -> Problem:
    """Return what the API server does not take as a problem of the object that it is for."""
    ends = "because it is being terminated" in str(error)
    wanted = f"{what} that it takes; it is tried again by itself"
    return Problem(
        object=title,
        field="",
        seen=f"what the API server refuses: {error}"[:600],
        wanted="a namespace that stays: nothing new begins in this one" if ends else wanted,
        reason=reasons.NAMESPACE_ENDS if ends else reasons.REFUSED,
    )


def failing(title: str, error: KubeError) -> Problem:
    """Return what could not be done as a problem of the object that it is for."""
    return Problem(
        object=title,
        field="",
        seen=f"what fails again and again: {error}"[:600],
        wanted="an API server that takes it; it is tried again by itself, and all else goes on",
        reason=reasons.NOT_APPLIED,
        condition="WorkloadReady",
    )


def of_route(route: Obj, problem: Problem) -> Problem:
    """Return what a namespace's routers lack as a problem of one of its routes."""
    wanted = "that name for Weir's routers: rename or delete the object, or move the routes"
    return replace(
        problem,
        object=title_of_object(route),
        field="",
        seen=f"{problem.object}: {problem.seen}",
        wanted=wanted if problem.reason == reasons.FOREIGN_OBJECT else problem.wanted,
        condition="Programmed",
    )


def content_too_large(title: str, error: ValueError) -> Problem:
    """Return that a backend is more than its ModelRevision can hold."""
    return Problem(
        object=title,
        field="spec",
        seen=f"what a ModelRevision cannot hold: {error}"[:600],
        wanted=f"at most {MAX_CONTENT:,} characters of spec and rendered pods",
        reason="TooLarge",
    )
