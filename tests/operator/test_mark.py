"""The label of the pod that leads: one pod has it, whoever had it before."""

import asyncio

from weir_operator.kube import KubeError
from weir_operator.mark import LEADS, mark


class Pods:
    """Pods of one namespace by name, with labels applied on the server by one field manager."""

    def __init__(self, **labels):
        self.labels = {name: dict(one) for name, one in labels.items()}
        self.written = []

    async def every(self, kind, namespace="", selector=""):
        key, _, value = selector.partition("=")
        found = [name for name, labels in self.labels.items() if labels.get(key) == value]
        return [{"metadata": {"name": name, "uid": f"uid-{name}"}} for name in found], "1"

    async def apply(self, obj, *, sub=""):
        meta = obj["metadata"]
        name = meta["name"]
        if name not in self.labels or meta.get("uid", f"uid-{name}") != f"uid-{name}":
            raise KubeError(409, f"pod {name} is not the one that was meant")
        self.labels[name] = {k: v for k, v in self.labels[name].items() if k != LEADS}
        self.labels[name] |= meta.get("labels", {})
        self.written.append(name)


def marked(pods, name):
    asyncio.run(mark(pods, "weir-system", name))
    return {name for name, labels in pods.labels.items() if labels.get(LEADS) == "true"}


def test_pod_that_leads_gets_the_label():
    assert marked(Pods(a={"app": "x"}, b={}), "a") == {"a"}


def test_pod_that_led_before_loses_it():
    pods = Pods(a={LEADS: "true"}, b={"app": "x"})
    assert marked(pods, "b") == {"b"}
    assert pods.labels == {"a": {}, "b": {"app": "x", LEADS: "true"}}


def test_the_new_one_has_the_label_before_the_old_one_loses_it():
    pods = Pods(a={LEADS: "true"}, b={})
    marked(pods, "b")
    assert pods.written == ["b", "a"]


def test_nothing_is_written_where_all_is_well():
    pods = Pods(a={LEADS: "true"}, b={})
    marked(pods, "a")
    assert pods.written == []
