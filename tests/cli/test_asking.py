"""The commands that ask a running Weir, against a server with canned answers."""

import json

import pytest
import yaml

KEY = "llm/assistant"


@pytest.fixture
def ask(weir_command, management):
    """Run a command against the server."""
    return lambda *words: weir_command(*words, "--server", management.url)


@pytest.fixture
def one_route(management, scenes):
    management.routes = {KEY: scenes["progressing"]()}
    return management


# get


def test_get_shows_the_columns_of_kubectl(ask, one_route):
    header, line = ask("get").out.splitlines()
    assert "  ".join(header.split()) == (
        "NAME  PHASE  STEP  WEIGHT  VERDICT  E-VALUE  STABLE  CANARY  AGE"
    )
    assert "  ".join(line.split()) == (
        "assistant  Progressing  2/6  5%  NoHarmYet  3  chat-aaaaaaaaaa  chat-bbbbbbbbbb  -"
    )
    assert header.index("PHASE") == line.index("Progressing")


def test_get_shows_namespaces_when_there_are_several(ask, management, scenes):
    management.routes = {"a/chat": scenes["healthy"](), "b/chat": scenes["degraded"]()}
    header, first, second = ask("get", "routes").out.splitlines()
    assert header.split()[:2] == ["NAMESPACE", "NAME"]
    assert [line.split()[0] for line in (first, second)] == ["a", "b"]


def test_get_wide_adds_the_message(ask, one_route):
    header, line = ask("get", "-o", "wide").out.splitlines()
    assert header.endswith("MESSAGE")
    assert "READY" in header.split()
    assert "87 of 200 canary requests" in line


def test_get_wide_tells_what_a_canary_changes(ask, management, scenes):
    management.routes = {KEY: scenes["held"]()}
    line = ask("get", "-o", "wide").out.splitlines()[1]
    assert line.endswith("; onExhausted: ReturnError → ReturnLast")
    assert "it changes deadline: 30s → 9s; " in line
    assert "5.12%" in line.split()


NAMED = (
    ("assistant",),
    ("routes", "assistant"),
    ("route", "assistant"),
    ("route/assistant",),
    (KEY,),
    ("modelroutes", KEY),
    ("mroute", "assistant"),
    ("modelroutes.inference.weir.dev/assistant",),
)


@pytest.mark.parametrize("words", NAMED, ids=" ".join)
def test_get_takes_a_name_as_kubectl_does(ask, management, scenes, words):
    management.routes = {KEY: scenes["healthy"](), "llm/other": scenes["paused"]()}
    lines = ask("get", *words).out.splitlines()
    assert [line.split()[0] for line in lines] == ["NAME", "assistant"]


def test_get_takes_several_names(ask, management, scenes):
    management.routes = {f"llm/{name}": scenes["healthy"]() for name in "abc"}
    assert ask("get", "a", "c", "-o", "name").out == (
        "modelroute.inference.weir.dev/a\nmodelroute.inference.weir.dev/c\n"
    )


def test_get_of_an_unknown_name_ends_with_1(ask, one_route):
    ran = ask("get", "pods")
    assert (ran.code, ran.err) == (1, "weir: no route pods; there is llm/assistant\n")


@pytest.mark.parametrize(("shape", "read"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_get_gives_objects_as_kubectl_does(ask, one_route, shape, read):
    wanted = {
        "apiVersion": "inference.weir.dev/v1alpha1",
        "kind": "ModelRoute",
        "metadata": {"namespace": "llm", "name": "assistant"},
        "status": one_route.routes[KEY]["status"],
    }
    assert read(ask("get", "routes", "assistant", "-o", shape).out) == wanted
    told = read(ask("get", "-o", shape).out)
    assert (told["kind"], told["items"]) == ("List", [wanted])


def test_no_routes_as_json_are_an_empty_list(ask, management):
    assert json.loads(ask("get", "-o", "json").out)["items"] == []


def test_problems_of_the_configuration_go_to_standard_error(ask, one_route):
    one_route.problems = ["a.yaml:3: ModelRoute llm/b: saw x, wanted y"]
    ran = ask("get")
    assert ran.err == "problem: a.yaml:3: ModelRoute llm/b: saw x, wanted y\n"
    assert "problem" not in ran.out


def test_backends_that_are_out_go_to_standard_error(ask, one_route, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 10_000.0)
    why = {"cause": "Connect", "failures": 6, "since": 9_988.0}
    one_route.ejected = [{"name": "small", "url": "http://a:1", "ejected": why}]
    assert ask("get").err == (
        "problem: backend small: out for 12s (Connect, 6 failures in a row; http://a:1)\n"
    )


def test_age_is_shown_where_the_server_knows_it(ask, one_route, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 10_000.0)
    asked = one_route.answer
    one_route.answer = lambda path, content: (
        200,
        {**asked(path, content)[1], "created": {KEY: 10_000.0 - 200}},
    )
    assert ask("get").out.splitlines()[1].split()[-1] == "3m20s"


# naming a route


@pytest.mark.parametrize("name", ["assistant", KEY])
def test_route_goes_by_either_name(ask, one_route, name):
    assert ask("describe", name).code == 0


def test_unknown_route_is_told_with_those_there_are(ask, one_route):
    ran = ask("describe", "asistant")
    assert ran.code == 1
    assert ran.err == "weir: no route asistant; there is llm/assistant\n"


def test_ambiguous_route_is_told_with_its_candidates(ask, management, scenes):
    management.routes = {"a/chat": scenes["healthy"](), "b/chat": scenes["healthy"]()}
    ran = ask("describe", "chat")
    assert ran.code == 2
    assert ran.err == "weir: chat is ambiguous, wanted one of a/chat, b/chat\n"


# describe


def test_describe_tells_all_parts(ask, one_route):
    out = ask("describe", "assistant").out
    for part in ("Conditions:", "Evidence:", "Tiers:", "Revisions:", "Message:"):
        assert f"{part}" in out
    objective = next(line for line in out.splitlines() if line.startswith("  ttft"))
    assert "  ".join(objective.split()) == (
        "ttft  Slow  Enforce  4/87  40/1650  1.9  (0.6–5.1)  4.5  2.7  677  NoHarmYet"
    )
    assert "Saved 68% against always large (0.178 instead of 0.558)" in out


def test_describe_names_the_suspect(ask, management, scenes):
    management.routes = {KEY: scenes["harmed"]()}
    suspects = [line for line in ask("describe", KEY).out.splitlines() if "⚠ suspect" in line]
    assert [line.split()[0] for line in suspects] == ["errors"]


def test_describe_tells_why_it_rolled_back(ask, management, scenes):
    management.routes = {KEY: scenes["degraded"]()}
    out = ask("describe", KEY).out
    rollback = out.partition("Last rollback:\n")[2].partition("\n\n")[0]
    assert "Harm on errors, decided by controller" in rollback
    assert "E 132 of 125" in rollback
    assert "Evidence:\n" not in out.partition("Last rollback:")[0]


def test_describe_tells_what_is_wrong(ask, management, scenes):
    management.routes = {KEY: scenes["broken"]()}
    problems = part_of(ask("describe", KEY).out, "Problems")
    assert problems.startswith("  route.yaml:12: ModelRoute llm/assistant: ")


def test_describe_tells_which_backends_are_out(ask, management, scenes, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 1_234.0)
    management.routes = {KEY: scenes["outage"]()}
    out = ask("describe", KEY).out
    rows = [line.split(maxsplit=5) for line in part_of(out, "Backends").splitlines()[1:]]
    assert [(row[0], row[5]) for row in rows] == [
        ("small", "out for 12s (Connect, 7 failures in a row; http://127.0.0.1:1)"),
        ("large", "out for 12s (Timeout, 7 failures in a row; http://127.0.0.1:2)"),
    ]
    ready = next(line for line in out.splitlines() if line.startswith("  Ready "))
    assert ready.split()[1:3] == ["False", "NoHealthyBackend"]


def test_describe_tells_all_that_a_canary_changes(ask, management, scenes):
    management.routes = {KEY: scenes["held"]()}
    changes = part_of(ask("describe", KEY).out, "Changes, canary against stable")
    assert changes.splitlines()[0] == "  deadline: 30s → 9s"
    assert len(changes.splitlines()) == 4


def test_describe_tells_why_it_stands_still(ask, management, scenes):
    management.routes = {KEY: scenes["held"]()}
    line = next(one for one in ask("describe", KEY).out.splitlines() if "Stands still" in one)
    assert "it goes on some minutes after stable is well again" in line


def test_describe_says_nothing_of_a_coverage_that_is_not_known(ask, management, scenes):
    told = scenes["progressing"]()
    told["status"]["evidence"]["coverage"] = ""
    management.routes = {KEY: told}
    assert "  Coverage:       -\n" in ask("describe", KEY).out


def test_describe_of_an_older_server_leaves_out_what_it_does_not_tell(ask, management, scenes):
    told = scenes["progressing"]()
    del told["problems"], told["backends"], told["status"]["standstill"]
    del told["status"]["canary"]["changes"]
    management.routes = {KEY: told}
    assert ask("describe", KEY).code == ask("watch", KEY, "--once").code == 0
    assert "Backends:" not in ask("describe", KEY).out


def part_of(out, title):
    return out.partition(f"{title}:\n")[2].partition("\n\n")[0]


# watch


def test_watch_once_prints_one_plain_frame(ask, one_route):
    ran = ask("watch", "assistant", "--once")
    assert ran.code == 0
    assert ran.out.startswith("◌ Progressing  llm/assistant\n")
    assert "\x1b" not in ran.out


def test_watch_needs_no_name_when_there_is_one_route(ask, one_route):
    assert "EVIDENCE" in ask("watch", "--once").out


def test_watch_of_several_routes_is_the_list(ask, management, scenes):
    management.routes = {"llm/a": scenes["healthy"](), "llm/b": scenes["paused"]()}
    assert len(ask("watch", "--once").out.splitlines()) == 3


def test_watch_of_several_routes_tells_what_is_wrong(ask, management, scenes):
    management.routes = {"llm/a": scenes["healthy"](), "llm/b": scenes["paused"]()}
    management.problems = ["a.yaml:3: x"]
    why = {"cause": "Connect", "failures": 6, "since": 0.0}
    management.ejected = [{"name": "small", "url": "u", "ejected": why}]
    lines = ask("watch", "--once").out.splitlines()
    assert lines[3] == "⚠ a.yaml:3: x"
    assert lines[4].startswith("⚠ backend small: out for ")


# explain

EXPLAINED = {
    "route": KEY,
    "session": "s-1",
    "draw": "canary: the session stands at 2.1%, the canary has the first 5%",
    "arms": [
        {
            "arm": "stable",
            "revision": "chat-aaaaaaaaaa",
            "rule": "none matched: all tiers",
            "seen": {"prompt_chars": 2, "stream": False},
            "tiers": [
                {
                    "tier": "small",
                    "backend": "qwen",
                    "model": "qwen3-8b",
                    "accepts": ["whole: Finish", "sure: P(right) ≥ 0.85"],
                    "otherwise": "the next tier",
                }
            ],
            "deadlineMs": 30_000,
            "maxAttempts": 4,
            "fallback": [],
        }
    ],
}


def test_explain_sends_the_request_and_shows_the_decision(ask, management):
    management.explanation = EXPLAINED
    ran = ask("explain", "--model", "a", "--message", "hi", "--session", "s-1", "--header", "K: v")
    assert ran.code == 0
    assert management.asked[-1]["headers"] == {"K": "v", "x-session-id": "s-1"}
    body = json.loads(management.asked[-1]["body"])
    assert body == {"model": "a", "messages": [{"role": "user", "content": "hi"}]}
    assert "1. small   qwen      qwen3-8b   whole: Finish; sure: P(right) ≥ 0.85" in ran.out
    assert "  Seen:      prompt_chars 2, stream false\n" in ran.out


def test_explain_says_where_the_request_makes_no_difference(ask, management):
    (arm,) = EXPLAINED["arms"]
    management.explanation = {**EXPLAINED, "arms": [{**arm, "seen": {}}]}
    ran = ask("explain", "--model", "a", "--message", "hi")
    assert "  Seen:      nothing of the request: no rule asks\n" in ran.out


@pytest.mark.parametrize("name", ["assistant", KEY, "mroute/assistant", "routes/assistant"])
def test_route_may_be_named_with_its_kind(ask, one_route, name):
    assert ask("describe", name).out.startswith("Name:        assistant\n")


def test_route_is_no_backend(ask, one_route):
    ran = ask("describe", "backend/small")
    assert (ran.code, "saw a ModelBackend, backend/small" in ran.err) == (2, True)


def test_get_watches_as_watch_does(ask, one_route, monkeypatch):
    def interrupted(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", interrupted)
    ran = ask("get", "assistant", "--watch")
    assert (ran.code, "EVIDENCE" in ran.out) == (130, True)


@pytest.mark.parametrize(
    "words", [("backends", "-w"), ("a", "b", "-w"), ("-w", "-o", "json")], ids=" ".join
)
def test_what_cannot_be_watched_is_refused(ask, one_route, words):
    ran = ask("get", *words)
    assert (ran.code, ran.out) == (2, "")
    assert "wanted one" in ran.err


def test_explain_of_an_older_server_leaves_out_what_rules_saw(ask, management):
    (arm,) = EXPLAINED["arms"]
    old = {name: value for name, value in arm.items() if name != "seen"}
    management.explanation = {**EXPLAINED, "arms": [old]}
    ran = ask("explain", "--model", "a")
    assert (ran.code, "Seen:" in ran.out) == (0, False)


def test_explain_of_a_refused_request_ends_with_1(ask, management):
    why = {"status": 404, "code": "model_not_found", "why": "no route serves 'a'"}
    management.explanation = {"refused": why}
    ran = ask("explain", "--model", "a")
    assert (ran.code, ran.out) == (1, "refused with 404 model_not_found: no route serves 'a'\n")


def test_explain_takes_a_whole_request_from_a_file(ask, management, tmp_path):
    management.explanation = EXPLAINED
    (tmp_path / "r.json").write_text('{"model": "a", "prompt": "x"}')
    ask("explain", "--file", str(tmp_path / "r.json"), "--model", "b")
    assert json.loads(management.asked[-1]["body"]) == {"model": "b", "prompt": "x"}


def test_session_that_the_route_overlooked_is_noted(ask, management):
    management.explanation = {**EXPLAINED, "session": ""}
    assert "name it by --header" in ask("explain", "--model", "a", "--session", "s-1").err


# rollout


def test_command_goes_to_the_current_canary(ask, one_route):
    one_route.acknowledgement = {"result": "Done", "message": "abort obeyed"}
    ran = ask("rollout", "abort", "assistant")
    assert (ran.code, ran.out) == (
        0,
        "Done: abort chat-bbbbbbbbbb of llm/assistant: abort obeyed\n",
    )
    path = "/weir/v1/routes/llm/assistant/command"
    assert one_route.asked == [
        {"path": path, "verb": "abort", "revision": "chat-bbbbbbbbbb", "full": False}
    ]


def test_full_and_revision_are_passed_on(ask, one_route):
    ask("rollout", "promote", KEY, "--full", "--revision", "aaaaaaaaaa")
    assert one_route.asked[-1]["full"] is True
    assert one_route.asked[-1]["revision"] == "aaaaaaaaaa"


def test_refused_command_ends_with_1(ask, one_route):
    one_route.acknowledgement = {"result": "Refused", "message": "too late"}
    assert ask("rollout", "pause", KEY).code == 1


def test_command_without_a_canary_asks_for_a_revision(ask, management, scenes):
    management.routes = {KEY: scenes["healthy"]()}
    ran = ask("rollout", "retry", KEY)
    assert ran.code == 1
    assert "has no canary to retry; name a revision by --revision" in ran.err
    assert management.asked == []
