{{/* The name of all objects: at most 52 characters, because a StatefulSet adds a number and a hash of ten characters to it. */}}
{{- define "broadway.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- $name := .Values.nameOverride | default .Chart.Name -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "broadway.selectorLabels" -}}
app.kubernetes.io/name: {{ .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "broadway.labels" -}}
{{ include "broadway.selectorLabels" . }}
app.kubernetes.io/part-of: broadway
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end -}}

{{- define "broadway.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (ternary (include "broadway.fullname" .) "default" .Values.serviceAccount.create) -}}
{{- end -}}

{{/* The pipelines of the settings, as YAML. Refuses a text that is no settings file. */}}
{{- define "broadway.pipelines" -}}
{{- $settings := fromYaml .Values.settings -}}
{{- if hasKey $settings "Error" -}}
{{- fail (printf "settings: expected the text of a settings file in YAML: %s" $settings.Error) -}}
{{- end -}}
{{- if not (and (kindIs "map" $settings.pipelines) $settings.pipelines) -}}
{{- fail "settings: expected at least one pipeline under `pipelines`; give the file by --set-file settings=FILE" -}}
{{- end -}}
{{- range $name, $pipeline := $settings.pipelines -}}
{{- if not (kindIs "map" $pipeline) -}}
{{- fail (printf "settings: pipelines.%s: expected a section" $name) -}}
{{- end -}}
{{- end -}}
{{- toYaml $settings.pipelines -}}
{{- end -}}

{{/* Seconds from SIGTERM to SIGKILL: the longest drain, 2 s after which the daemon has left, and some more. */}}
{{- define "broadway.graceSeconds" -}}
{{- if not (kindIs "invalid" .Values.terminationGracePeriodSeconds) -}}
{{- int64 .Values.terminationGracePeriodSeconds -}}
{{- else -}}
{{- $longest := 0.0 -}}
{{- range $name, $pipeline := include "broadway.pipelines" . | fromYaml -}}
{{- $given := get $pipeline "shutdown_timeout" | default "25" | toString | trim -}}
{{- if not (regexMatch "^[0-9]+([.][0-9]+)?\\s*(ms|s|m|h)?$" $given) -}}
{{- fail (printf "settings: pipelines.%s.shutdown_timeout: the chart cannot read %q; set terminationGracePeriodSeconds" $name $given) -}}
{{- end -}}
{{- $unit := get (dict "ms" 0.001 "m" 60.0 "h" 3600.0) (regexFind "[a-z]+$" $given) | default 1.0 -}}
{{- $longest = maxf $longest (mulf (regexFind "^[0-9.]+" $given | float64) $unit) -}}
{{- end -}}
{{- add (ceil $longest | int64) 5 -}}
{{- end -}}
{{- end -}}

{{/* Refuses values that contradict each other. Partitions without a reader would wait, for example. */}}
{{- define "broadway.check" -}}
{{- $stateful := eq .Values.kind "StatefulSet" -}}
{{- if and $stateful .Values.keda.enabled -}}
{{- fail "keda.enabled: the number of pods of a StatefulSet must not change by itself" -}}
{{- end -}}
{{- if and .Values.keda.enabled (not (or .Values.keda.rabbitmq .Values.keda.sqs)) -}}
{{- fail "keda.enabled: name at least one queue in keda.rabbitmq or keda.sqs" -}}
{{- end -}}
{{- if and $stateful (kindIs "invalid" .Values.replicas) -}}
{{- fail "replicas: a StatefulSet needs a number, because it must not change by itself" -}}
{{- end -}}
{{- range $name, $pipeline := include "broadway.pipelines" . | fromYaml -}}
{{- $own := get $pipeline "own" | default "" | toString | trim -}}
{{- if hasPrefix "ordinal" $own -}}
{{- if not $stateful -}}
{{- fail (printf "settings: pipelines.%s.own is %q, which needs pods with numbers: set kind to StatefulSet" $name $own) -}}
{{- end -}}
{{- $pods := regexFind "[0-9]+$" $own -}}
{{- if $pods -}}
{{- if ne (int64 $pods) (int64 $.Values.replicas) -}}
{{- fail (printf "settings: pipelines.%s.own is %q, and replicas is %d: some partitions would have no reader, or two" $name $own (int64 $.Values.replicas)) -}}
{{- end -}}
{{- else -}}
{{- $partitions := dig "producer" "partitions" 0 $pipeline -}}
{{- if ne (int64 $partitions) (int64 $.Values.replicas) -}}
{{- fail (printf "settings: pipelines.%s has %d partitions with own: ordinal, and replicas is %d; both must be the same" $name (int64 $partitions) (int64 $.Values.replicas)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The pod, of a Deployment or a StatefulSet. */}}
{{- define "broadway.pod" -}}
metadata:
  labels:
    {{- include "broadway.selectorLabels" . | nindent 4 }}
    app.kubernetes.io/part-of: broadway
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    # Other settings are other pods. They are replaced one after the other, and one that does not become ready stops that.
    checksum/settings: {{ .Values.settings | sha256sum }}
    {{- if not .Values.podMonitor.enabled }}
    prometheus.io/scrape: "true"
    prometheus.io/port: "8080"
    {{- end }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  terminationGracePeriodSeconds: {{ include "broadway.graceSeconds" . }}
  serviceAccountName: {{ include "broadway.serviceAccountName" . }}
  automountServiceAccountToken: false
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with .Values.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- range . }}
    - labelSelector:
        matchLabels:
          {{- include "broadway.selectorLabels" $ | nindent 10 }}
      {{- toYaml . | nindent 6 }}
    {{- end }}
  {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    {{- toYaml .Values.podSecurityContext | nindent 4 }}
  containers:
    - name: broadway
      image: "{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}"
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args: [run, /etc/broadway/settings.yaml]
      env:
        - {name: BROADWAY_HTTP__HOST, value: "0.0.0.0"}
        - {name: BROADWAY_HTTP__PORT, value: "8080"}
        - {name: BROADWAY_LOG__FORMAT, value: json}
        {{- if .Values.token.existingSecret }}
        - {name: BROADWAY_HTTP__TOKEN_FILE, value: /run/secrets/broadway/token}
        {{- end }}
        {{- with .Values.env }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with .Values.envFrom }}
      envFrom:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      ports:
        - {name: http, containerPort: 8080}
      # Importing and building the pipelines may take a while on a busy node.
      startupProbe:
        httpGet: {path: /livez, port: http}
        periodSeconds: 2
        failureThreshold: 30
      # A broker that is away makes a pod not ready, never not alive.
      livenessProbe:
        httpGet: {path: /livez, port: http}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 3
      readinessProbe:
        httpGet: {path: /readyz, port: http}
        periodSeconds: 5
        timeoutSeconds: 5
      resources:
        {{- toYaml .Values.resources | nindent 8 }}
      securityContext:
        {{- toYaml .Values.securityContext | nindent 8 }}
      volumeMounts:
        - {name: settings, mountPath: /etc/broadway, readOnly: true}
        - {name: state, mountPath: /var/lib/broadway}
        - {name: tmp, mountPath: /tmp}
        {{- range $index, $secret := .Values.secrets }}
        - {name: secret-{{ $index }}, mountPath: {{ $secret.mountPath }}, readOnly: true}
        {{- end }}
        {{- if .Values.token.existingSecret }}
        - {name: token, mountPath: /run/secrets/broadway, readOnly: true}
        {{- end }}
        {{- with .Values.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    - name: settings
      configMap: {name: {{ include "broadway.fullname" . }}}
    {{- if eq .Values.kind "Deployment" }}
    # Nothing here outlives the pod.
    - name: state
      emptyDir: {}
    {{- end }}
    - name: tmp
      emptyDir: {medium: Memory, sizeLimit: 16Mi}
    {{- range $index, $secret := .Values.secrets }}
    - name: secret-{{ $index }}
      secret: {secretName: {{ $secret.name }}, defaultMode: 0440}
    {{- end }}
    {{- with .Values.token.existingSecret }}
    - name: token
      secret:
        secretName: {{ . }}
        defaultMode: 0440
        items: [{key: {{ $.Values.token.key }}, path: token}]
    {{- end }}
    {{- with .Values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}
