#!/bin/bash
# Does HOST:PORT answer METHOD PATH (GET unless given) with 2xx? Health check of the images, which carry no curl.
#   http-ok 127.0.0.1 8080 /ready
#   http-ok 127.0.0.1 9190 /scenario/f2 POST
set -euo pipefail
host=${1:?host} port=${2:?port} path=${3:?path} method=${4:-GET}
exec 3<>"/dev/tcp/$host/$port"
printf '%s %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\nContent-Length: 0\r\n\r\n' "$method" "$path" "$host" >&3
IFS=' ' read -r -t 3 _version status _rest <&3
[[ $status == 2?? ]]
