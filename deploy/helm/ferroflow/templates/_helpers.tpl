{{/* Names, labels, image: what every object has. */}}

{{- define "ferroflow.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Labels that select the pods of a service: dict "root" $ "name" "gateway". */}}
{{- define "ferroflow.selector" -}}
app.kubernetes.io/name: {{ default .root.Chart.Name .root.Values.nameOverride | trunc 63 | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .name }}
{{- end -}}

{{/* All labels of an object: dict "root" $ and, for objects of one service, "name". */}}
{{- define "ferroflow.labels" -}}
{{- $labels := dict
  "app.kubernetes.io/name" (default .root.Chart.Name .root.Values.nameOverride | trunc 63)
  "app.kubernetes.io/instance" .root.Release.Name
  "app.kubernetes.io/version" .root.Chart.AppVersion
  "app.kubernetes.io/part-of" "ferroflow"
  "app.kubernetes.io/managed-by" .root.Release.Service
  "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_") -}}
{{- if .name -}}
{{- $_ := set $labels "app.kubernetes.io/component" .name -}}
{{- end -}}
{{- toYaml (merge $labels .root.Values.commonLabels) -}}
{{- end -}}

{{- define "ferroflow.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{- printf "%s@%s" .repository .digest -}}
{{- else -}}
{{- printf "%s:%s" .repository (default $.Chart.AppVersion .tag) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Where pods of tasks run. */}}
{{- define "ferroflow.tasksNamespace" -}}
{{- default (printf "%s-tasks" .Release.Namespace) .Values.tasks.namespace -}}
{{- end -}}

{{- define "ferroflow.identitySecret" -}}
{{- default (printf "%s-identity" (include "ferroflow.fullname" .)) .Values.identity.existingSecret -}}
{{- end -}}

{{- define "ferroflow.apiKeysSecret" -}}
{{- default (printf "%s-api-keys" (include "ferroflow.fullname" .)) .Values.apiKeys.existingSecret -}}
{{- end -}}

{{/* Every name of the gateway's Service. */}}
{{- define "ferroflow.gatewayHosts" -}}
{{- $name := printf "%s-gateway" (include "ferroflow.fullname" .) -}}
{{- $hosts := list
  $name
  (printf "%s.%s" $name .Release.Namespace)
  (printf "%s.%s.svc" $name .Release.Namespace)
  (printf "%s.%s.svc.%s" $name .Release.Namespace .Values.clusterDomain) -}}
{{- concat $hosts .Values.gateway.allowedHosts .Values.ingress.hosts | uniq | toJson -}}
{{- end -}}

{{/* A variable from a secret: list name secret key. */}}
{{- define "ferroflow.secretEnv" -}}
- name: {{ index . 0 }}
  valueFrom:
    secretKeyRef:
      name: {{ index . 1 | quote }}
      key: {{ index . 2 | quote }}
{{- end -}}

{{/*
Settings as TOML: dict "root" $ "config" <what the chart sets>. Numbers of values come as floats,
and no setting of ours is one.
*/}}
{{- define "ferroflow.toml" -}}
{{- $all := mergeOverwrite .config (deepCopy .root.Values.config) -}}
{{- regexReplaceAll "(?m)^(\\s*\\S+ = -?\\d+)\\.0$" (toToml $all) "${1}" -}}
{{- end -}}

{{/* The URLs of databases. */}}
{{- define "ferroflow.databaseSecret" -}}
{{- required "database.existingSecret: name a secret with the URLs of the databases" .Values.database.existingSecret -}}
{{- end -}}
