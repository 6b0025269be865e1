"""Arguments, exit codes and the one line of trouble."""

import json
import subprocess
import sys

import pytest

COMMANDS = (
    "serve",
    "validate",
    "get",
    "describe",
    "watch",
    "explain",
    "rollout",
    "demo",
    "version",
)
ASKING = (
    ("get",),
    ("describe", "a"),
    ("watch", "--once"),
    ("explain", "--model", "a"),
    ("rollout", "abort", "a"),
)


def test_help_names_every_command(weir_command):
    ran = weir_command("--help")
    assert ran.code == 0
    assert all(f"    {name} " in ran.out for name in COMMANDS)


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("unknown",),
        ("serve",),
        ("serve", "--config", "/nowhere"),
        ("serve", "--config", ".", "--listen", "8080"),
        ("serve", "--config", ".", "--listen", "::1:8080"),
        ("serve", "--config", ".", "--listen", "a:65536"),
        ("serve", "--config", ".", "--log-format", "xml"),
        ("validate",),
        ("validate", "/nowhere"),
        ("get", "-o", "xml"),
        ("describe",),
        ("watch", "--interval", "0"),
        ("watch", "--interval", "nan"),
        ("explain",),
        ("explain", "--model", "a", "--message", "b", "--file", "c"),
        ("explain", "--file", "/nowhere"),
        ("explain", "--model", "a", "--session", "s", "--header", "X-Session-Id: t"),
        ("explain", "--model", "a", "--header", "a=1", "--header", "A=2"),
        ("watch", "--once", "--interval", "1"),
        ("explain", "--model", "a", "--header", "novalue"),
        ("rollout", "promote"),
        ("rollout", "abort", "a", "--full"),
        ("get", "--server", "ftp://a"),
        ("get", "--server", "http://[::1"),
        ("get", "--server", "http://a:b"),
    ],
)
def test_wrong_use_ends_with_2(weir_command, words):
    ran = weir_command(*words)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("get", "--server", "http://a", "-n", "b"), "saw --server and --namespace"),
        (("get", "--server", "http://a", "-A"), "saw --server and --all-namespaces"),
        (("describe", "r", "--server", "http://a", "--context", "c"), "saw --server and --context"),
        (("validate", "FILE", "--offline", "--context", "c"), "saw --context and --offline"),
        (("validate", "FILE", "--offline", "--kubeconfig", "k"), "saw --kubeconfig and --offline"),
        (
            ("inject", "-f", "FILE", "--image", "i", "--feed", "h:1", "--context", "c"),
            "saw --context and both --image and --feed",
        ),
    ],
    ids=lambda one: " ".join(one) if isinstance(one, tuple) else "",
)
def test_option_that_would_make_no_difference_is_refused(weir_command, tmp_path, words, told):
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}}
    (tmp_path / "pod.json").write_text(json.dumps({**pod, "spec": {"containers": []}}))
    ran = weir_command(*(str(tmp_path / "pod.json") if one == "FILE" else one for one in words))
    assert (ran.code, ran.out) == (2, "")
    assert told in ran.err


@pytest.mark.parametrize("words", ASKING, ids=lambda words: words[0])
def test_absent_server_is_told_in_one_line(weir_command, words):
    ran = weir_command(*words, "--server", "http://127.0.0.1:1")
    assert ran.code == 1
    assert ran.err == (
        "weir: http://127.0.0.1:1 does not answer (connection refused); start it with "
        "`weir serve --config DIR`, or name another by --server or WEIR_SERVER\n"
    )


def test_server_may_be_named_by_the_environment(weir_command, monkeypatch, management):
    monkeypatch.setenv("WEIR_SERVER", management.url.removeprefix("http://"))
    assert weir_command("get").err == "no routes\n"


def test_proxy_of_the_environment_is_not_asked(weir_command, monkeypatch, management):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert weir_command("get", "--server", management.url).code == 0


def test_another_server_is_told_from_weir(weir_command, management):
    ran = weir_command("get", "--server", f"{management.url}/elsewhere")
    assert ran.code == 1
    assert "--server wants the management address" in ran.err


def test_version_is_printed(weir_command):
    assert weir_command("version").out == weir_command("--version").out
    assert weir_command("version").out.startswith("weir ")


def test_reader_that_leaves_early_is_no_error(tmp_path):
    (tmp_path / "a.yaml").write_text("kind: Unknown\n---\n" * 5_000)
    command = f"{sys.executable} -m weir_cli validate {tmp_path} | head -1"
    ran = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert "a.yaml:1: Unknown" in ran.stdout
    assert ran.stderr == ""


def test_interrupt_is_told_in_one_line(weir_command, monkeypatch):
    def interrupted(args):
        raise KeyboardInterrupt

    monkeypatch.setattr("weir_cli.get.run", interrupted)
    ran = weir_command("get")
    assert (ran.code, ran.out, ran.err) == (130, "", "weir: interrupted\n")


def test_help_imports_no_command():
    """Help and completion stay quick."""
    look = (
        "import sys; from weir_cli.arguments import parser; parser(prog='weir', env={});"
        "heavy = ('rich', 'uvicorn', 'fastapi', 'msgspec', 'yaml', 'weir_router.serve');"
        "print([name for name in heavy if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"
