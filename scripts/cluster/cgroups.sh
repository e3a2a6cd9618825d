# shellcheck shell=bash
# One subtree of cgroups for a cluster, below it one for the control plane and one for each node. Sourced.

hierarchies=/sys/fs/cgroup

# Prints the folder of cgroup $1 in each hierarchy: one in version 2, one per controller in version 1.
cgroup_folders() {
    local folder
    if [[ -e $hierarchies/cgroup.controllers ]]; then
        printf '%s\n' "$hierarchies/$1"
        return
    fi
    for folder in "$hierarchies"/*/; do
        # Not the aliases (cpu for cpu,cpuacct), nor the version 2 hierarchy beside those of version 1.
        [[ -L ${folder%/} || $folder == */unified/ || ! -e ${folder}cgroup.procs ]] || printf '%s\n' "$folder$1"
    done
}

# Makes cgroup $1, whose parent exists.
make_cgroup() {
    local folder parent file
    while read -r folder; do
        mkdir -p "$folder"
        parent=${folder%/*}
        if [[ -e $parent/cgroup.subtree_control ]]; then
            echo '+cpu +cpuset +io +memory +pids' >"$parent/cgroup.subtree_control"
        elif [[ -e $folder/cpuset.cpus ]]; then
            # A new cpuset of version 1 is empty, and nothing can be put into it.
            for file in cpuset.cpus cpuset.mems; do cat "$parent/$file" >"$folder/$file"; done
        fi
    done < <(cgroup_folders "$1")
}

# Moves the calling shell into cgroup $1. In every hierarchy: kubelet wants its own cgroups to agree.
enter_cgroup() {
    local folder
    while read -r folder; do
        echo 0 >"$folder/cgroup.procs"
    done < <(cgroup_folders "$1")
}

# Removes cgroup $1 and all below it, as soon as the last of their processes is gone. Also where this harness makes
# none: beside version 1, runc puts containers into the version 2 hierarchy as well.
remove_cgroup() {
    local folders
    mapfile -t folders < <(cgroup_folders "$1" && echo "$hierarchies/unified/$1")
    wait_until 30 remove_folders "${folders[@]}" || fail "cgroup $1 cannot be removed; its processes: $(
        find "${folders[@]}" -name cgroup.procs -exec cat {} + 2>/dev/null | sort -u | tr '\n' ' '
    )"
}

remove_folders() {
    local folder
    for folder in "$@"; do
        [[ ! -d $folder ]] || find "$folder" -depth -type d -exec rmdir {} +
    done
}
