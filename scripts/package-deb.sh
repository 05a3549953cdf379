#!/usr/bin/env bash
# Builds a Debian package of the edge agent with dpkg-deb alone; nothing is fetched.
#   scripts/package-deb.sh TARGET BINARY [OUT-DIR]     TARGET: x86_64-unknown-linux-gnu or aarch64-unknown-linux-gnu
# BINARY is taken as it is: built for TARGET, on that machine or by a cross compiler. The package's path is printed.
set -euo pipefail
target=${1:?target, like x86_64-unknown-linux-gnu} binary=${2:?the foodflow-edge built for it} out=${3:-target/deb}
binary=$(realpath -- "$binary") out=$(realpath -m -- "$out")
cd "$(dirname "$0")/.."

case $target in
    x86_64-unknown-linux-*) arch=amd64 machine=3e ;;
    aarch64-unknown-linux-*) arch=arm64 machine=b7 ;;
    *) echo "no Debian architecture is known for $target; known: x86_64-…, aarch64-…" >&2; exit 2 ;;
esac
[ -f "$binary" ] || { echo "$binary: no such file; build it with cargo build --release -p edge-agent --target $target" >&2; exit 2; }
# The ELF header names the machine: a package must not promise another one.
if [ "$(od -An -tx1 -j18 -N1 "$binary" | tr -d ' ')" != "$machine" ]; then
    echo "$binary is not built for $target" >&2
    exit 1
fi

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -1)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/foodflow-edge
install -D -m 0755 "$binary" "$root/usr/bin/foodflow-edge"
# Debug symbols would be nine tenths of it.
if command -v strip >/dev/null && [ "$arch" = "$(dpkg --print-architecture)" ]; then strip "$root/usr/bin/foodflow-edge"; fi
install -D -m 0644 deploy/edge/foodflow-edge.service "$root/usr/lib/systemd/system/foodflow-edge.service"
install -D -m 0644 edge-agent/config/default.toml "$root/usr/share/doc/foodflow-edge/edge.toml.reference"
install -D -m 0644 deploy/edge/deb/edge.toml "$root/etc/foodflow/edge.toml"
install -D -m 0755 deploy/edge/deb/foodflow-edge-enroll "$root/usr/sbin/foodflow-edge-enroll"
install -D -m 0644 LICENSE "$root/usr/share/doc/foodflow-edge/copyright"
gzip -9n <CHANGELOG.md >"$work/changelog.gz"
install -D -m 0644 "$work/changelog.gz" "$root/usr/share/doc/foodflow-edge/changelog.gz"
mkdir -p "$root/usr/share/foodflow/vision/models"
cp -r vision/models/tray-defects "$root/usr/share/foodflow/vision/models/"
find "$root/usr/share/foodflow" -type f -exec chmod 0644 {} + -o -type d -exec chmod 0755 {} +

install -d "$root/DEBIAN"
sed -e "s/@VERSION@/$version/" -e "s/@ARCH@/$arch/" \
    -e "s/@KIB@/$(du -sk --exclude=DEBIAN "$root" | cut -f1)/" deploy/edge/deb/control >"$root/DEBIAN/control"
echo /etc/foodflow/edge.toml >"$root/DEBIAN/conffiles"
install -m 0755 deploy/edge/deb/postinst deploy/edge/deb/prerm deploy/edge/deb/postrm "$root/DEBIAN/"
(cd "$root" && find etc usr -type f -print0 | sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"

mkdir -p "$out"
package=$out/foodflow-edge_${version}_${arch}.deb
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)} \
    dpkg-deb --root-owner-group --build "$root" "$package" >&2
echo "$package"
