#!/usr/bin/env bash
# Are the delivery files sound, as far as can be told without a container engine and without systemd running?
# Checks with what is installed and says loudly what it skipped; a missing tool is no failure, a fault is.
#   docker-compose (or the plugin), systemd-analyze, promtool, shellcheck, actionlint, python3 with PyYAML
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

faults=0
skipped=()
fault() { echo "FAULT    $1" >&2; faults=$((faults + 1)); }
ok() { echo "ok       $1"; }
skip() { echo "SKIPPED  $1: $2 is not here"; skipped+=("$1"); }
has() { command -v "$1" >/dev/null 2>&1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Runs a check; what it printed is shown only when it failed.
check() {
    local what=$1
    shift
    if "$@" >"$work/out" 2>&1; then ok "$what"; else
        fault "$what"
        sed 's/^/           /' "$work/out" >&2
    fi
}

compose() {
    if docker compose version >/dev/null 2>&1; then docker compose "$@"; else docker-compose "$@"; fi
}

check_compose() {
    if ! docker compose version >/dev/null 2>&1 && ! has docker-compose; then
        skip "docker-compose.yml against Compose's schema" docker-compose
        return
    fi
    sed 's/^\([A-Z_]*PASSWORD\)=$/\1=check/' .env.example >"$work/env"
    check "docker-compose.yml is what Compose accepts" compose --env-file "$work/env" config --quiet
    if compose --env-file .env.example config --quiet >/dev/null 2>&1; then
        fault "docker-compose.yml starts with empty passwords"
    else
        ok "docker-compose.yml refuses empty passwords"
    fi
}

# systemd-analyze looks for the program and for the targets: a root with both in it stands for the installed system.
check_units() {
    if ! has systemd-analyze; then
        skip "systemd units" systemd-analyze
        return
    fi
    local root=$work/root unit units=(foodflow-edge foodflow-hub)
    mkdir -p "$root/usr/lib/systemd" "$root/usr/bin"
    cp -r /usr/lib/systemd/system "$root/usr/lib/systemd/"
    cp deploy/edge/foodflow-edge.service deploy/cloud/foodflow-hub.service "$root/usr/lib/systemd/system/"
    for unit in "${units[@]}"; do
        install -m 0755 /dev/null "$root/usr/bin/$unit"
        # verify also complains about other units of this machine; only words about ours count.
        systemd-analyze --root="$root" verify "$unit.service" >"$work/verify" 2>&1
        if grep -q "$unit" "$work/verify"; then
            fault "$unit.service"
            grep "$unit" "$work/verify" >&2
        else
            ok "$unit.service (systemd-analyze verify)"
        fi
        check "$unit.service is exposed at most 2.0: $(exposure "$root" "$unit")" \
            systemd-analyze --root="$root" security --offline=true --threshold=20 "$unit.service"
    done
}

exposure() {
    systemd-analyze --root="$1" security --offline=true "$2.service" 2>/dev/null | grep -oE 'exposure level .*: [0-9.]+' | grep -oE '[0-9.]+$'
}

# The package of a stand-in program: what it holds and that a wrong machine is refused.
check_package() {
    if ! has dpkg-deb; then
        skip "the edge's Debian package" dpkg-deb
        return
    fi
    local deb word
    head -c 20 /bin/true >"$work/stand-in"
    case $(uname -m) in
        x86_64) own=x86_64 other=aarch64 ;;
        aarch64) own=aarch64 other=x86_64 ;;
        *) skip "the edge's Debian package" "a machine it is made for"; return ;;
    esac
    if scripts/package-deb.sh "$other-unknown-linux-gnu" "$work/stand-in" "$work/deb" >/dev/null 2>&1; then
        fault "package-deb.sh packs a program of another machine"
    fi
    cp /bin/true "$work/stand-in"
    if ! deb=$(scripts/package-deb.sh "$own-unknown-linux-gnu" "$work/stand-in" "$work/deb" 2>"$work/out"); then
        fault "package-deb.sh: $(cat "$work/out")"
        return
    fi
    dpkg-deb --contents "$deb" >"$work/contents"
    for word in ./usr/bin/foodflow-edge ./usr/lib/systemd/system/foodflow-edge.service ./etc/foodflow/edge.toml; do
        grep -qF " $word" "$work/contents" || fault "$deb does not hold $word"
    done
    dpkg-deb --info "$deb" conffiles | grep -qx /etc/foodflow/edge.toml || fault "$deb: edge.toml is no conffile"
    grep -vE ' root/root ' "$work/contents" >&2 && fault "$deb holds files that are not root's"
    ok "$(basename "$deb") (contents, owners, conffiles; another machine's program is refused)"
    if has lintian; then check "$deb (lintian)" lintian --fail-on error "$deb"; else skip "the package in depth" lintian; fi
}

check_prometheus() {
    if has promtool; then
        check "deploy/cloud/prometheus.yml (promtool)" promtool check config deploy/cloud/prometheus.yml
    else
        skip "deploy/cloud/prometheus.yml" promtool
    fi
}

# What hadolint would say first: pinned bases, no root, no secrets in layers, no leftovers of apt.
check_dockerfile() {
    local file=$1 before=$faults from
    while read -r from; do
        case $from in
            *:latest) fault "$file: base image $from is not pinned" ;;
            *:*) ;;
            *) grep -qE "^FROM .* AS $from\$" "$file" || fault "$file: base image $from has no tag" ;;
        esac
    done < <(awk '$1 == "FROM" { print $2 }' "$file")
    # Every stage that is run must have stepped down from root.
    awk '
        $1 == "FROM" { if (runs && !user) bad = bad " " stage; stage = $4; runs = user = 0 }
        $1 == "USER" { user = ($2 != "root" && $2 !~ /^0(:|$)/) }
        $1 == "ENTRYPOINT" || $1 == "CMD" { runs = 1 }
        END { if (runs && !user) bad = bad " " stage; if (bad) { print "runs as root:" bad; exit 1 } }
    ' "$file" >"$work/out" || fault "$file: $(cat "$work/out")"
    grep -nEi '^(ENV|ARG) .*(password|secret|token|_key)' "$file" && fault "$file: a secret in ENV or ARG"
    grep -nE '^ADD ' "$file" && fault "$file: ADD where COPY would do"
    [ "$(grep -c 'apt-get install' "$file")" = "$(grep -c 'apt-get install .*--no-install-recommends' "$file")" ] \
        || fault "$file: apt-get install without --no-install-recommends"
    [ "$(grep -c 'apt-get install' "$file")" = "$(grep -c 'rm -rf /var/lib/apt/lists' "$file")" ] \
        || fault "$file: apt lists left in a layer"
    # What is copied from the context must exist and must not be kept out by .dockerignore.
    local source
    while read -r source; do
        [ -e "$source" ] || fault "$file: COPY $source, which is not in the repository"
        [ "$source" = . ] || grep -qxE "!(${source%%/*}|$source)" .dockerignore || fault "$file: .dockerignore keeps out $source"
    done < <(awk '$1 == "COPY" && $2 !~ /^--from/ { for (i = 2; i < NF; i++) print $i }' "$file")
    [ "$before" = "$faults" ] && ok "$file (bases pinned, not root, no secrets, sources there)"
}

check_scripts() {
    local scripts=(deploy/http-ok.sh deploy/try-compose.sh deploy/cloud/try-database.sh deploy/edge/enroll.sh deploy/edge/deb/foodflow-edge-enroll deploy/edge/deb/postinst deploy/edge/deb/prerm deploy/edge/deb/postrm scripts/package-deb.sh deploy/cloud/timescaledb/010-login-role.sh scripts/check-deploy.sh)
    local script
    for script in "${scripts[@]}"; do
        [ -x "$script" ] || fault "$script is not executable"
        check "$script parses" bash -n "$script"
    done
    if has shellcheck; then check "shell scripts (shellcheck)" shellcheck "${scripts[@]}"; else skip "shell scripts" shellcheck; fi
}

check_workflow() {
    if has actionlint; then check "workflows (actionlint)" actionlint; else skip "workflows in depth" actionlint; fi
}

# YAML and JSON, the promises of docker-compose.yml, and the dashboard's queries against the metrics in the sources.
check_contents() {
    if ! has python3; then
        skip "YAML, JSON and dashboard queries" python3
        return
    fi
    python3 - <<'PYTHON'
import json, pathlib, re, sys

faults, skips = [], []
dashboards = sorted(pathlib.Path("deploy/cloud/grafana/dashboards").glob("*.json"))
sources = [p for d in ("edge-agent/src", "cloud-hub/src", "ai-service/src") for p in pathlib.Path(d).rglob("*.rs")]
known = set(re.findall(r'"(foodflow_[a-z0-9_]+)"', "\n".join(p.read_text() for p in sources)))
asked = set()
for path in dashboards:
    board = json.loads(path.read_text())
    ids = [panel["id"] for panel in board["panels"]]
    if len(ids) != len(set(ids)):
        faults.append(f"{path}: two panels have one id")
    for panel in board["panels"]:
        for target in panel.get("targets", []):
            asked |= set(re.findall(r"foodflow_[a-z0-9_]+", target["expr"]))
for name in sorted(asked - known):
    faults.append(f"the dashboard asks for {name}, which no program writes")
if not faults:
    print(f"ok       {len(dashboards)} dashboard: {len(asked)} metrics asked for, all written by the programs")

try:
    import yaml
except ImportError:
    skips.append("YAML (python3 has no PyYAML)")
else:
    files = ["docker-compose.yml", *map(str, pathlib.Path("deploy").rglob("*.yml")), *map(str, pathlib.Path(".github").rglob("*.yml"))]
    read = {name: yaml.safe_load(open(name)) for name in files}
    print(f"ok       {len(read)} YAML files parse")
    compose, before = read["docker-compose.yml"], len(faults)
    for name, service in compose["services"].items():
        if not re.search(r":[^:/]*\d", service.get("image", "")) or service["image"].endswith("latest"):
            faults.append(f"service {name}: image is not pinned")
        if not service.get("read_only") or service.get("cap_drop") != ["ALL"] or service.get("privileged"):
            faults.append(f"service {name}: not read-only or keeps capabilities")
        if "user" not in service and "build" not in service:
            faults.append(f"service {name}: runs as its image's user, which may be root")
        for port in service.get("ports", []):
            if not str(port).startswith("127.0.0.1:"):
                faults.append(f"service {name}: port {port} is published beyond loopback")
        for key, value in (service.get("environment") or {}).items():
            if re.search("PASSWORD|SECRET|TOKEN|_URL", key) and not re.search(r"\$\{\w+:\?", str(value)):
                faults.append(f"service {name}: {key} has a default")
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                if not pathlib.Path(source).exists():
                    faults.append(f"service {name}: {source} does not exist")
            elif source not in compose["volumes"]:
                faults.append(f"service {name}: volume {source} is not declared")
    if len(faults) == before:
        print(f"ok       {len(compose['services'])} services: pinned, read-only, without capabilities or default secrets")

for skip in skips:
    print(f"SKIPPED  {skip}")
for fault in faults:
    print(f"FAULT    {fault}", file=sys.stderr)
sys.exit(1 if faults else 3 if skips else 0)
PYTHON
    case $? in
        0) ;;
        3) skipped+=("YAML") ;;
        *) faults=$((faults + 1)) ;;
    esac
}

check_secrets() {
    if has git && [ -n "$(git ls-files -- .env '*.env' '*/.env' 2>/dev/null)" ]; then
        fault "an environment file with secrets is in the repository"
    elif grep -vE '^(#.*|[A-Z_]+=)?$' .env.example >&2; then
        fault ".env.example holds a value"
    else
        ok "no secrets in the repository's environment files"
    fi
}

check_compose
check_contents
check_dockerfile deploy/cloud/Dockerfile
check_dockerfile deploy/edge/Dockerfile
check_units
check_package
check_prometheus
check_scripts
check_workflow
check_secrets

if ! { has docker && docker info >/dev/null 2>&1; }; then
    skip "building the images and starting them" "a container engine"
fi
if [ ${#skipped[@]} -gt 0 ]; then
    echo
    echo "NOT CHECKED HERE (${#skipped[@]}):"
    printf '  - %s\n' "${skipped[@]}"
fi
if [ "$faults" -gt 0 ]; then
    echo "$faults faults" >&2
    exit 1
fi
