# shellcheck shell=bash
# Daemons without a service manager: each is known by process id and start time, so that no other process that later
# got the same id is ever taken for it. Sourced by what runs inside the cluster's namespaces, and by what holds them.

# Prints the start time of process $1, in clock ticks since the boot; nothing if there is none.
born() {
    local stat
    { stat=$(<"/proc/$1/stat"); } 2>/dev/null || return 0
    # The name, in parentheses, may contain spaces; the start time is the 20th field after it.
    read -r -a stat <<<"${stat##*) }"
    printf '%s\n' "${stat[19]}"
}

# remember FILE PID
remember() {
    printf '%s %s\n' "$2" "$(born "$2")" >"$1"
}

# Prints the process that FILE remembers if it lives.
living() {
    local pid birth
    { read -r pid birth <"$1"; } 2>/dev/null || return 1
    [[ -n $birth && $(born "$pid") == "$birth" ]] || return 1
    printf '%s\n' "$pid"
}

# end FILE [SIGNAL]: ends the process that FILE remembers and forgets it; kills it after ten seconds.
end() {
    local pid
    if pid=$(living "$1"); then
        kill "-${2:-TERM}" "$pid" 2>/dev/null || true
        wait_until 10 ended "$1" || kill -KILL "$pid" 2>/dev/null || true
        wait_until 10 ended "$1" || fail "process $pid ($1) does not end"
    fi
    rm -f "$1"
}

ended() { ! living "$1" >/dev/null; }

# wait_until SECONDS COMMAND...: tries until the command succeeds.
wait_until() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < end)) || return 1
        sleep 0.1
    done
}

# Prints the first child of process $1, waiting for it.
child_of() {
    local children=''
    for _ in {1..200}; do
        # The file has no line end, so read fails even when it has read.
        { read -r children _ <"/proc/$1/task/$1/children" || true; } 2>/dev/null
        [[ -z $children ]] || break
        sleep 0.02
    done
    [[ -n $children ]] || fail "process $1 did not start what it should have started"
    printf '%s\n' "$children"
}
