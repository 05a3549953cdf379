#!/bin/sh
# Renders trays, trains the detector and writes vision/models/tray-defects. Needs cargo and a Python that has
# requirements.txt installed (PYTHON=…); about half an hour on one core. Working files go to WORK.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=${WORK:-${XDG_CACHE_HOME:-$HOME/.cache}/foodflow/trays}
python=${PYTHON:-python3}
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE

render() { (cd "$here/../.." && nice -n 19 cargo run --quiet -p vision --example render_trays -- "$@"); }
render "$work/train" 3000 100000 15
render "$work/calibrate" 1000 200000 50
render "$work/test" 1400 300000 50
nice -n 19 "$python" "$here/train.py" "$work/train" "$work/weights.pt" --views 24000
nice -n 19 "$python" "$here/publish.py" "$work/weights.pt" "$work/calibrate" "$work/test" "$here/../models/tray-defects"
