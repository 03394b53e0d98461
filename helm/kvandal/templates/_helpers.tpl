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

{{- define "kvandal.kafkaEnvironment" -}}
- {name: KVANDAL_KAFKA_BOOTSTRAP, value: {{ required "kafka.bootstrap is empty: give the brokers as host:port,host:port" .Values.kafka.bootstrap | quote }}}
{{- range $key, $value := .Values.kafka.settings }}
- {name: KVANDAL_KAFKA_{{ $key | upper }}, value: {{ $value | quote }}}
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
{{- end }}

{{- define "kvandal.kafkaMount" -}}
{{- if .Values.kafka.secretName }}
- {name: kafka-secret, mountPath: /etc/kvandal/kafka, readOnly: true}
{{- end }}
{{- end }}

{{- define "kvandal.kafkaVolume" -}}
{{- if .Values.kafka.secretName }}
- name: kafka-secret
  secret: {secretName: {{ .Values.kafka.secretName }}, defaultMode: 0440}
{{- end }}
{{- end }}

{{- define "kvandal.storeMount" -}}
{{- $root := index . 0 -}}
{{- if (index $root.Values.store (index . 1)).passwordSecret.name }}
- {name: store-secret, mountPath: /etc/kvandal/store, readOnly: true}
{{- end }}
{{- end }}

{{- define "kvandal.storeVolume" -}}
{{- $root := index . 0 -}}
{{- with (index $root.Values.store (index . 1)).passwordSecret }}
{{- if .name }}
- name: store-secret
  secret:
    secretName: {{ .name }}
    defaultMode: 0440
    items: [{key: {{ .key }}, path: password}]
{{- end }}
{{- end }}
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
