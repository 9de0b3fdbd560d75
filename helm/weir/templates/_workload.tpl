{{/* The workers of one pool. The context: root, pool, workload, name. */}}
{{- define "weir.workload" -}}
apiVersion: apps/v1
kind: {{ include "weir.workloadKind" . }}
metadata:
  name: {{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "weir.poolLabels" . | nindent 4 }}
spec:
  {{- if eq .workload.scaling.mode "fixed" }}
  replicas: {{ .workload.scaling.replicas }}
  {{- end }}
  selector:
    matchLabels: {{- include "weir.poolSelector" . | nindent 6 }}
  {{- if .workload.staticMembership }}
  serviceName: {{ .name }}
  podManagementPolicy: Parallel
  {{- end }}
  {{- with .workload.strategy }}
  {{ if $.workload.staticMembership }}updateStrategy{{ else }}strategy{{ end }}: {{- toYaml . | nindent 4 }}
  {{- end }}
  template:
    metadata:
      labels:
        {{- /* No version of the chart: a new one alone would replace every pod, and each is a rebalance. */}}
        {{- include "weir.poolSelector" . | nindent 8 }}
        {{- with .workload.podLabels }}{{ toYaml . | nindent 8 }}{{ end }}
      annotations:
        checksum/config: {{ include "weir.configChecksum" . }}
        {{- with .workload.podAnnotations }}{{ toYaml . | nindent 8 }}{{ end }}
    spec: {{- include "weir.pod" . | nindent 6 }}
{{- end }}

{{- define "weir.workloadKind" -}}
{{ if .workload.staticMembership }}StatefulSet{{ else }}Deployment{{ end }}
{{- end }}

{{- define "weir.pod" -}}
serviceAccountName: {{ include "weir.serviceAccount" .root }}
automountServiceAccountToken: false
enableServiceLinks: false
terminationGracePeriodSeconds: {{ include "weir.gracePeriod" . }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext: {{- toYaml .root.Values.podSecurityContext | nindent 2 }}
containers:
  - name: weir
    image: {{ include "weir.image" .root | quote }}
    imagePullPolicy: {{ .root.Values.image.pullPolicy }}
    args: [run, --config, /etc/weir/weir.toml, --pool, {{ .pool | quote }}]
    {{- if or .workload.staticMembership .workload.extraEnv }}
    env:
      {{- if .workload.staticMembership }}
      - name: WEIR__KAFKA__GROUP_INSTANCE_ID
        valueFrom: {fieldRef: {fieldPath: metadata.name}}
      {{- end }}
      {{- with .workload.extraEnv }}{{ toYaml . | nindent 6 }}{{ end }}
    {{- end }}
    ports:
      - {name: health, containerPort: {{ include "weir.healthPort" .root }}, protocol: TCP}
    livenessProbe: {{- toYaml .workload.livenessProbe | nindent 6 }}
    readinessProbe: {{- toYaml .workload.readinessProbe | nindent 6 }}
    {{- with .workload.resources }}
    resources: {{- toYaml . | nindent 6 }}
    {{- end }}
    securityContext: {{- toYaml .root.Values.securityContext | nindent 6 }}
    volumeMounts:
      {{- include "weir.mounts" .root.Values.secrets | nindent 6 }}
      # For `weir verify` in a running pod, which sorts on disk.
      - {name: tmp, mountPath: /var/tmp}
      {{- with .workload.extraVolumeMounts }}{{ toYaml . | nindent 6 }}{{ end }}
volumes:
  {{- include "weir.volumes" (dict "secrets" .root.Values.secrets "config" (include "weir.fullname" .root)) | nindent 2 }}
  - name: tmp
    emptyDir: {}
  {{- with .workload.extraVolumes }}{{ toYaml . | nindent 2 }}{{ end }}
{{- if .workload.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- range .workload.topologySpreadConstraints }}
  {{- $own := dict "labelSelector" (dict "matchLabels" (include "weir.poolSelector" $ | fromYaml)) }}
  - {{- merge (deepCopy .) $own | toYaml | nindent 4 }}
  {{- end }}
{{- end }}
{{- range $key := list "nodeSelector" "tolerations" "affinity" }}
{{- with get $.workload $key }}
{{ $key }}: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- with .workload.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{- define "weir.healthPort" -}}
{{- regexFind "[0-9]+$" .Values.config.health.listen }}
{{- end }}

{{- define "weir.mounts" -}}
- {name: config, mountPath: /etc/weir/weir.toml, subPath: weir.toml, readOnly: true}
{{- if include "weir.secretFiles" . }}
- {name: secrets, mountPath: {{ include "weir.secretsDir" . }}, readOnly: true}
{{- end }}
{{- end }}

{{- define "weir.volumes" -}}
- name: config
  configMap: {name: {{ .config }}}
{{- with include "weir.secretFiles" .secrets | fromYaml }}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      {{- range $file, $secret := . }}
      - secret: {name: {{ $secret.name }}, items: [{key: {{ $secret.key | quote }}, path: {{ $file }}}]}
      {{- end }}
{{- end }}
{{- end }}

{{/* A StatefulSet's pods are named by a Service without an address. */}}
{{- define "weir.service" -}}
{{- if .workload.staticMembership }}
apiVersion: v1
kind: Service
metadata:
  name: {{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "weir.poolLabels" . | nindent 4 }}
spec:
  clusterIP: None
  publishNotReadyAddresses: true
  selector: {{- include "weir.poolSelector" . | nindent 4 }}
  ports:
    - {name: health, port: {{ include "weir.healthPort" .root }}, targetPort: health}
{{- end }}
{{- end }}

{{- define "weir.pdb" -}}
{{- if .workload.pdb.enabled }}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "weir.poolLabels" . | nindent 4 }}
spec:
  maxUnavailable: {{ .workload.pdb.maxUnavailable }}
  selector:
    matchLabels: {{- include "weir.poolSelector" . | nindent 6 }}
{{- end }}
{{- end }}
