{{- define "gateway.name" -}}
{{ .Release.Name }}-gateway
{{- end -}}

{{- define "gateway.selector" -}}
app.kubernetes.io/name: mqtt-browser-gateway
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "gateway.labels" -}}
{{ include "gateway.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{- /* Helm takes a number of a file for a fraction, and writes 1000000 as 1e+06. */}}
{{- define "gateway.quoted" -}}
{{- if kindIs "float64" . -}}
{{- if eq (floor .) . -}}
{{ int64 . | quote }}
{{- else -}}
{{ . | quote }}
{{- end -}}
{{- else -}}
{{ . | quote }}
{{- end -}}
{{- end -}}
