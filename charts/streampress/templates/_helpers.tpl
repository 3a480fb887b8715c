{{/* Name of everything in this release. A Service takes the fewest characters: no dots, a letter first. A name that had to be
     changed or shortened ends in a hash of the release's name, so that two releases never have the same. */}}
{{- define "streampress.name" -}}
{{- $full := .Release.Name }}
{{- if not (contains "streampress" $full) }}{{ $full = printf "%s-streampress" $full }}{{ end }}
{{- if and (le (len $full) 50) (regexMatch "^[a-z][-a-z0-9]*$" $full) }}{{ $full }}{{ else }}
{{- $plain := $full | replace "." "-" }}
{{- if not (regexMatch "^[a-z]" $plain) }}{{ $plain = printf "release-%s" $plain }}{{ end }}
{{- printf "%s-%s" ($plain | trunc 41 | trimSuffix "-") (.Release.Name | sha256sum | trunc 8) }}{{ end }}
{{- end }}

{{/* Cluster-wide objects carry the namespace too: there may be several releases. No namespace has a colon in its name, so that
     namespace "a" with "b-c" and namespace "a-b" with "c" differ. */}}
{{- define "streampress.clusterName" -}}
{{ .Release.Namespace }}:{{ include "streampress.name" . }}
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
# Why a worker does not start: an image that cannot be pulled, a Secret that is missing.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
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
