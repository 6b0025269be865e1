{{- define "weir.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end -}}
{{- end }}
{{- define "weir.operator" -}}{{ include "weir.name" . }}-operator{{- end }}
{{- define "weir.selector" -}}
app.kubernetes.io/name: weir
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}
{{- define "weir.labels" -}}
{{ include "weir.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}
{{- define "weir.image" -}}{{ .image.repository }}:{{ .image.tag | default .root.Chart.AppVersion }}{{- end }}
{{- define "weir.router" -}}
{{- dict
  "image" (include "weir.image" (dict "image" .Values.router.image "root" .))
  "image_pull_policy" .Values.router.image.pullPolicy
  "image_pull_secrets" .Values.imagePullSecrets
  "replicas" (int .Values.router.replicas)
  "resources" .Values.router.resources
  "node_selector" .Values.router.nodeSelector
  "tolerations" .Values.router.tolerations
  "feed" (printf "%s.%s.svc:8443" (include "weir.operator" .) .Release.Namespace)
| toJson -}}
{{- end }}
