{{/* Name of everything that belongs to the operator. */}}
{{- define "shoal.name" -}}
{{ printf "%s-operator" (trunc 54 .Release.Name | trimSuffix "-") }}
{{- end }}

{{/* What names an object of the whole cluster: two releases in two namespaces must not share it. */}}
{{- define "shoal.clusterName" -}}
{{ printf "shoal:%s:%s" .Release.Namespace .Release.Name }}
{{- end }}

{{/* The operator's network policies let pods with the first label, in its namespace, reach engines. */}}
{{- define "shoal.selector" -}}
app.kubernetes.io/name: shoal-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "shoal.labels" -}}
{{ include "shoal.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Namespace of the example in the notes. */}}
{{- define "shoal.example" -}}
{{ ternary "default" .Release.Namespace .Values.clusterWide }}
{{- end }}

{{/* Reference of an image: list of the root and the image's values. */}}
{{- define "shoal.image" -}}
{{- $root := index . 0 }}{{ $image := index . 1 -}}
{{ $image.repository }}:{{ $image.tag | default $root.Chart.AppVersion }}
{{- with $image.digest }}@{{ . }}{{ end }}
{{- end }}
