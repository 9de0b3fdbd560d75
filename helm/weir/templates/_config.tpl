{{/* weir.toml: what stands under `config`, and where the mounted secrets lie. */}}

{{- define "weir.secretsDir" -}}/etc/weir/secrets{{- end }}

{{/* Of `secrets`, those that are given: a file's name, and the Secret and key it comes from. */}}
{{- define "weir.secretFiles" -}}
{{- range $file, $secret := . }}
{{- if $secret.name }}
{{ $file }}: {{ toJson $secret }}
{{- end }}
{{- end }}
{{- end }}

{{/* The configuration as it is rendered, as YAML. */}}
{{- define "weir.config" -}}
{{- $config := deepCopy .Values.config }}
{{- $dir := include "weir.secretsDir" . }}
{{- with .Values.secrets }}
{{- if .store.name }}{{ $_ := set $config.store "url_file" (printf "%s/store" $dir) }}{{ end }}
{{- if .redis.name }}{{ $_ := set $config.redis "url_file" (printf "%s/redis" $dir) }}{{ end }}
{{- $options := $config.kafka.options | default dict }}
{{- if .saslPassword.name }}{{ $_ := set $options "sasl_password_file" (printf "%s/saslPassword" $dir) }}{{ end }}
{{- if .sslKeyPassword.name }}{{ $_ := set $options "ssl_key_password_file" (printf "%s/sslKeyPassword" $dir) }}{{ end }}
{{- if $options }}{{ $_ := set $config.kafka "options" $options }}{{ end }}
{{- end }}
{{- if not (or $config.redis.url $config.redis.url_file) }}{{ $_ := unset $config "redis" }}{{ end }}
{{- toYaml $config }}
{{- end }}

{{/* Helm's own toToml makes a float of every number. JSON's scalars and lists of them are TOML's. */}}
{{- define "weir.toml" -}}
{{- $path := .path }}
{{- range $key, $value := .table }}
{{- if not (or (kindIs "map" $value) (kindIs "invalid" $value) (include "weir.areTables" (dict "value" $value))) }}
{{ include "weir.tomlKey" $key }} = {{ toJson $value }}
{{- end }}
{{- end }}
{{- range $key, $value := .table }}
{{- $name := list $path (include "weir.tomlKey" $key) | compact | join "." }}
{{- if kindIs "map" $value }}

[{{ $name }}]
{{- include "weir.toml" (dict "path" $name "table" $value) }}
{{- else if include "weir.areTables" (dict "value" $value) }}
{{- range $value }}

[[{{ $name }}]]
{{- include "weir.toml" (dict "path" $name "table" .) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "weir.tomlKey" -}}
{{- if regexMatch "^[A-Za-z0-9_-]+$" . }}{{ . }}{{ else }}{{ toJson . }}{{ end }}
{{- end }}

{{- define "weir.areTables" -}}
{{- if kindIs "slice" .value }}{{ with .value }}{{ if kindIs "map" (first .) }}yes{{ end }}{{ end }}{{ end }}
{{- end }}

{{- define "weir.configFile" -}}
# Rendered by Helm from `config` of the chart's values.
{{- include "weir.toml" (dict "path" "" "table" (include "weir.config" . | fromYaml)) }}
{{- end }}

{{/* Changes with what concerns this pool, so that another pool's change leaves its workers alone. */}}
{{- define "weir.configChecksum" -}}
{{- $config := include "weir.config" .root | fromYaml }}
{{- $_ := set $config "pools" (dict .pool (get $config.pools .pool)) }}
{{- toJson (list $config .root.Values.secrets) | sha256sum }}
{{- end }}

{{/* What no schema can say. */}}
{{- define "weir.validate" -}}
{{- range $pool, $_ := .Values.pools }}
{{- if not (hasKey $.Values.config.pools $pool) }}{{ fail (printf "pools.%s: there is no config.pools.%s" $pool $pool) }}{{ end }}
{{- end }}
{{- $secrets := .Values.secrets }}
{{- $store := .Values.config.store }}
{{- if and $store.url $secrets.store.name }}{{ fail "config.store.url and secrets.store.name are both set: give one" }}{{ end }}
{{- if not (or $store.url $secrets.store.name) }}{{ fail "the database is not named: put its address into a Secret and give that as secrets.store.name" }}{{ end }}
{{- if and .Values.config.redis.url $secrets.redis.name }}{{ fail "config.redis.url and secrets.redis.name are both set: give one" }}{{ end }}
{{- $text := toJson .Values.config }}
{{- with regexFind `"[^"]*":"[^"]*(://[^"@]*:[^"]*@|([?&]|\\u0026)[^="]*(?i:password)=)` $text }}
{{- fail (printf "config has an address with a password, under %s: the ConfigMap would show it. Put the address into a Secret and give that under secrets" (regexFind `^"[^"]*"` .)) }}
{{- end }}
{{- range regexFindAll `"[^"]*(?i:password|secret|key[_.]pem|oauthbearer[_.]config)[^"]*":` $text -1 }}
{{- if not (hasSuffix "_file\":" .) }}
{{- fail (printf "config has a secret under %s: the ConfigMap would show it. Use secrets.saslPassword or secrets.sslKeyPassword, a file that extraVolumes mounts, or extraEnv from a Secret" (trimSuffix ":" .)) }}
{{- end }}
{{- end }}
{{- end }}
