"""From texts to resources: places, kinds, repeats, and files that would eat the memory."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weir_core.compile import compile_world
from weir_core.manifests import parse
from weir_core.resources import MAX_DEPTH

BACKEND = """\
apiVersion: inference.weir.dev/v1alpha1
kind: ModelBackend
metadata: {name: small}
spec:
  model: {servedName: m}
  external:
    url: http://small:8000
"""
ROUTE = """\
apiVersion: inference.weir.dev/v1alpha1
kind: ModelRoute
metadata:
  name: assistant
spec:
  modelNames: [assistant]
  behaviour:
    deadline: 30s
    tiers:
    - name: small
      backendRef:
        name: small
      timeout: 6s
"""
CONFIG_MAP = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata:\n  a: %s\n"


def only_problem(text):
    (problem,) = parse({"a.yaml": text}).problems
    return problem


def carried(scalar):
    """Return what a scalar of YAML means, by way of a ConfigMap's data."""
    (resource,) = parse({"a.yaml": CONFIG_MAP % scalar}).resources
    return resource.data["a"]


def test_documents_of_all_files_are_read():
    parsed = parse({"a.yaml": f"{BACKEND}---\n{ROUTE}", "b.yaml": CONFIG_MAP % "x"})
    assert [one.kind for one in parsed.resources] == ["ModelBackend", "ModelRoute", "ConfigMap"]


@pytest.mark.parametrize("text", ["", "---\n---\n", "# nothing\n", "null\n"])
def test_empty_documents_are_passed_over(text):
    parsed = parse({"a.yaml": text})
    assert (parsed.resources, parsed.problems) == ((), ())


def test_list_is_read_item_by_item():
    items = f"- {BACKEND}".replace("\n", "\n  ")
    parsed = parse({"a.yaml": f"apiVersion: v1\nkind: List\nitems:\n{items}"})
    assert [one.metadata.name for one in parsed.resources] == ["small"]


def test_problem_in_a_list_has_its_line():
    text = "apiVersion: v1\nkind: List\nitems:\n- kind: Pod\n- kind: Node\n"
    assert [one.source for one in parse({"a.yaml": text}).problems] == ["a.yaml:4", "a.yaml:5"]


def test_json_is_yaml():
    text = '{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}'
    assert parse({"a.json": text}).resources[0].kind == "ConfigMap"


# Places.


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        pytest.param("timeout: 6s", "timeout: 6", 13, id="a bad value has its own line"),
        pytest.param("timeout: 6s", "timout: 6s", 13, id="an unknown field has its own line"),
        pytest.param("    deadline: 30s\n", "", 7, id="a missing field has its parent's line"),
        pytest.param("name: assistant", "name: A", 4, id="metadata has lines too"),
    ],
)
def test_problem_has_a_line(old, new, line):
    assert only_problem(ROUTE.replace(old, new)).source == f"a.yaml:{line}"


def test_lines_count_over_documents():
    text = f"{BACKEND}---\n{ROUTE.replace('6s', '6')}"
    assert only_problem(text).source == "a.yaml:21"


def test_problems_of_an_object_go_from_top_to_bottom():
    text = ROUTE.replace("30s", "30").replace("6s", "6").replace("[assistant]", "[]")
    assert [one.source for one in parse({"a": text}).problems] == ["a:6", "a:8", "a:13"]


def test_problem_of_compile_is_placed():
    parsed = parse({"a.yaml": ROUTE})
    (problem,) = compile_world(parsed.resources, cluster=False).problems
    assert parsed.placed(problem).source == "a.yaml:12"


def test_problem_of_an_unknown_object_is_left_alone():
    parsed = parse({})
    (problem,) = parse({"a.yaml": "kind: Pod"}).problems
    assert parsed.placed(problem) == problem


# Repeats.


def test_same_object_twice_is_told_with_the_first():
    problem = only_problem(f"{BACKEND}---\n{BACKEND}")
    assert (problem.source, problem.reason) == ("a.yaml:11", "Duplicate")
    assert "a.yaml:3" in problem.wanted


def test_first_of_two_counts():
    parsed = parse({"a.yaml": BACKEND, "b.yaml": BACKEND.replace("8000", "9000")})
    assert [one.spec.external.url for one in parsed.resources] == ["http://small:8000"]


def test_default_namespace_is_the_same_namespace():
    spoken = BACKEND.replace("{name: small}", "{name: small, namespace: default}")
    assert only_problem(f"{BACKEND}---\n{spoken}").reason == "Duplicate"


def test_repeated_key_is_told_with_both_lines():
    problem = only_problem(ROUTE.replace("    deadline: 30s\n", "    deadline: 30s\n" * 2))
    assert (problem.source, problem.seen) == ("a.yaml:9", "the key again, first on line 8")
    assert problem.object == "ModelRoute default/assistant"


# Scalars.


@pytest.mark.parametrize("word", ["on", "yes", "off", "NO", "2024-01-01", "1:30", "1_000", "0x1F"])
def test_word_stays_a_string(word):
    assert carried(word) == word


@pytest.mark.parametrize("scalar", ["true", "7", "-7", "0.5", "1e3", "{}", "[]"])
def test_other_value_is_no_string(scalar):
    assert "a string" in only_problem(CONFIG_MAP % scalar).wanted


def test_quoted_number_is_a_string():
    assert carried("'7'") == "7"


def test_number_beyond_all_is_refused():
    assert only_problem(CONFIG_MAP % "1e999").wanted == "numbers that are finite"


def test_block_text_keeps_its_lines():
    assert carried("|\n    {\n    }") == "{\n}\n"


# Files that are not well.


@pytest.mark.parametrize(
    ("text", "line"),
    [
        pytest.param("a: [1,\nb: 2\n", 3, id="a torn list"),
        pytest.param("a: 1\n\tb: 2\n", 2, id="a tab"),
        pytest.param("a: *nowhere\n", 1, id="an alias of nothing"),
        pytest.param("kind: x\na: !!python/object:os.system {}\n", 2, id="a foreign tag on a map"),
        pytest.param("kind: x\na: !custom 1\n", 2, id="a foreign tag"),
        pytest.param("a: !!int x\n", 1, id="a false tag"),
        pytest.param("a: !!float x\n", 1, id="a false float"),
        pytest.param("? [a]\n: 1\n", 1, id="a list as key"),
        pytest.param("a: \x00\n", 1, id="a zero byte"),
    ],
)
def test_bad_yaml_is_told(text, line):
    problem = only_problem(text)
    assert (problem.reason, problem.source) == ("InvalidYaml", f"a.yaml:{line}")


def test_other_files_are_read_beside_a_bad_one():
    parsed = parse({"a.yaml": "a: [", "b.yaml": BACKEND})
    assert (len(parsed.problems), len(parsed.resources)) == (1, 1)


def test_deep_nesting_is_refused():
    assert "nesting" in only_problem("[" * (MAX_DEPTH + 1)).seen


def test_very_deep_nesting_is_refused():
    assert "nesting" in only_problem("- " * 50_000).seen


def test_alias_is_followed():
    text = ROUTE.replace("name: assistant", "name: &n assistant").replace("[assistant]", "[*n]")
    assert parse({"a.yaml": text}).resources[0].spec.model_names == ("assistant",)


def test_alias_bomb_is_refused():
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    assert "aliases" in only_problem("\n".join(rows)).seen


def test_alias_of_itself_is_refused():
    assert "aliases" in only_problem("a: &a [*a]\n").seen


def test_bombs_of_all_documents_count_together():
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 4)]
    problems = parse({"a.yaml": "\n---\n".join(["\n".join(rows)] * 40)}).problems
    assert "aliases" in problems[-1].seen


@given(st.text(max_size=80))
def test_no_text_raises(text):
    parse({"a.yaml": text})


TOKENS = [*"-:[]{}&*!|>'\"#,?%@ \n", "\n  ", "a", "kind: ", "List", "items:\n", "&a", "*a", "---\n"]


@given(st.lists(st.sampled_from(TOKENS), max_size=30))
def test_no_heap_of_tokens_raises(tokens):
    parse({"a.yaml": "".join(tokens)})


@given(st.integers(0, len(ROUTE)), st.integers(0, len(ROUTE)))
def test_no_cut_of_a_file_raises(one, other):
    start, end = sorted((one, other))
    parse({"a.yaml": ROUTE[:start] + ROUTE[end:]})
