# Used by every part of tests/cluster: paths, messages, waiting with a limit, and process identity that survives the
# reuse of a pid. Sourced, never run.

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
REPO=$(cd "$HERE/../.." && pwd)
# Built programs and images live here, each under its version, and may be thrown away at any time.
CACHE=${STREAMPRESS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/streampress}
# State of running clusters. Not XDG_RUNTIME_DIR: that is memory on most machines, and images are large.
RUNS=${STREAMPRESS_CLUSTER_DIR:-${TMPDIR:-/tmp}/streampress-cluster}

say() { printf '%s\n' "$*" >&2; }
die() { say "tests/cluster: $*"; exit 1; }
now_ms() { local t=${EPOCHREALTIME/[.,]/}; echo $((t / 1000)); }
seconds_since() { local d=$(($(now_ms) - $1)); printf '%d.%d' $((d / 1000)) $((d % 1000 / 100)); }

# When the kernel started a process, in clock ticks since boot: with the pid, a name that is never used twice.
start_time() {
    local stat
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
    stat=${stat##*) }           # the program's name before it may hold spaces and brackets
    set -- $stat
    [ "$1" != Z ] && echo "${20}"       # a zombie is no process any more
}

# Takes "pid start-time" as written by up. True only while that very process lives.
alive() { [ -n "${1:-}" ] && [ "$(start_time "$1")" = "${2:-none}" ]; }

# wait_for SECONDS WHAT COMMAND…: tries four times a second; on timeout prints WHAT and the last output.
wait_for() {
    local limit=$1 what=$2 end answer
    shift 2
    end=$(($(now_ms) + limit * 1000))
    until answer=$("$@" 2>&1); do
        if [ "$(now_ms)" -gt $end ]; then
            say "gave up after $limit s waiting for $what. The last answer was:"
            say "${answer:-(nothing)}"
            return 1
        fi
        if [ -n "${WATCHDOG:-}" ] && ! $WATCHDOG; then return 1; fi
        sleep 0.25
    done
}

# Debian packages by the file that shows they are there: need PROGRAM PACKAGE …
need() {
    local missing=()
    while [ $# -gt 0 ]; do
        [ -e "$1" ] || command -v "$1" >/dev/null || missing+=("$2")
        shift 2
    done
    [ ${#missing[@]} = 0 ] && return
    say "installing Debian packages: ${missing[*]}"
    command -v apt-get >/dev/null || die "these are missing and there is no apt-get to install them: ${missing[*]}"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"; } >&2 ||
        die "apt-get could not install: ${missing[*]}"
}
