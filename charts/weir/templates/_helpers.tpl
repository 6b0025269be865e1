{{- define "weir.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end -}}
{{- end }}
{{- define "weir.operator" -}}{{ include "weir.name" . }}-operator{{- end }}
{{- define "weir.selector" -}}
app.kubernetes.io/name: weir
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}
{{- define "weir.testSelector" -}}
app.kubernetes.io/name: weir
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: test
{{- end }}
{{- define "weir.labels" -}}
{{ include "weir.selector" . }}
{{ include "weir.common" . }}
{{- end }}
{{- define "weir.common" -}}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}
{{- define "weir.image" -}}{{ .image.repository }}:{{ .image.tag | default .root.Chart.AppVersion }}{{- end }}

{{- /* As Kubernetes' restricted profile wants it. */ -}}
{{- define "weir.podSecurity" -}}
runAsNonRoot: true
{{- if not (kindIs "invalid" .Values.runAsUser) }}
runAsUser: {{ int64 .Values.runAsUser }}
{{- end }}
seccompProfile: {type: RuntimeDefault}
{{- end }}
{{- define "weir.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- /* What weir_operator.routers.RouterSettings is made of, as JSON: operator and sidecars alike. */ -}}
{{- define "weir.router" -}}
{{- $fields := include "weir.routerFields" .Values.router | fromJson }}
{{- if gt (int .Values.router.replicas) (int .Values.router.maxReplicas) }}
{{- fail (printf "router.replicas: saw %d, wanted at most router.maxReplicas, which is %d" (int .Values.router.replicas) (int .Values.router.maxReplicas)) }}
{{- end }}
{{- /* Helm takes a value away that is null, and the code has a default of its own. */ -}}
{{- $_ := set $fields "run_as_user" .Values.router.runAsUser }}
{{- $overrides := dict }}
{{- range $namespace, $one := .Values.router.overrides }}
{{- if gt (int $one.replicas) (int $.Values.router.maxReplicas) }}
{{- fail (printf "router.overrides.%s.replicas: saw %d, wanted at most router.maxReplicas, which is %d" $namespace (int $one.replicas) (int $.Values.router.maxReplicas)) }}
{{- end }}
{{- $_ := set $overrides $namespace (include "weir.routerFields" $one | fromJson) }}
{{- end }}
{{- $_ := merge $fields (dict
  "image" (include "weir.image" (dict "image" .Values.router.image "root" .))
  "image_pull_policy" .Values.router.image.pullPolicy
  "image_pull_secrets" .Values.imagePullSecrets
  "sidecar_resources" .Values.sidecar.resources
  "feed" (printf "%s.%s.svc:8443" (include "weir.operator" .) .Release.Namespace)
  "overrides" $overrides
) }}
{{- toJson $fields -}}
{{- end }}

{{- define "weir.workloads" -}}
{{- with .Values.podTemplate }}
{{- dict "allow" .allow "runAsUser" .runAsUser "runAsGroup" .runAsGroup | toJson }}
{{- end }}
{{- end }}

{{- define "weir.routerFields" -}}
{{- $values := . }}
{{- $fields := dict }}
{{- range $name, $field := dict
  "replicas" "replicas"
  "resources" "resources"
  "env" "env"
  "runAsUser" "run_as_user"
  "preStopSeconds" "pre_stop_s"
  "graceSeconds" "grace_s"
  "nodeSelector" "node_selector"
  "tolerations" "tolerations"
  "affinity" "affinity"
  "priorityClassName" "priority_class_name"
  "podLabels" "pod_labels"
  "podAnnotations" "pod_annotations"
}}
{{- if hasKey $values $name }}{{ $_ := set $fields $field (index $values $name) }}{{ end }}
{{- end }}
{{- with $values.service }}
{{- if hasKey . "type" }}{{ $_ := set $fields "service_type" .type }}{{ end }}
{{- if hasKey . "annotations" }}{{ $_ := set $fields "service_annotations" .annotations }}{{ end }}
{{- end }}
{{- toJson $fields -}}
{{- end }}

{{- /* Plain data as CEL, every value `dyn`, as weir_operator.sidecar.cel writes it. */ -}}
{{- define "weir.cel" -}}
{{- $parts := list }}
{{- if kindIs "map" . }}
{{- range $name, $one := . }}{{ $parts = append $parts (printf "%s: %s" (toRawJson $name) (include "weir.cel" $one)) }}{{ end }}
{{- printf "dyn({%s})" (join ", " $parts) }}
{{- else if kindIs "slice" . }}
{{- range . }}{{ $parts = append $parts (include "weir.cel" .) }}{{ end }}
{{- printf "dyn([%s])" (join ", " $parts) }}
{{- else }}
{{- printf "dyn(%s)" (toRawJson .) }}
{{- end }}
{{- end }}

{{- /* The version of MutatingAdmissionPolicy that the cluster knows, nothing where it knows none. */ -}}
{{- define "weir.policyVersion" -}}
{{- if .Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy" -}}
admissionregistration.k8s.io/v1
{{- else if .Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1beta1/MutatingAdmissionPolicy" -}}
admissionregistration.k8s.io/v1beta1
{{- end }}
{{- end }}

{{- /* A label selector of the namespaces that are served; {} is all of them. */ -}}
{{- define "weir.namespaces" -}}
{{- if .Values.namespaces -}}
{matchExpressions: [{key: kubernetes.io/metadata.name, operator: In, values: {{ toJson .Values.namespaces }}}]}
{{- else -}}
{}
{{- end }}
{{- end }}
