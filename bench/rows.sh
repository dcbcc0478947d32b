# What the rows of bench/run share; lib.sh must be there. Each row is a script of its own, which also runs alone:
# it starts nginx and posthorn afresh and hands its results on as lines of tab-separated values, to the file that
# BENCH_RESULTS names or to stdout:
#   row      LABEL  REQUESTS_PER_SECOND  CPU_S_PER_1000  PEAK_MIB  RATIO
#   latency  SECTION  LABEL  P50_MS  P99_MS  GREATEST_MS
#   point    SERIES  X  PER_SECOND  CPU_US_EACH
#   fact     TEXT
# An empty field is a figure that the row has not.
# shellcheck shell=bash disable=SC2034,SC2119,SC2120,SC2154

seconds=${BENCH_SECONDS:-10}          # of load in a measurement
connections=${BENCH_CONNECTIONS:-256} # that the load comes over
drain_seconds=180                     # how long deliveries may take after the last publish
lanes=64                              # subscriptions of the plain 1:1 load
in_flight=64                          # of each
data_bytes=512                        # of an event's data

result() {
  local IFS=$'\t'
  printf '%s\n' "$*" >>"${BENCH_RESULTS:-/dev/stdout}"
}
# A part of the seconds, at least one: part DIVISOR
part() { echo $((seconds / $1 > 0 ? seconds / $1 : 1)); }
# The seconds in units of ten, rounded up: how often what takes about ten seconds is done.
times() { echo $(((seconds + 9) / 10)); }

begin() {
  build_helper pace
  build_helper flood
  start_nginx "$@"
}

# What wrk POSTs to that nginx, so many bytes each, for so many seconds: run_wrk's variables.
wrk_to_nginx() {
  run_wrk -t 2 -c "$connections" -d "${2}s" -s "$root/bench/sink.lua" "$nginx_url" -- "$1"
}

# The limit that ratios are of: what bench/run has measured before, or measured now: limit.
need_limit() {
  limit=${BENCH_LIMIT-}
  [ -n "$limit" ] && return
  wrk_to_nginx "$data_bytes" "$(part 2)"
  limit=$wrk_rate
}

# The members of a subscription to bench.% at that nginx, and to further types: ',"type"'.
subscription() {
  printf '{"url":"%s","event_types":["bench.%%"%s],"policy":{"max_in_flight":%d}}' "$nginx_url" "${2-}" "$1"
}

# ---- a load, measured from its first publish to its last delivery ----

measure_begin() {
  delivered_before=$(metric 'posthorn_deliveries_total{outcome="delivered"}')
  cpu_before=$(cpu_ticks "$posthorn")
  from=$(now)
}

# Waits for so many deliveries since: rate, cpu (seconds a thousand), took (seconds), mib.
measure_end() {
  await $((drain_seconds * 10)) "$1 deliveries" all_delivered $((delivered_before + $1))
  took=$(calc %.3f "$(now) - $from")
  rate=$(calc %.0f "$1 / $took")
  cpu=$(cpu_per_1000 "$(cpu_ticks "$posthorn") - $cpu_before" "$1")
  mib=$(peak_mib "$posthorn")
}

# wrk publishes events of so many types, which have one subscription each, for so many seconds: also published,
# publish_rate.
#   load TYPES BYTES SECONDS
load() {
  local before
  before=$(metric posthorn_events_published_total)
  measure_begin
  run_wrk -t 1 -c "$connections" -d "${3}s" -s "$root/bench/publish.lua" "$url/" -- \
    /v1/tenants/bench/events "$key" "$1" "$2"
  publish_rate=$wrk_rate
  published=$(($(metric posthorn_events_published_total) - before))
  measure_end "$published"
}

# row LABEL [LIMIT]: what was measured last, its ratio to `limit` or to another one.
row() { result row "$1" "$rate" "$cpu" "$mib" "$(calc %.3f "$rate / ${2:-$limit}")"; }
# limit_row LABEL: what wrk did last.
limit_row() { result row "$1" "$wrk_rate" "$(cpu_per_1000 "$wrk_cpu" "$wrk_requests")" $((wrk_kib / 1024)) 1; }
# point SERIES X: what was measured last.
point() { result point "$1" "$2" "$rate" "$(calc %.1f "$cpu * 1000")"; }
# latencies SECTION LABEL FILE: of a program of bench/.
latencies() {
  result latency "$1" "$2" "$(ms "$(field "$3" p50_us)")" "$(ms "$(field "$3" p99_us)")" "$(ms "$(field "$3" max_us)")"
}
