"""What the installed operator says of routers, read from its Deployment."""

import pytest

from weir_cli.errors import CommandError
from weir_cli.inject import settings_of


def operator(text, name="WEIR_ROUTER"):
    environment = [{"name": "OTHER", "value": "x"}, {"name": name, "value": text}]
    spec = {"template": {"spec": {"containers": [{"name": "operator", "env": environment}]}}}
    return {"kind": "Deployment", "metadata": {"namespace": "s", "name": "weir"}, "spec": spec}


def test_settings_are_those_of_the_chart():
    found = settings_of([operator('{"image": "weir:2", "feed": "op:8443", "replicas": 3}')])
    assert (found.image, found.feed, found.replicas) == ("weir:2", "op:8443", 3)


def test_settings_of_another_version_are_refused():
    with pytest.raises(CommandError, match=r"Deployment s/weir: WEIR_ROUTER: saw .*colour"):
        settings_of([operator('{"image": "a", "feed": "b", "colour": 1}')])


@pytest.mark.parametrize("found", [[], [operator("{}", name="ELSE")]])
def test_absent_operator_is_told_of(found):
    with pytest.raises(CommandError, match="no operator of Weir is installed"):
        settings_of(found)
