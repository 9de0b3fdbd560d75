{{/* What sets the number of a pool's workers. The context: root, pool, workload, name. */}}
{{- define "weir.scaling" -}}
{{- $scaling := .workload.scaling }}
{{- if gt (int $scaling.min) (int $scaling.max) }}{{ fail (printf "scaling of pool %s: min is %d and max %d" .pool (int $scaling.min) (int $scaling.max)) }}{{ end }}
{{- if eq $scaling.mode "hpa" }}{{ include "weir.hpa" . }}
{{- else if ne $scaling.mode "fixed" }}{{ include "weir.scaledObject" . }}{{ end }}
{{- end }}

{{- define "weir.scaledObject" -}}
{{- $scaling := .workload.scaling }}
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata:
  name: {{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "weir.poolLabels" . | nindent 4 }}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: {{ include "weir.workloadKind" . }}, name: {{ .name }}}
  minReplicaCount: {{ $scaling.min }}
  maxReplicaCount: {{ $scaling.max }}
  pollingInterval: {{ $scaling.pollingSeconds }}
  advanced:
    horizontalPodAutoscalerConfig:
      behavior: {{- include "weir.scalingBehavior" . | nindent 8 }}
  triggers:
    {{- if eq $scaling.mode "keda" }}
    {{- include "weir.desiredTrigger" . | nindent 4 }}
    {{- else }}
    {{- include "weir.lagTriggers" . | nindent 4 }}
    {{- end }}
{{- end }}

{{/* Every value of a trigger's metadata is a text: the definition of the resource refuses numbers and booleans. */}}
{{- define "weir.desiredTrigger" -}}
{{- $scaling := .workload.scaling }}
{{- $all := printf "sum(weir_desired_replicas{namespace=%q,pool=%q})" .root.Release.Namespace .pool }}
- type: prometheus
  # As many workers as the sum says.
  metricType: AverageValue
  metadata:
    serverAddress: {{ required (printf "scaling.prometheus.serverAddress of pool %s: Prometheus' address is needed for mode \"keda\"" .pool) $scaling.prometheus.serverAddress | quote }}
    query: {{ $scaling.prometheus.query | default $all | toJson }}
    threshold: "1"
    # No answer is no reason to scale: the number stays.
    ignoreNullValues: "false"
  {{- include "weir.triggerAuthentication" . | nindent 2 }}
{{- end }}

{{- define "weir.lagTriggers" -}}
{{- $config := .root.Values.config }}
{{- $of := get $config.pools .pool }}
{{- range $of.topics }}
{{- if hasPrefix "^" . }}
{{- fail (printf "pool %s finds its topics by a pattern, and mode \"keda-lag\" needs their names: use mode \"keda\", or name the topics" $.pool) }}
{{- end }}
- type: kafka
  metadata:
    bootstrapServers: {{ join "," $config.kafka.brokers | quote }}
    consumerGroup: {{ $of.group | default $.pool | quote }}
    topic: {{ . | quote }}
    lagThreshold: {{ $.workload.scaling.lag.perWorker | int | quote }}
    {{- range $key, $value := $.workload.scaling.lag.metadata }}
    {{ $key }}: {{ $value | quote }}
    {{- end }}
  {{- include "weir.triggerAuthentication" $ | nindent 2 }}
{{- end }}
{{- end }}

{{- define "weir.triggerAuthentication" -}}
{{- with .workload.scaling.authenticationRef -}}
authenticationRef: {name: {{ . }}}
{{- end }}
{{- end }}

{{- define "weir.hpa" -}}
{{- $scaling := .workload.scaling }}
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "weir.poolLabels" . | nindent 4 }}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: {{ include "weir.workloadKind" . }}, name: {{ .name }}}
  minReplicas: {{ $scaling.min }}
  maxReplicas: {{ $scaling.max }}
  behavior: {{- include "weir.scalingBehavior" . | nindent 4 }}
  metrics:
    - type: External
      external:
        metric:
          name: {{ $scaling.hpa.metric }}
          selector: {matchLabels: {pool: {{ .pool | quote }}}}
        target: {type: AverageValue, averageValue: "1"}
{{- end }}

{{- define "weir.scalingBehavior" -}}
scaleDown: {stabilizationWindowSeconds: {{ .workload.scaling.scaleDownWindowSeconds }}}
{{- end }}
