{{/* Names and labels. */}}
{{- define "weir.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "weir.fullname" -}}
{{- $name := include "weir.name" . }}
{{- if .Values.fullnameOverride }}{{ $name = .Values.fullnameOverride }}
{{- else if not (contains $name .Release.Name) }}{{ $name = printf "%s-%s" .Release.Name $name }}
{{- else }}{{ $name = .Release.Name }}{{ end }}
{{- $name | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/* The name of a pool's workload, which leaves room for what controllers append. */}}
{{- define "weir.workloadName" -}}
{{- printf "%s-%s" (include "weir.fullname" .root) (.pool | replace "_" "-") | trunc 52 | trimSuffix "-" }}
{{- end }}

{{/* Never a version in it: a selector cannot be changed. */}}
{{- define "weir.selector" -}}
app.kubernetes.io/name: {{ include "weir.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "weir.labels" -}}
{{ include "weir.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "weir.poolSelector" -}}
{{ include "weir.selector" .root }}
app.kubernetes.io/component: {{ .pool }}
{{- end }}

{{- define "weir.poolLabels" -}}
{{ include "weir.labels" .root }}
app.kubernetes.io/component: {{ .pool }}
{{- end }}

{{- define "weir.image" -}}
{{- if .Values.image.digest }}{{ printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}{{ printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) }}{{ end }}
{{- end }}

{{- define "weir.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ .Values.serviceAccount.name | default (include "weir.fullname" .) }}
{{- else }}{{ .Values.serviceAccount.name | default "default" }}{{ end }}
{{- end }}

{{/* The workload of a pool: what is said for all, and what for this one. */}}
{{- define "weir.workloadOf" -}}
{{- mergeOverwrite (deepCopy .root.Values.workload) (deepCopy (get .root.Values.pools .pool | default dict)) | toYaml }}
{{- end }}

{{/* Whether the operator's resources are made: auto, always or never. Empty is no. */}}
{{- define "weir.isMade" -}}
{{- if or (eq .create "always") (and (eq .create "auto") (.root.Capabilities.APIVersions.Has "monitoring.coreos.com/v1")) }}yes{{ end }}
{{- end }}

{{/* Seconds of a duration as weir reads them, rounded up. */}}
{{- define "weir.seconds" -}}
{{- $units := dict "ms" 0.001 "msec" 0.001 "s" 1.0 "sec" 1.0 "second" 1.0 "seconds" 1.0 "m" 60.0 "min" 60.0 "minute" 60.0 "minutes" 60.0 "h" 3600.0 "hr" 3600.0 "hour" 3600.0 "hours" 3600.0 }}
{{- $total := 0.0 }}
{{- $parts := regexFindAll "[0-9]+ *[a-z]+" .text -1 }}
{{- if or (not $parts) (regexReplaceAll "[0-9]+ *[a-z]+" .text "" | trim) }}
{{- fail (printf "%s: found %q, expected a duration such as 20s or 1min 30s" .where .text) }}
{{- end }}
{{- range $parts }}
{{- $unit := regexFind "[a-z]+$" . }}
{{- if not (hasKey $units $unit) }}{{ fail (printf "%s: %q has no unit that this chart knows: use ms, s, min or h" $.where $.text) }}{{ end }}
{{- $total = addf $total (mulf (regexFind "^[0-9]+" . | float64) (get $units $unit)) }}
{{- end }}
{{- ceil $total | int }}
{{- end }}

{{/* The pods' time to stop: longer than the pool may drain, and then leave its group and close. */}}
{{- define "weir.gracePeriod" -}}
{{- $where := printf "config.pools.%s.drain_deadline" .pool }}
{{- $drain := include "weir.seconds" (dict "where" $where "text" (get (get .root.Values.config.pools .pool) "drain_deadline" | default "20s")) | int }}
{{- $grace := .workload.terminationGracePeriodSeconds }}
{{- if kindIs "invalid" $grace }}{{ $grace = add $drain 25 }}{{ end }}
{{- if lt (int $grace) (add $drain 10 | int) }}
{{- fail (printf "terminationGracePeriodSeconds of pool %s is %d, and its drain_deadline %d s: a pod would be killed while it finishes its batches. Give it at least %d, or leave it out" .pool (int $grace) $drain (add $drain 10)) }}
{{- end }}
{{- int $grace }}
{{- end }}
