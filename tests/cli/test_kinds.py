"""Words and columns of what can be listed."""

import pytest

from weir_cli.kinds import COLUMNS, WIDE, meant, resource, rows
from weir_core import resources


@pytest.mark.parametrize(
    ("words", "kind", "names"),
    [
        ((), "ModelRoute", []),
        (("a", "b"), "ModelRoute", ["a", "b"]),
        (("routes",), "ModelRoute", []),
        (("backends",), "ModelBackend", []),
        (("mbackend", "small"), "ModelBackend", ["small"]),
        (("backend/small",), "ModelBackend", ["small"]),
        (("mrev",), "ModelRevision", []),
        (("modelrevisions.inference.weir.dev", "a-1", "a-2"), "ModelRevision", ["a-1", "a-2"]),
        (("llm/assistant",), "ModelRoute", ["llm/assistant"]),
        (("route/a", "b"), "ModelRoute", ["a", "b"]),
    ],
)
def test_words_mean_what_they_mean_to_kubectl(words, kind, names):
    assert meant(words) == (kind, names)


def test_name_is_given_with_its_resource():
    assert resource("ModelBackend") == "modelbackend.inference.weir.dev"


BACKEND = {
    "metadata": {"namespace": "llm", "name": "small", "creationTimestamp": "1970-01-01T00:00:00Z"},
    "spec": {},
    "status": {"model": "qwen", "ready": "True", "reason": "Loaded", "message": "1 of 1"},
}


def test_row_has_a_cell_for_each_column():
    header, (row,) = rows("ModelBackend", [BACKEND], wide=True, now_s=60.0, spaced=True)
    assert dict(zip(header, row, strict=True)) == {
        "NAMESPACE": "llm",
        "NAME": "small",
        "MODEL": "qwen",
        "READY": "True",
        "REPLICAS": "",
        "REASON": "Loaded",
        "AGE": "1m",
        "MESSAGE": "1 of 1",
    }


def test_object_without_a_status_has_empty_cells():
    header, (row,) = rows(
        "ModelRevision",
        [{"metadata": {"name": "a"}, "spec": {"of": {"name": "b"}}}],
        wide=False,
        now_s=1.0,
        spaced=False,
    )
    assert header == ("NAME", "OF", "OUTCOME", "ATTEMPT", "E-VALUE", "AGE")
    assert row[:5] == ("a", "b", "", "", "")


def test_every_kind_of_a_table_has_both_widths():
    assert set(COLUMNS) == set(WIDE)
    assert "ModelBackend" in resources.KINDS
