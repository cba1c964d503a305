{{/*
What every service has: ServiceAccount, Deployment, PodDisruptionBudget, HorizontalPodAutoscaler.

  include "ferroflow.workload" (dict "root" $ "name" "gateway" "values" .Values.gateway
    "token" false "grace" 30)

A service gives two templates of its own, each with the root as its context:

  ferroflow.<name>.config      its ferroflow.toml
  ferroflow.<name>.container   ports, probes, env and sources of /etc/ferroflow, as one YAML map;
                               restartOn: a text whose change restarts its pods

"token" says whether its pods may talk to the Kubernetes API.
*/}}
{{- define "ferroflow.workload" -}}
{{- $root := .root -}}
{{- $fullname := printf "%s-%s" (include "ferroflow.fullname" $root) .name -}}
{{- $config := include (printf "ferroflow.%s.config" .name) $root -}}
{{- $own := include (printf "ferroflow.%s.container" .name) $root | fromYaml -}}
{{- if $own.Error -}}
{{- fail (printf "ferroflow.%s.container: %s" .name $own.Error) -}}
{{- end -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ $fullname }}
  namespace: {{ $root.Release.Namespace }}
  labels: {{- include "ferroflow.labels" . | nindent 4 }}
  {{- with $root.Values.serviceAccount.annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
automountServiceAccountToken: false
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ $fullname }}
  namespace: {{ $root.Release.Namespace }}
  labels: {{- include "ferroflow.labels" . | nindent 4 }}
data:
  ferroflow.toml: {{ $config | quote }}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ $fullname }}
  namespace: {{ $root.Release.Namespace }}
  labels: {{- include "ferroflow.labels" . | nindent 4 }}
spec:
  {{- if not .values.autoscaling.enabled }}
  replicas: {{ .values.replicas }}
  {{- end }}
  revisionHistoryLimit: 3
  # A new pod is ready before an old one is told to end.
  strategy:
    type: RollingUpdate
    rollingUpdate: {maxUnavailable: 0, maxSurge: 1}
  selector:
    matchLabels: {{- include "ferroflow.selector" . | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "ferroflow.selector" . | nindent 8 }}
        {{- with merge (deepCopy .values.podLabels) $root.Values.commonLabels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      annotations:
        checksum/config: {{ printf "%s%s" $config (default "" $own.restartOn) | sha256sum }}
        {{- with .values.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      serviceAccountName: {{ $fullname }}
      automountServiceAccountToken: {{ .token }}
      enableServiceLinks: false
      terminationGracePeriodSeconds: {{ .grace }}
      {{- with $root.Values.imagePullSecrets }}
      imagePullSecrets:
        {{- range . }}
        - name: {{ . | quote }}
        {{- end }}
      {{- end }}
      {{- with .values.priorityClassName }}
      priorityClassName: {{ . | quote }}
      {{- end }}
      securityContext: {{- toYaml $root.Values.podSecurityContext | nindent 8 }}
      # Replicas apart from each other, as far as the cluster has room.
      topologySpreadConstraints:
        {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
        - maxSkew: 1
          topologyKey: {{ . }}
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels: {{- include "ferroflow.selector" $ | nindent 14 }}
          matchLabelKeys: [pod-template-hash]
        {{- end }}
      {{- with .values.nodeSelector }}
      nodeSelector: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .values.tolerations }}
      tolerations: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .values.affinity }}
      affinity: {{- toYaml . | nindent 8 }}
      {{- end }}
      containers:
        - name: {{ .name }}
          image: {{ include "ferroflow.image" $root | quote }}
          imagePullPolicy: {{ $root.Values.image.pullPolicy }}
          args: [serve, {{ .name }}, --config, /etc/ferroflow/ferroflow.toml]
          {{- with concat (default list $own.env) .values.extraEnv }}
          env: {{- toYaml . | nindent 12 }}
          {{- end }}
          ports: {{- toYaml $own.ports | nindent 12 }}
          {{- range list "startupProbe" "livenessProbe" "readinessProbe" }}
          {{ . }}: {{- toYaml (get $own .) | nindent 12 }}
          {{- end }}
          resources: {{- toYaml .values.resources | nindent 12 }}
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: {drop: [ALL]}
          volumeMounts:
            - {name: settings, mountPath: /etc/ferroflow, readOnly: true}
            - {name: data, mountPath: /var/lib/ferroflow}
            - {name: tmp, mountPath: /tmp}
      volumes:
        - name: settings
          projected:
            defaultMode: 0440
            sources:
              - configMap: {name: {{ $fullname }}}
              {{- with $own.sources }}
              {{- toYaml . | nindent 14 }}
              {{- end }}
        - name: data
          emptyDir: {sizeLimit: 256Mi}
        - name: tmp
          emptyDir: {sizeLimit: 256Mi}
{{- if .values.podDisruptionBudget.enabled }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ $fullname }}
  namespace: {{ $root.Release.Namespace }}
  labels: {{- include "ferroflow.labels" . | nindent 4 }}
spec:
  maxUnavailable: {{ .values.podDisruptionBudget.maxUnavailable }}
  # One that does not get ready must not keep a node from being drained.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels: {{- include "ferroflow.selector" . | nindent 6 }}
{{- end }}
{{- if .values.autoscaling.enabled }}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {{ $fullname }}
  namespace: {{ $root.Release.Namespace }}
  labels: {{- include "ferroflow.labels" . | nindent 4 }}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: {{ $fullname }}}
  minReplicas: {{ .values.autoscaling.minReplicas }}
  maxReplicas: {{ .values.autoscaling.maxReplicas }}
  metrics:
    - type: Resource
      resource:
        name: cpu
        target:
          type: Utilization
          averageUtilization: {{ .values.autoscaling.targetCPUUtilizationPercentage }}
{{- end }}
{{- end -}}
