#!/usr/bin/env bash
# Everything that a machine with a GPU can say of the kernels: each against its reference, the sanitizer's
# tools, then the ceilings. Takes executables, so that they can be built where there is no GPU:
#   cargo test --release -p shoal-kernels --no-run && cargo build --release -p shoal-kernels --example probe
#   kernels/check.sh TESTS PROBE FOLDER
# TESTS is the `kernels` test executable; logs and probe.json go to FOLDER. Fails if any check does.
set -uo pipefail
tests=$1 probe=$2 out=$3
failed=0
export SHOAL_REQUIRE_GPU=1
mkdir -p "$out"

check() { # name, then the command
  local name=$1
  shift
  "$@" >"$out/$name.log" 2>&1
  local code=$?
  echo "$name: exit $code; $(grep -E 'test result|SUMMARY' "$out/$name.log" | tr '\n' ' ')"
  [ $code -eq 0 ] || failed=1
}

check tests timeout 120 "$tests" --nocapture
for tool in memcheck initcheck synccheck; do
  check "$tool" timeout 120 compute-sanitizer --tool "$tool" --error-exitcode 9 "$tests"
done
# The race checker is slow: it sees the first launches of each test alone. It cannot run kernels whose blocks read
# each other's shared memory (it ends with an internal error of its own), so those tests are left out.
while read -r filter launches; do
  check "racecheck.${filter//:/_}" timeout 150 compute-sanitizer --tool racecheck --error-exitcode 9 \
    --launch-count "$launches" "$tests" "$filter" --test-threads=1
done <<'LIST'
attention::decode_attends_to_ragged_sequences_in_one 300
attention::prefill_attends_causally 42
norm:: 24
argmax:: 12
rope:: 40
draw:: 12
chain:: 200
LIST
timeout 120 "$probe" >"$out/probe.json" || failed=1
exit $failed
