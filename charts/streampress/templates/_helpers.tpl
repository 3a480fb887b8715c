{{/* Name of everything in this release. */}}
{{- define "streampress.name" -}}
{{- if contains "streampress" .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-streampress" .Release.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{/* Cluster-wide objects carry the namespace too: there may be several releases. */}}
{{- define "streampress.clusterName" -}}
{{ printf "%s-%s" .Release.Namespace (include "streampress.name" .) | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "streampress.selector" -}}
app.kubernetes.io/name: streampress-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "streampress.labels" -}}
{{ include "streampress.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: streampress
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "streampress.image" -}}
{{- $tag := .Values.image.tag | default .Chart.AppVersion -}}
{{ .Values.image.repository }}{{ if hasPrefix "sha256:" $tag }}@{{ else }}:{{ end }}{{ $tag }}
{{- end }}

{{/* What the operator may do with pipelines and their objects: a ClusterRole, or a Role in namespaced mode. */}}
{{- define "streampress.rules" -}}
- apiGroups: [streampress.dev]
  resources: [compressionpipelines]
  verbs: [get, list, watch, patch]
- apiGroups: [streampress.dev]
  resources: [compressionpipelines/status]
  verbs: [patch]
# Owner references that block their owner's deletion need this.
- apiGroups: [streampress.dev]
  resources: [compressionpipelines/finalizers]
  verbs: [update]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [serviceaccounts, services]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [rbac.authorization.k8s.io]
  resources: [roles, rolebindings]
  verbs: [get, list, watch, create, patch, delete]
# Leases are the workers' slots. The operator may grant workers only the verbs that it has itself: update.
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [get, list, watch, create, patch, update, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
# The Secret that a pipeline names for its queues and stream; never listed.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}
