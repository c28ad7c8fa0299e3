#!/usr/bin/env bash
# Run `enrich run` once for cron or systemd: never two at a time, with a log and a time limit. Options are those of the
# command, given here or as ENRICH_… variables; docs/scheduling.md has examples.
#
#   nightly.sh [CATALOG] [OPTION]...
#
# Nothing is expected of the environment; cron's is nearly empty. What may be set, there or in the file NIGHTLY_ENV:
#
#   NIGHTLY_ENV      file with NAME=value lines: options, credentials              none
#   ENRICH_BIN       the command                                                   .venv/bin/enrich beside jobs/, else PATH
#   NIGHTLY_LOG      file to append to                                             logs/nightly.log beside jobs/
#   NIGHTLY_LOCK     file to lock                                                  NIGHTLY_LOG with .lock behind it
#   NIGHTLY_TIMEOUT  how long until the run is told to stop (SIGTERM)              8h
#   NIGHTLY_GRACE    how long it then has to commit what is done (then SIGKILL)    2m
#
# Exits as the command does, or with 75 if another run holds the lock and 2 if it can't be started at all. Silent unless
# it fails: then the end of the log goes to standard error, which cron mails and systemd keeps.

set -u

home=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd) || exit 2

fail() {
    echo "nightly.sh: $2" >&2
    exit "$1"
}

say() {
    printf '%s nightly: %s\n' "$(date +%Y-%m-%dT%H:%M:%S%z)" "$1" >>"$log"
}

if [ -n "${NIGHTLY_ENV:-}" ]; then
    [ -r "$NIGHTLY_ENV" ] || fail 2 "can't read NIGHTLY_ENV=$NIGHTLY_ENV"
    set -a
    # shellcheck disable=SC1090 # where it lies is the operator's choice
    . "$NIGHTLY_ENV" || fail 2 "NIGHTLY_ENV=$NIGHTLY_ENV is no list of NAME=value"
    set +a
fi

log=${NIGHTLY_LOG:-$home/logs/nightly.log}
lock=${NIGHTLY_LOCK:-$log.lock}
bin=${ENRICH_BIN:-$home/.venv/bin/enrich}
[ -n "${ENRICH_BIN:-}" ] || [ -x "$bin" ] || bin=enrich
command -v -- "$bin" >/dev/null || fail 2 "there is no command $bin; set ENRICH_BIN"
for limit in "${NIGHTLY_TIMEOUT:=8h}" "${NIGHTLY_GRACE:=2m}"; do
    [[ $limit =~ ^[0-9]+(\.[0-9]+)?[smhd]?$ ]] || fail 2 "'$limit' is no duration such as 8h, 90m or 30s"
done
mkdir -p -- "$(dirname -- "$log")" || fail 2 "can't make the directory of $log"
{ : >>"$log" && : >>"$lock"; } || fail 2 "can't write $log and $lock"

# The command inherits the descriptor: should this script be killed, the lock is held for as long as the run goes on.
exec 9>>"$lock"
if ! flock -n 9; then
    say "another run holds $lock; nothing done"
    fail 75 "another run holds $lock"
fi

start=$SECONDS
first_line=$(($(wc -l <"$log") + 1))
say "start"

child=
asked=
# shellcheck disable=SC2317 # called by the traps
pass_on() {
    asked=$1
    [ -z "$child" ] || kill -s "$asked" "$child" 2>/dev/null
}
trap 'pass_on TERM' TERM HUP
trap 'pass_on INT' INT

# One signal must reach the command once: a second one makes it stop at once, uncommitted. Without --foreground, timeout
# signals its child and then its whole group; without setsid, a terminal's Ctrl-C arrives beside the one passed on here.
setsid timeout --foreground --preserve-status --kill-after="$NIGHTLY_GRACE" "$NIGHTLY_TIMEOUT" \
    "$bin" run "$@" >>"$log" 2>&1 </dev/null &
child=$!
[ -z "$asked" ] || pass_on "$asked"

while :; do
    asked=
    wait "$child"
    code=$?
    [ -n "$asked" ] || break # a signal ended the wait, not the run
done

say "exit code $code after $((SECONDS - start)) s"
if [ "$code" != 0 ] && [ "$code" != "${ENRICH_EXIT_CODE_UNCHANGED:-0}" ]; then
    echo "nightly.sh: exit code $code; the end of $log:" >&2
    tail -n "+$first_line" -- "$log" | tail -n 20 >&2
fi
exit "$code"
