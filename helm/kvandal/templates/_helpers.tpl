{{- define "kvandal.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "kvandal.image" -}}
{{- with .Values.image }}{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}{{ end }}
{{- end }}

{{/* The labels that never change. Takes (list root component). */}}
{{- define "kvandal.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: kvandal
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "kvandal.labels" -}}
{{- $root := index . 0 -}}
{{ include "kvandal.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ $root.Chart.Name }}-{{ $root.Chart.Version }}
{{- end }}

{{/* What every pod has: nobody's privileges, and no token, since nothing here talks to the cluster's API. */}}
{{- define "kvandal.pod" -}}
serviceAccountName: {{ .Values.serviceAccountName }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: {{ .Values.runAsUser }}
  runAsGroup: {{ .Values.runAsUser }}
  fsGroup: {{ .Values.runAsUser }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "kvandal.container" -}}
image: {{ include "kvandal.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{/* /metrics answers as long as the process does its work; a first start may wait for a broker or a store. */}}
{{- define "kvandal.probes" -}}
startupProbe:
  httpGet: {path: /metrics, port: metrics}
  periodSeconds: 5
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /metrics, port: metrics}
  periodSeconds: 30
  timeoutSeconds: 10
readinessProbe:
  httpGet: {path: /metrics, port: metrics}
  periodSeconds: 15
  timeoutSeconds: 10
{{- end }}

{{/* Takes (list root role), as all that is about Kafka: each role signs in as itself. */}}
{{- define "kvandal.kafkaEnvironment" -}}
{{- $kafka := (index . 0).Values.kafka -}}
{{- $role := index $kafka (index . 1) -}}
- {name: KVANDAL_KAFKA_BOOTSTRAP, value: {{ required "kafka.bootstrap is empty: give the brokers as host:port,host:port" $kafka.bootstrap | quote }}}
{{- range $key, $value := $kafka.settings }}
- {name: KVANDAL_KAFKA_{{ $key | upper }}, value: {{ $value | quote }}}
{{- end }}
{{- if $kafka.tls }}
- {name: KVANDAL_KAFKA_TLS, value: "true"}
{{- else if or $kafka.caSecret.name $role.username $role.certificateSecret.name }}
{{- fail "kafka.tls is false: users, certificates and an authority of the brokers need it" }}
{{- end }}
{{- if $kafka.caSecret.name }}
- {name: KVANDAL_KAFKA_CA_FILE, value: /etc/kvandal/kafka/ca.crt}
{{- end }}
{{- with $role.username }}
- {name: KVANDAL_KAFKA_USERNAME, value: {{ . | quote }}}
- {name: KVANDAL_KAFKA_PASSWORD_FILE, value: /etc/kvandal/kafka/password}
{{- end }}
{{- if and $role.username (not $role.passwordSecret.name) }}
{{- fail (printf "kafka.%s.passwordSecret.name is empty: name the Secret with the password of %s" (index . 1) $role.username) }}
{{- end }}
{{- if $role.certificateSecret.name }}
- {name: KVANDAL_KAFKA_CERTIFICATE_FILE, value: /etc/kvandal/kafka/user.crt}
- {name: KVANDAL_KAFKA_KEY_FILE, value: /etc/kvandal/kafka/user.key}
{{- end }}
{{- end }}

{{/* Takes (list root role). */}}
{{- define "kvandal.storeEnvironment" -}}
{{- $root := index . 0 -}}
{{- $role := index $root.Values.store (index . 1) -}}
- {name: KVANDAL_STORE_URL, value: {{ required "store.url is empty: give ClickHouse as http://host:port" $root.Values.store.url | quote }}}
- {name: KVANDAL_STORE_DATABASE, value: {{ $root.Values.store.database | quote }}}
- {name: KVANDAL_STORE_USER, value: {{ $role.user | quote }}}
{{- if $role.passwordSecret.name }}
- {name: KVANDAL_STORE_PASSWORD_FILE, value: /etc/kvandal/store/password}
{{- end }}
{{- if $root.Values.store.caSecret.name }}
- {name: KVANDAL_STORE_CA_FILE, value: /etc/kvandal/store/ca.crt}
{{- end }}
{{- end }}

{{/* The Secrets of a role on Kafka, as sources of one volume; empty where it needs none. */}}
{{- define "kvandal.kafkaSecrets" -}}
{{- $kafka := (index . 0).Values.kafka -}}
{{- $role := index $kafka (index . 1) -}}
{{- with $kafka.caSecret }}{{ if .name }}
- secret: {name: {{ .name }}, items: [{key: {{ .key }}, path: ca.crt}]}
{{- end }}{{ end }}
{{- if $role.username }}
- secret: {name: {{ $role.passwordSecret.name }}, items: [{key: {{ $role.passwordSecret.key }}, path: password}]}
{{- end }}
{{- with $role.certificateSecret }}{{ if .name }}
- secret: {name: {{ .name }}, items: [{key: {{ .certificate }}, path: user.crt}, {key: {{ .key }}, path: user.key}]}
{{- end }}{{ end }}
{{- end }}

{{- define "kvandal.kafkaMount" -}}
{{- if include "kvandal.kafkaSecrets" . }}
- {name: kafka-secret, mountPath: /etc/kvandal/kafka, readOnly: true}
{{- end }}
{{- end }}

{{- define "kvandal.kafkaVolume" -}}
{{- with include "kvandal.kafkaSecrets" . }}
- name: kafka-secret
  projected:
    defaultMode: 0440
    sources: {{- . | nindent 6 }}
{{- end }}
{{- end }}

{{/* How many ingest processes have work: the partitions of the largest topic, as `kvandal topics apply` makes it. */}}
{{- define "kvandal.partitions" -}}
{{- .Values.kafka.settings.partitions | default "0" | int | default 8 -}}
{{- end }}

{{- define "kvandal.storeSecrets" -}}
{{- $store := (index . 0).Values.store -}}
{{- with $store.caSecret }}{{ if .name }}
- secret: {name: {{ .name }}, items: [{key: {{ .key }}, path: ca.crt}]}
{{- end }}{{ end }}
{{- with (index $store (index . 1)).passwordSecret }}{{ if .name }}
- secret: {name: {{ .name }}, items: [{key: {{ .key }}, path: password}]}
{{- end }}{{ end }}
{{- end }}

{{- define "kvandal.storeMount" -}}
{{- if include "kvandal.storeSecrets" . }}
- {name: store-secret, mountPath: /etc/kvandal/store, readOnly: true}
{{- end }}
{{- end }}

{{- define "kvandal.storeVolume" -}}
{{- with include "kvandal.storeSecrets" . }}
- name: store-secret
  projected:
    defaultMode: 0440
    sources: {{- . | nindent 6 }}
{{- end }}
{{- end }}

{{/* A settings file for a ConfigMap, which many may read: no password in it. Takes (list text value's-name). */}}
{{- define "kvandal.settingsText" -}}
{{- if regexMatch "(^|[^_A-Za-z0-9])password[\"']?\\s*=" (index . 0) }}
{{- fail (printf "%s holds a password, and would be readable in a ConfigMap: give password_file, and the file in a Secret" (index . 1)) }}
{{- end }}
{{- index . 0 | quote }}
{{- end }}

{{/* Restarts a pod whose settings changed. Takes the settings' text. */}}
{{- define "kvandal.checksum" -}}
checksum/settings: {{ . | sha256sum }}
{{- end }}

{{/* A claim of a StatefulSet. Takes (list name size class). */}}
{{- define "kvandal.claim" -}}
- metadata: {name: {{ index . 0 }}}
  spec:
    accessModes: [ReadWriteOnce]
    {{- with index . 2 }}
    storageClassName: {{ . }}
    {{- end }}
    resources: {requests: {storage: {{ index . 1 }}}}
{{- end }}
