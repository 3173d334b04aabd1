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
