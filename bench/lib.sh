# What the benchmarks share: processes they start and end, nginx, wrk and posthorn on a fresh store, figures.
# To be sourced by a script that has set `root`, the project's folder, and runs with set -euo pipefail.
# Results leave through the variables that a function's comment names. Everything listens on loopback, and
# nothing is left behind.
# shellcheck shell=bash disable=SC2034,SC2119,SC2120,SC2154

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
build_helper() {
  gcc -O2 -std=gnu17 -D_GNU_SOURCE -Wall -Wextra -Werror -o "$work/$1" "$root/bench/$1.c" "$root/bench/http.c"
}

# ---- processes and figures ----

ticks=$(getconf CLK_TCK)
# CPU time a process has used, in ticks. Its name may hold spaces, so what counts stands after the last ")".
cpu_ticks() { sed 's/.*) //' "/proc/$1/stat" | awk '{print $12 + $13}'; }
peak_kib() { awk '/^VmHWM:/ {print $2}' "/proc/$1/status"; }
peak_mib() { echo $(($(peak_kib "$1") / 1024)); }
now() { date +%s.%N; }
calc() { awk "BEGIN { printf \"$1\", $2 }"; }
# CPU seconds a thousand, of so many ticks for so many.
cpu_per_1000() { calc %.4f "($1) / $ticks / $2 * 1000"; }
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

# Starts a helper that prints "port N": helper (its process id), helper_port. Its output goes to NAME.out.
#   start_helper NAME COMMAND…
start_helper() {
  local name=$1
  shift
  : >"$work/$name.out"
  "$@" >>"$work/$name.out" &
  helper=$!
  started[$helper]=$name
  await 50 "$name" grep -q port "$work/$name.out"
  helper_port=$(field "$work/$name.out" port)
}

# ---- nginx, which answers 204, and wrk ----

# An authority and nginx's certificate from it: ca.pem, nginx.pem and nginx.key of the working folder.
make_certificate() {
  local new=(openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)
  "${new[@]}" -x509 -days 2 -subj '/CN=posthorn bench' -keyout "$work/ca.key" -out "$work/ca.pem" &&
    "${new[@]}" -subj '/CN=localhost' -keyout "$work/nginx.key" -out "$work/nginx.csr" &&
    openssl x509 -req -days 2 -in "$work/nginx.csr" -CA "$work/ca.pem" -CAkey "$work/ca.key" -CAcreateserial \
      -extfile <(echo 'subjectAltName=DNS:localhost,IP:127.0.0.1') -out "$work/nginx.pem"
}

# nginx_conf PORT [tls]
nginx_conf() {
  cat <<CONF
daemon off;
worker_processes 2;
pid $work/nginx.pid;
error_log $work/nginx.log;
events { worker_connections 8192; }
http {
  access_log off;
  keepalive_requests 1000000000;
  keepalive_timeout 600s;
  client_body_buffer_size 128k;
  client_body_temp_path $work/body;
  proxy_temp_path $work/proxy;
  fastcgi_temp_path $work/fastcgi;
  uwsgi_temp_path $work/uwsgi;
  scgi_temp_path $work/scgi;
  server {
    listen 127.0.0.1:$1 ${2:+ssl }reuseport;
    ${2:+ssl_certificate $work/nginx.crt; ssl_certificate_key $work/nginx.key; ssl_session_cache shared:tls:8m;}
    location / { return 204; }
  }
}
CONF
}

# Starts nginx, with `tls` for https under the authority ca.pem: nginx_url.
start_nginx() {
  local try port pid
  if [ -n "${1-}" ]; then
    make_certificate 2>"$work/openssl.log" || { cat "$work/openssl.log" >&2; fail 'no certificate can be made'; }
    mv "$work/nginx.pem" "$work/nginx.crt"
  fi
  for try in 1 2 3 4 5; do
    port=$((20000 + RANDOM % 10000))
    nginx_url=http${1:+s}://127.0.0.1:$port/
    nginx_conf "$port" "${1-}" >"$work/nginx.conf"
    nginx -c "$work/nginx.conf" -p "$work" -e "$work/nginx.log" 2>/dev/null &
    pid=$!
    for _ in {1..50}; do
      if curl -sko /dev/null "$nginx_url"; then
        started[$pid]=nginx
        return
      fi
      kill -0 "$pid" 2>/dev/null || break
      sleep 0.1
    done
    kill "$pid" 2>/dev/null || true
  done
  cat "$work/nginx.log" >&2 || true
  fail "nginx does not start, on any of $try ports"
}

# Runs wrk and notes its CPU time and peak memory: wrk_requests, wrk_rate, wrk_cpu (ticks), wrk_kib.
run_wrk() {
  local pid used kib
  wrk "$@" >"$work/wrk.out" 2>&1 &
  pid=$!
  started[$pid]=wrk
  wrk_cpu=0
  wrk_kib=0
  # What can be read just before it ends; a tenth of a second is lost at most.
  while used=$(cpu_ticks "$pid" 2>/dev/null) && [ -n "$used" ]; do
    kib=$(peak_kib "$pid" 2>/dev/null || true)
    [ -n "$kib" ] || break
    wrk_cpu=$used
    wrk_kib=$kib
    sleep 0.1
  done
  wait "$pid" || { cat "$work/wrk.out" >&2; fail 'wrk failed'; }
  unset "started[$pid]"
  wrk_requests=$(awk '/requests in/ {print $1}' "$work/wrk.out")
  wrk_rate=$(awk '/^Requests\/sec:/ {print $2}' "$work/wrk.out")
  if grep -qE 'Non-2xx|Socket errors' "$work/wrk.out"; then
    grep -E 'Non-2xx|Socket errors' "$work/wrk.out" >&2
    say 'some requests were not answered 2xx: the figures are not to be trusted'
  fi
}

# ---- posthorn ----

key=bench-$RANDOM$RANDOM$RANDOM
api() {
  local out
  out=$(curl -sS --fail-with-body -H "Authorization: Bearer $key" -H 'Content-Type: application/json' -d "$2" \
    "$url$1") || fail "POST $1: $out"
}

# A command that start_posthorn puts before posthorn's own.
posthorn_under=()

# Starts posthorn on the data folder as it is: posthorn (its process id), url, port. Arguments are further ones of
# serve.
restart_posthorn() {
  local log=$work/posthorn.log
  : >"$log"
  env -u POSTHORN_DATA POSTHORN_ADMIN_KEY="$key" ${posthorn_under[@]+"${posthorn_under[@]}"} "$root/build/posthorn" \
    serve --data "$work/data" --listen 127.0.0.1:0 --allow-http --allow-address 127.0.0.0/8 --allow-port 1-65535 "$@" \
    2>"$log" &
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
}

# Starts posthorn on a fresh data folder, with a tenant "bench" that no quota holds up.
start_posthorn() {
  rm -rf "$work/data"
  restart_posthorn "$@"
  api /v1/tenants '{"id":"bench","tier":"premium","limits":{"events_per_second":1000000,"max_in_flight":10000,
    "max_subscriptions":10000000}}'
}

stop_posthorn() { stop "$posthorn"; }

# Makes COUNT subscriptions of the tenant "bench" over many connections; "%" in the object is the number of
# each, from FIRST on: subscribe_rate, how many a second. Needs build_helper flood.
#   subscribe_many FIRST COUNT OBJECT
subscribe_many() {
  "$work/flood" --first "$1" "$port" /v1/tenants/bench/subscriptions "$key" "$2" "$3" >"$work/subscribe.out" ||
    fail "not every subscription was made: $(cat "$work/subscribe.out")"
  subscribe_rate=$(calc %.0f "$2 / $(field "$work/subscribe.out" seconds)")
}

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
