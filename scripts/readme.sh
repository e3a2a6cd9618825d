# shellcheck shell=bash
# Commands of the README, run as they stand there. Sourced; does nothing by itself.

# shellcheck source=scripts/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

# Prints the commands of the first console block of a section, one a line.
readme_commands() {
    awk -v section="## $1" '
        /^## / { inside = $0 == section }
        inside && /^```/ { if (block) exit; block = $0 == "```console"; next }
        inside && block && sub(/^\$ /, "")' "$root/README.md"
}

# Shows and runs each of them; the first that fails ends it.
run_readme() {
    local commands=() line
    mapfile -t commands < <(readme_commands "$1")
    ((${#commands[@]} > 0)) || fail "README.md has no commands in section $1"
    for line in "${commands[@]}"; do
        say "\$ $line"
        # Standard input is not this script's.
        bash -euo pipefail -c "$line" </dev/null
    done
}
