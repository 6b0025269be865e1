"""Who is meant: a standalone Weir or a cluster."""

import pytest

from weir_cli.arguments import SERVER, parser, reordered
from weir_cli.client import Client
from weir_cli.errors import CommandError, MissingError
from weir_cli.sources import find_route, is_cluster, source_of


def parsed(*words, prog="weir", env=None):
    return parser(prog=prog, env=env or {}).parse_args(words)


CLUSTER = (
    ("-n", "llm"),
    ("--namespace", "llm"),
    ("--context", "c"),
    ("--kubeconfig", "f"),
    ("-A",),
)


@pytest.mark.parametrize("words", CLUSTER, ids=" ".join)
def test_options_of_kubectl_mean_a_cluster(words):
    assert is_cluster(parsed("get", *words))


def test_weir_alone_means_a_standalone_one():
    args = parsed("get")
    assert not is_cluster(args)
    assert source_of(args).server == SERVER


def test_plugin_of_kubectl_means_a_cluster():
    assert is_cluster(parsed("get", prog="kubectl weir"))
    assert is_cluster(parsed("get", prog="kubectl weir", env={"WEIR_SERVER": "http://a:1"}))


def test_plugin_of_kubectl_can_ask_a_standalone_one():
    args = parsed("get", "--server", "http://a:1", prog="kubectl weir")
    assert not is_cluster(args)
    source = source_of(args)
    assert isinstance(source, Client)
    assert source.server == "http://a:1"


@pytest.mark.parametrize(("words", "option"), [(("-n", "a"), "--namespace"), (("-A",), "--all-n")])
def test_both_are_too_many(words, option):
    with pytest.raises(CommandError, match=f"saw --server and {option}") as told:
        is_cluster(parsed("get", "--server", "http://a:1", *words))
    assert told.value.code == 2


def test_rollout_and_validate_take_the_same_options():
    assert is_cluster(parsed("rollout", "abort", "a", "-n", "llm"))
    assert is_cluster(parsed("validate", "d", "--context", "c"))
    assert not is_cluster(parsed("validate", "d"))


def test_objects_of_a_cluster_are_not_asked_of_a_standalone_one(weir_command, management):
    ran = weir_command("get", "backends", "--server", management.url)
    assert ran.code == 2
    assert "ModelBackends are objects of a cluster" in ran.err


def test_route_is_found_by_its_name_or_key():
    keys = ("a/chat", "b/chat", "b/other")
    assert find_route("other", keys) == "b/other"
    assert find_route("a/chat", keys) == "a/chat"
    with pytest.raises(CommandError, match="wanted one of a/chat, b/chat"):
        find_route("chat", keys)
    with pytest.raises(MissingError, match="there is a/chat"):
        find_route("none", keys)


@pytest.mark.parametrize(
    ("words", "same_as"),
    [
        ("-n llm get routes", "get routes -n llm"),
        ("--context=c -A get", "get --context=c -A"),
        ("-n llm rollout abort a", "rollout abort a -n llm"),
        ("get -n llm", "get -n llm"),
        ("--version", "--version"),
        ("-n", "-n"),
        ("", ""),
    ],
)
def test_options_may_stand_before_the_command(words, same_as):
    assert reordered(words.split()) == same_as.split()
