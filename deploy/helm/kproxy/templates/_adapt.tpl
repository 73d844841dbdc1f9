{{/*
The manifests are those of deploy/kproxy.yaml, which the chart has as a file: each of these changes an object of it by
the values. Maps are changed in place.
*/}}

{{- define "kproxy.adapt.ConfigMap" -}}
{{- $values := .root.Values -}}
{{- $data := .object.data -}}
{{- $_ := set $data "KUBERNETES_SERVICE_HOST" $values.apiServer.host -}}
{{- $_ := set $data "KUBERNETES_SERVICE_PORT" (toString $values.apiServer.port) -}}
{{- $_ := set $data "CLUSTER_CIDR" $values.clusterCIDR -}}
{{- with $values.config -}}
{{- $head := dict "apiVersion" "kubeproxy.config.k8s.io/v1alpha1" "kind" "KubeProxyConfiguration" -}}
{{- $_ := set $data "config.yaml" (toYaml (merge $head .)) -}}
{{- end -}}
{{- end -}}

{{- define "kproxy.adapt.DaemonSet" -}}
{{- $values := .root.Values -}}
{{- $template := .object.spec.template -}}
{{- $pod := $template.spec -}}
{{- $container := first $pod.containers -}}
{{- $image := $values.image -}}
{{- $_ := set $container "image" (printf "%s:%s" $image.repository $image.tag) -}}
{{- with $image.digest -}}
{{- $_ := set $container "image" (printf "%s@%s" $image.repository .) -}}
{{- end -}}
{{- $_ := set $container "imagePullPolicy" $image.pullPolicy -}}
{{- $_ := set $container "resources" $values.resources -}}
{{- $_ := set $container "args" (concat $container.args (fromJsonArray (include "kproxy.args" .root))) -}}
{{- if $values.config -}}
{{- $mount := dict "name" "config" "mountPath" "/etc/kproxy" "readOnly" true -}}
{{- $_ := set $container "volumeMounts" (append $container.volumeMounts $mount) -}}
{{- $items := list (dict "key" "config.yaml" "path" "config.yaml") -}}
{{- $volume := dict "name" "config" "configMap" (dict "name" .object.metadata.name "items" $items) -}}
{{- $_ := set $pod "volumes" (append $pod.volumes $volume) -}}
{{- end -}}
{{- if $values.privateRun -}}
{{- range $container.volumeMounts -}}
{{- if eq .name "netns" -}}{{- $_ := set . "mountPropagation" "None" -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- with $values.imagePullSecrets -}}{{- $_ := set $pod "imagePullSecrets" . -}}{{- end -}}
{{- $_ := set $pod "nodeSelector" $values.nodeSelector -}}
{{- $_ := set $pod "tolerations" $values.tolerations -}}
{{- $_ := set $pod "priorityClassName" $values.priorityClassName -}}
{{- $strategy := dict "type" $values.updateStrategy.type -}}
{{- if and (eq $strategy.type "RollingUpdate") $values.updateStrategy.rollingUpdate -}}
{{- $_ := set $strategy "rollingUpdate" $values.updateStrategy.rollingUpdate -}}
{{- end -}}
{{- $_ := set .object.spec "updateStrategy" $strategy -}}
{{- $_ := set $template.metadata "labels" (merge $template.metadata.labels $values.podLabels) -}}
{{- $annotations := $values.podAnnotations -}}
{{- if .configMap -}}
{{- $annotations = merge (dict "checksum/config" .configMap) $annotations -}}
{{- end -}}
{{- with $annotations -}}{{- $_ := set $template.metadata "annotations" . -}}{{- end -}}
{{- end -}}

{{/* Arguments that the values add, as JSON. */}}
{{- define "kproxy.args" -}}
{{- $args := list -}}
{{- if .Values.config -}}{{- $args = append $args "--config=/etc/kproxy/config.yaml" -}}{{- end -}}
{{- with .Values.metrics -}}
{{- $address := .address -}}
{{- if contains ":" $address -}}{{- $address = printf "[%s]" $address -}}{{- end -}}
{{- $bind := printf "%s:%v" $address .port -}}
{{- if ne $bind "127.0.0.1:10249" -}}
{{- $args = append $args (printf "--metrics-bind-address=%s" $bind) -}}
{{- end -}}
{{- end -}}
{{- with .Values.optOut.namespaces -}}
{{- $args = append $args (printf "--socket-lb-skip-namespaces=%s" (join "," .)) -}}
{{- end -}}
{{- with .Values.optOut.cidrs -}}
{{- $args = append $args (printf "--socket-lb-skip-pod-cidrs=%s" (join "," .)) -}}
{{- end -}}
{{- concat $args .Values.extraArgs | toJson -}}
{{- end -}}
