# Ends a cluster, also a half-started one, and removes everything of it outside the cache.

down() {
    [ $# = 0 ] || die "down takes no arguments"
    [ -e "$RUN" ] || { say "there is no cluster $NAME"; return; }
    local began
    began=$(now_ms)
    end_up
    if [ -e "$RUN/kind" ]; then down_kind; else end_node; remove_cgroups; fi
    refuse_mounts
    wait_for 20 "the cluster's folder to be free" rm -rf --one-file-system "$RUN" || die "$RUN cannot be removed"
    rmdir "$RUNS" 2>/dev/null || true
    say "cluster $NAME is gone after $(seconds_since "$began") s"
}

# An up that still runs would recreate what is being removed.
end_up() {
    local pid started
    [ -e "$RUN/up.pid" ] || return 0
    read -r pid started <"$RUN/up.pid"
    alive "$pid" "$started" || return 0
    kill -KILL "$pid"
    say "ended the up of cluster $NAME that was still running"
}

# Kills one process, the one that `up` started; the kernel ends every other in its pid namespace.
end_node() {
    local pid started namespace
    [ -e "$RUN/node.pid" ] || return 0
    read -r pid started <"$RUN/node.pid"
    # Recorded by up; an up that was killed before left it to be looked up.
    namespace=$(cat "$RUN/namespace" 2>/dev/null || true)
    if alive "$pid" "$started"; then
        namespace=${namespace:-$(namespace_of "$(first_process)")}
        kill -KILL "$pid"
    fi
    [ -z "$namespace" ] || [ "$namespace" = "$(namespace_of self)" ] || wait_for 60 "the cluster's processes to end" namespace_is_empty "$namespace" ||
        die "cluster $NAME has processes that do not end; its folder $RUN is kept"
}

namespace_is_empty() {
    local p left=
    for p in /proc/[0-9]*; do
        [ "$(readlink "$p/ns/pid" 2>/dev/null)" = "$1" ] && left="$left ${p#/proc/}"
    done
    [ -z "$left" ] || { echo "still there: $left"; return 1; }
}

refuse_mounts() {
    ! awk -v r="$RUN/" 'index($2, r) == 1 {found = 1} END {exit !found}' /proc/mounts ||
        die "something is mounted under $RUN, which no cluster does; look at it before removing the folder"
}

# The cgroup folders of this cluster: one per controller on version 1, one in all on version 2; some machines have both.
cgroup_folders() {
    awk '$3 == "cgroup" || $3 == "cgroup2" {print $2}' /proc/mounts | sed "s|\$|/$CGROUP|"
}

make_cgroup() {
    local folder parent file
    if [ -e /sys/fs/cgroup/cgroup.subtree_control ]; then
        sed 's/[a-z_]*/+&/g' /sys/fs/cgroup/cgroup.controllers >/sys/fs/cgroup/cgroup.subtree_control ||
            die "this machine's cgroups cannot be divided: the top cgroup has processes and is not the kernel's root"
    fi
    for folder in $(cgroup_folders); do
        mkdir -p "$folder"
        parent=$(dirname "$folder")
        for file in cpuset.cpus cpuset.mems; do      # version 1: empty at first, and then nothing may run in it
            [ -e "$folder/tasks" ] && [ -e "$folder/$file" ] && cat "$parent/$file" >"$folder/$file"
        done
    done
    return 0
}

remove_cgroups() {
    wait_for 20 "the cluster's cgroups to be free" cgroups_removed || die "cgroups $CGROUP cannot be removed; its folder $RUN is kept"
}

cgroups_removed() {
    local folder
    for folder in $(cgroup_folders); do
        [ ! -d "$folder" ] || find "$folder" -depth -type d -exec rmdir {} + || return 1
    done
}
