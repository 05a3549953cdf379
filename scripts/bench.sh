#!/usr/bin/env bash
# Runs every benchmark (release build) and prints one table of ratios, from target/bench/*.json; writes summary.json.
set -euo pipefail
cd "$(dirname "$0")/.."
export FOODFLOW_BENCH_DIR=$PWD/target/bench
mkdir -p "$FOODFLOW_BENCH_DIR"
rm -f "$FOODFLOW_BENCH_DIR"/*.json
cargo bench --workspace --benches
python3 - "$FOODFLOW_BENCH_DIR" <<'PYTHON'
import glob, json, os, sys
folder = sys.argv[1]
rows = [row for path in sorted(glob.glob(os.path.join(folder, "*.json"))) for row in json.load(open(path))]
json.dump(rows, open(os.path.join(folder, "summary.json"), "w"), indent=1)
print(f"\n{'benchmark':44} {'value':>12} {'unit':12} {'ratio':>8}  {'goal':24} against")
for row in rows:
    number = lambda x: "" if x is None else f"{x:.3g}" if isinstance(x, float) else str(x)
    mark = {True: "ok", False: "MISSED"}.get(row.get("pass"), "")
    print(f"{row['name']:44} {number(row['value']):>12} {row['unit']:12} {number(row.get('ratio')):>8}  {str(row.get('goal') or '')[:17]:17} {mark:6} {row.get('reference') or ''}")
PYTHON
