"""The sidecar's admission policy as a template of the chart.

`kubectl weir inject` and the API server put in the same router, since both are made by
weir_operator.sidecar. Here it gets stand-ins for what the chart's values decide, and every
stand-in gives way to Helm's own words for it.
"""

import yaml

from weir_operator.routers import RouterSettings
from weir_operator.sidecar import POLICY, admission_policy, cel

FILE = "charts/weir/templates/sidecar.yaml"
VERSION, USER = "@version@", 987_654_321
STAND_INS = RouterSettings(
    image="@image@",
    feed="@feed@",
    image_pull_policy="@pull@",
    sidecar_resources={"@resources@": 0},
    env={"@name@": "@text@"},
    run_as_user=USER,
)
WORDS = {
    VERSION: '{{ include "weir.policyVersion" . }}',
    POLICY: '{{ include "weir.name" . }}-sidecar',
    cel("@image@"): '{{ include "weir.cel" $router.image }}',
    cel("@feed@"): '{{ include "weir.cel" $router.feed }}',
    cel("@pull@"): '{{ include "weir.cel" $router.image_pull_policy }}',
    cel({"@resources@": 0}): '{{ include "weir.cel" $router.sidecar_resources }}',
    f", {cel({'name': '@name@', 'value': '@text@'})}": "{{ range $name, $text := $router.env }}"
    ', {{ include "weir.cel" (dict "name" $name "value" $text) }}{{ end }}',
    f', "runAsUser": {cel(USER)}': '{{ if not (kindIs "invalid" $router.run_as_user) }}'
    ', "runAsUser": {{ include "weir.cel" $router.run_as_user }}{{ end }}',
}
"""What stands in the generated policy, and what the chart says there."""

HEAD = """\
{{- /* Written by hack/gen/current.py --write from weir_operator/sidecar.py. Do not edit. */ -}}
{{- if and .Values.sidecar.enabled (include "weir.policyVersion" .) }}
{{- $router := include "weir.router" . | fromJson }}
"""
FOOT = """\
  {{- if .Values.namespaces }}
  matchResources:
    namespaceSelector: {{ include "weir.namespaces" . }}
  {{- end }}
{{- end }}
"""


def sidecar_template() -> str:
    """Return the whole file. Raises ValueError if the policy has no place for one of the values."""
    objects = admission_policy(STAND_INS, version=VERSION)
    for obj in objects:
        obj["metadata"] = {"name": obj["metadata"]["name"]}
    text = yaml.dump_all(objects, Dumper=_Dumper, sort_keys=False, width=10_000)
    for seen, words in WORDS.items():
        if seen not in text:
            raise ValueError(f"{FILE}: saw no {seen} in the policy, wanted it where {words} goes")
        text = text.replace(seen, words)
    return HEAD + text.replace(_NAME, _NAME + _LABELS) + FOOT


_NAME = f"  name: {WORDS[POLICY]}\n"
_LABELS = '  labels: {{- include "weir.labels" . | nindent 4 }}\n'


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks, and nothing twice by an anchor."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _text(dumper: _Dumper, text: str) -> yaml.Node:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)
