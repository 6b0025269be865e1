"""Of two versions of one object the later stays, whichever way and order they come."""

import pytest

from weir_operator.cache import Cache


def obj(version, *, name="a", uid="u", namespace="n"):
    meta = {"name": name, "namespace": namespace, "uid": uid, "resourceVersion": str(version)}
    return {"kind": "Pod", "metadata": meta}


@pytest.fixture
def heard():
    return []


@pytest.fixture
def cache(heard):
    return Cache(heard.append)


def version(cache, name="a"):
    found = cache.get("Pod", "n", name)
    return found and found["metadata"]["resourceVersion"]


def test_later_version_stays(cache, heard):
    cache.put(obj(5))
    cache.put(obj(3))
    assert version(cache) == "5"
    assert heard == ["n"]


def test_deleted_object_does_not_come_back_by_an_old_event(cache):
    cache.put(obj(5))
    cache.drop(obj(6))
    cache.put(obj(5))
    assert version(cache) is None
    cache.put(obj(7, uid="another"))
    assert version(cache) == "7"


def test_deletion_of_an_older_object_leaves_the_new_one(cache):
    cache.put(obj(8))
    cache.drop(obj(6))
    assert version(cache) == "8"


def test_list_takes_away_what_is_gone_and_keeps_what_is_newer(cache, heard):
    cache.put(obj(5))
    cache.put(obj(9, name="b"))
    cache.put(obj(4, name="c", namespace="other"))
    cache.replace("Pod", [], "7", "n")
    assert version(cache) is None
    assert version(cache, "b") == "9"
    assert cache.of("Pod", "other")
    assert cache.namespaces("Pod") == {"n", "other"}


def test_versions_are_numbers_and_not_text(cache):
    cache.put(obj(99))
    cache.put(obj(100))
    assert version(cache) == "100"


def test_what_a_list_took_away_does_not_come_back_by_an_old_event(cache):
    cache.put(obj(5))
    cache.replace("Pod", [], "7", "n")
    cache.put(obj(6))
    assert version(cache) is None
    cache.put(obj(8))
    assert version(cache) == "8"
