"""The three CustomResourceDefinitions, whole: names, columns, schemas."""

from collections.abc import Mapping
from typing import Any

import msgspec
import yaml
from cel_rules import Rule
from default_texts import default_texts
from pydantic import BaseModel
from static_rules import NAME, SAME_NAME
from statuses import status_of
from structural import Schema, schema_of

from weir_core.backend_spec import BackendSpec
from weir_core.resources import GROUP_VERSION
from weir_core.revision_spec import RevisionSpec
from weir_core.route_spec import RouteSpec

GROUP, VERSION = GROUP_VERSION.split("/")
KEPT = {"helm.sh/resource-policy": "keep"}
"""The chart has the same files: an uninstalled chart must not take people's routes with it."""
HEADER = "# Written by hack/gen/current.py --write from the models in weir_core. Do not edit.\n"


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """What a CRD says beside its schema. Columns: header to JSONPath; `wide` ones with -o wide."""

    kind: str
    short: str
    told: str
    spec: type[BaseModel]
    rules: tuple[Rule, ...]
    columns: Mapping[str, str]
    wide: Mapping[str, str]

    @property
    def plural(self) -> str:
        """The name in paths, such as modelroutes."""
        return f"{self.kind.lower()}s"

    @property
    def file(self) -> str:
        """The name of the CRD's file."""
        return f"{GROUP}_{self.plural}.yaml"


KINDS = (
    Kind(
        kind="ModelRoute",
        short="mroute",
        told="What clients ask for, how it is answered, and how changes are let in.",
        spec=RouteSpec,
        rules=(NAME,),
        columns={
            "Phase": ".status.phase",
            "Step": ".status.step.progress",
            "Weight": ".status.weight.set",
            "Verdict": ".status.verdict",
            "E-Value": ".status.eValue",
            "Stable": ".status.stable.revision",
            "Canary": ".status.canary.revision",
        },
        wide={
            "Ready": '.status.conditions[?(@.type=="Ready")].status',
            "Message": ".status.message",
        },
    ),
    Kind(
        kind="ModelBackend",
        short="mbackend",
        told="A place that answers: a vLLM server that Weir runs, or somebody else's service.",
        spec=BackendSpec,
        rules=(NAME,),
        columns={
            "Model": ".spec.model.servedName",
            "Ready": ".status.ready",
            "Replicas": ".status.replicas",
            "Reason": ".status.reason",
        },
        wide={"Message": ".status.message"},
    ),
    Kind(
        kind="ModelRevision",
        short="mrev",
        told="One revision of a ModelRoute or a ModelBackend, and what became of it. Weir's own.",
        spec=RevisionSpec,
        rules=(SAME_NAME,),
        columns={
            "Of": ".spec.of.name",
            "Outcome": ".status.outcome",
            "Attempt": ".status.attempt",
            "E-Value": ".status.eValue",
        },
        wide={"Kind": ".spec.kind", "Reason": ".status.reason", "Suspect": ".status.suspect"},
    ),
)


def crd_of(kind: Kind) -> Schema:
    """Return a CustomResourceDefinition as plain data."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}", "annotations": dict(KEPT)},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind.kind,
                "listKind": f"{kind.kind}List",
                "plural": kind.plural,
                "singular": kind.kind.lower(),
                "shortNames": [kind.short],
                "categories": ["inference"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": _columns(kind),
                    "schema": {"openAPIV3Schema": root_schema(kind, default_texts())},
                }
            ],
        },
    }


def root_schema(kind: Kind, defaults: Mapping[str, str] | None) -> Schema:
    """Return the schema of the whole object; `defaults` as `schema_of` takes them."""
    spec = schema_of(kind.spec, "spec", defaults)
    told = " ".join((kind.spec.__doc__ or "").split())
    return {
        "type": "object",
        "description": kind.told,
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": f"{GROUP_VERSION}."},
            "kind": {"type": "string", "description": f"{kind.kind}."},
            # The name is here so that a rule can point at it.
            "metadata": {"type": "object", "properties": {"name": {"type": "string"}}},
            "spec": {"description": told, **spec},
            "status": status_of(kind.kind),
        },
        "x-kubernetes-validations": [rule.written() for rule in kind.rules],
    }


def _columns(kind: Kind) -> list[dict[str, Any]]:
    counts = {".status.attempt"}
    columns = [
        {
            "name": name,
            "type": "integer" if path in counts else "string",
            "jsonPath": path,
            **({"priority": 1} if name in kind.wide else {}),
        }
        for name, path in {**kind.columns, **kind.wide}.items()
    ]
    age = {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}
    return [*columns[: len(kind.columns)], age, *columns[len(kind.columns) :]]


class _Dumper(yaml.SafeDumper):
    """Without anchors: the same rule in two places is written twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def text_of(kind: Kind) -> str:
    """Return a CRD as the file that is committed."""
    dumped = yaml.dump(crd_of(kind), Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=True)
    return HEADER + dumped
