#!/bin/sh
# Puts libonnxruntime.so where vision looks for it: taken from the wheel that PyPI carries, because Debian has no package
# of it. Does nothing when it is already there. Prints the library's path.
set -eu

version=1.31.1
folder=${XDG_CACHE_HOME:-$HOME/.cache}/foodflow/onnxruntime
library=$folder/libonnxruntime.so.$version

fail() {
    echo "onnxruntime: $1" >&2
    echo "onnxruntime: install it by hand: put libonnxruntime.so $version into $folder, or name it in FOODFLOW_ONNXRUNTIME" >&2
    exit 1
}

if [ -s "$library" ]; then
    echo "$library"
    exit 0
fi

command -v python3 >/dev/null 2>&1 || fail "python3 is needed to fetch the wheel (Debian: apt-get install python3 python3-pip)"
python3 -m pip --version >/dev/null 2>&1 || fail "pip is needed to fetch the wheel (Debian: apt-get install python3-pip)"

mkdir -p "$folder"
work=$(mktemp -d "$folder/.fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT

# The library does not depend on Python's version: take the wheel of any that has this release when ours has none.
fetched=no
for abi in "" 311 312 313 314; do
    if [ -n "$abi" ]; then
        machine=$(uname -m)
        set -- --only-binary=:all: --python-version "$abi" --implementation cp --abi "cp$abi" \
            --platform "manylinux_2_28_$machine" --platform "manylinux_2_27_$machine" --platform "manylinux_2_17_$machine"
    else
        set --
    fi
    if python3 -m pip download --quiet --no-deps --disable-pip-version-check --dest "$work" "$@" "onnxruntime==$version" \
        >"$work/pip.log" 2>&1; then
        fetched=yes
        break
    fi
done
[ "$fetched" = yes ] || fail "pip could not download onnxruntime==$version: $(tail -n 1 "$work/pip.log")"

python3 - "$work" "$work/library" <<'PYTHON' || fail "the wheel does not hold libonnxruntime.so"
import glob, shutil, sys, zipfile
wheel = zipfile.ZipFile(glob.glob(sys.argv[1] + "/*.whl")[0])
name = next(n for n in wheel.namelist() if n.startswith("onnxruntime/capi/libonnxruntime.so"))
with wheel.open(name) as source, open(sys.argv[2], "wb") as target:
    shutil.copyfileobj(source, target)
PYTHON

# Renamed into place so that a half-written library is never found.
chmod 755 "$work/library"
mv "$work/library" "$library"
echo "$library"
