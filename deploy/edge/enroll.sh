#!/bin/bash
# Exchanges a one-time code for this edge's identity, inside the edge's container:  enroll HUB-URL CODE
# The agent reads its identity when it starts, so it is told to end; the container's restart policy starts it again.
set -euo pipefail
hub=${1:?hub, like http://hub:8080} code=${2:?one-time code from foodflow-hub enroll-code}
foodflow-edge enroll --hub "$hub" --code "$code" --data-dir /var/lib/foodflow-edge
kill -TERM 1
