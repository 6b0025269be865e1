"""Whose an object is decides whether it may be written over."""

import pytest

from weir_operator.objects import Owner, foreign, metadata, owner_of

OURS = {"app.kubernetes.io/managed-by": "weir"}


def existing(*owners, labels=None):
    refs = [{"kind": "ModelRevision", "name": uid, "uid": uid} for uid in owners]
    meta = {"name": "x-1", "namespace": "llm", "labels": labels or {}, "ownerReferences": refs}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta}


@pytest.mark.parametrize(
    ("obj", "uid"),
    [
        (existing("u1", labels=OURS), "u1"),
        (existing("u1"), "u1"),
        (existing("u0", "u1"), "u1"),
        (existing(labels=OURS), "u1"),
        (existing("u2", labels=OURS), ""),
    ],
    ids=[
        "of the owner, labelled",
        "of the owner, whoever took the label off",
        "of the owner and another",
        "restored from a backup without owners",
        "of any owner where none is expected",
    ],
)
def test_object_of_weirs_may_be_written(obj, uid):
    assert foreign(obj, uid) is None


@pytest.mark.parametrize(
    ("obj", "uid", "seen"),
    [
        (existing(), "u1", "without the label"),
        (existing(), "", "without the label"),
        (existing(labels={"app.kubernetes.io/managed-by": "Helm"}), "u1", "without the label"),
        (existing("u2", labels=OURS), "u1", "another owner: ModelRevision u2"),
    ],
)
def test_object_of_somebody_else_is_told_of(obj, uid, seen):
    problem = foreign(obj, uid)
    assert problem.reason == "ForeignObject"
    assert problem.object == "Deployment llm/x-1"
    assert seen in problem.seen


def test_object_without_labels_at_all_is_somebody_elses():
    assert foreign({"kind": "Service", "metadata": {"name": "x", "namespace": "n"}}) is not None


def test_owners_are_told_in_one_order():
    """The order that routes are listed in must not write objects anew."""
    a, b = (Owner(api_version="v1", kind="K", name=n, uid=n) for n in "ab")
    assert metadata("x", "n", {}, owners=[a, b]) == metadata("x", "n", {}, owners=[b, a])


def test_owner_is_read_from_an_object():
    obj = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "a", "uid": "u"}}
    reference = {"apiVersion": "v1", "kind": "ServiceAccount", "name": "a", "uid": "u"}
    assert owner_of(obj).reference() == reference
    assert owner_of(obj).reference(controller=True) == {**reference, "controller": True}
