# What the benchmarks share: processes they start and end, posthorn on a fresh store, figures. To be sourced
# by a script that has set `root`, the project's folder, and runs with set -euo pipefail.
# shellcheck shell=bash disable=SC2034,SC2154

say() { printf 'bench: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

work=$(mktemp -d "${TMPDIR:-/tmp}/posthorn-bench-XXXXXX")
declare -A started=() # the processes that run, by their id
clean_up() {
  local pid
  for pid in "${!started[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
  rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# Builds bench/NAME.c into the working folder.
build_helper() { gcc -O2 -std=gnu17 -D_GNU_SOURCE -Wall -Wextra -Werror -o "$work/$1" "$root/bench/$1.c"; }

# ---- processes and figures ----

ticks=$(getconf CLK_TCK)
# CPU time a process has used, in ticks. Its name may hold spaces, so what counts stands after the last ")".
cpu_ticks() { sed 's/.*) //' "/proc/$1/stat" | awk '{print $12 + $13}'; }
peak_kib() { awk '/^VmHWM:/ {print $2}' "/proc/$1/status"; }
now() { date +%s.%N; }
calc() { awk "BEGIN { printf \"$1\", $2 }"; }
cpu_model() { awk -F': ' '/^model name/ {print $2; exit}' /proc/cpuinfo; }

# The word after NAME in a file of "name value name value …".
field() { awk -v name="$2" '{for (i = 1; i < NF; i++) if ($i == name) print $(i + 1)}' "$1"; }
# Milliseconds of a count of microseconds.
ms() { calc %.1f "$1 / 1000"; }

# Waits until a command succeeds, up to so many tenths of a second.
await() {
  local tenths=$1 what=$2
  shift 2
  until "$@"; do
    [ $((tenths -= 1)) -gt 0 ] || fail "gave up waiting for $what"
    sleep 0.1
  done
}

# Ends a process this script started, and waits for it.
stop() {
  kill -TERM "$1"
  wait "$1" || say "${started[$1]} did not end well"
  unset "started[$1]"
}

# ---- posthorn ----

key=bench-$RANDOM$RANDOM$RANDOM
api() {
  local out
  out=$(curl -sS --fail-with-body -H "Authorization: Bearer $key" -H 'Content-Type: application/json' -d "$2" \
    "$url$1") || fail "POST $1: $out"
}

# Starts posthorn on a fresh data folder, with a tenant "bench" that no quota holds up: posthorn (its process
# id), url, port. Arguments are further ones of serve.
start_posthorn() {
  local log=$work/posthorn.log
  rm -rf "$work/data"
  : >"$log"
  env -u POSTHORN_DATA POSTHORN_ADMIN_KEY="$key" "$root/build/posthorn" serve --data "$work/data" --listen 127.0.0.1:0 \
    --allow-http --allow-address 127.0.0.0/8 --allow-port 1-65535 "$@" 2>"$log" &
  posthorn=$!
  started[$posthorn]=posthorn
  is_ready() {
    kill -0 "$posthorn" 2>/dev/null || { cat "$log" >&2; fail 'posthorn ended'; }
    grep -q ' ready ' "$log"
  }
  await 150 'posthorn to be ready' is_ready
  url=$(grep -o 'url=http://[0-9.:]*' "$log" | head -n 1)
  url=${url#url=}
  port=${url##*:}
  api /v1/tenants '{"id":"bench","tier":"premium","limits":{"events_per_second":1000000,"max_in_flight":10000}}'
}

stop_posthorn() { stop "$posthorn"; }

# Subscribes port PORT to bench.0 … bench.(N-1), each with so many attempts in flight.
#   subscribe PORT N IN_FLIGHT
subscribe() {
  local i
  for ((i = 0; i < $2; i++)); do
    api /v1/tenants/bench/subscriptions \
      "{\"url\":\"http://127.0.0.1:$1/\",\"event_types\":[\"bench.$i\"],\"policy\":{\"max_in_flight\":$3}}"
  done
}

metric() { curl -s "$url/metrics" | awk -v name="$1" 'index($0, name " ") == 1 {print $2}'; }
all_delivered() { delivered=$(metric 'posthorn_deliveries_total{outcome="delivered"}') && [ "$delivered" -ge "$1" ]; }

# Starts a helper that prints "port N": helper (its process id), helper_port. Its output goes to NAME.out.
#   start_helper NAME COMMAND…
start_helper() {
  local name=$1
  shift
  "$@" >"$work/$name.out" &
  helper=$!
  started[$helper]=$name
  await 50 "$name" grep -q port "$work/$name.out"
  helper_port=$(field "$work/$name.out" port)
}
