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


def test_an_old_event_of_an_object_before_does_not_replace_the_one_that_is(cache):
    cache.put(obj(8, uid="another"))
    cache.put(obj(6))
    assert version(cache) == "8"


def test_a_list_older_than_the_one_before_is_of_a_store_brought_back(cache, heard):
    """Its versions begin again where the backup was taken."""
    cache.replace("Pod", [obj(50), obj(60, name="b"), obj(55, namespace="other")], "70")
    cache.put(obj(80, name="c"))
    cache.drop(obj(71, name="b"))
    heard.clear()
    cache.replace("Pod", [obj(20), obj(21, name="b")], "30")
    assert [version(cache, name) for name in "abc"] == ["20", "21", None]
    assert not cache.of("Pod", "other")
    assert set(heard) == {"n", "other"}
    cache.put(obj(31))
    assert version(cache) == "31"


def test_of_one_namespace_brought_back_the_others_stay(cache):
    cache.replace("Pod", [obj(50)], "70", "n")
    cache.replace("Pod", [obj(50)], "", "n")
    cache.put(obj(55, namespace="other"))
    cache.replace("Pod", [], "30", "n")
    assert version(cache) is None
    assert cache.of("Pod", "other")
