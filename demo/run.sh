#!/bin/bash
# Runs a container whose program executes inside an SGX enclave, on the software platform, and says what was seen. Then
# proves that nothing is left of it. Called by `make demo`; fails when anything is not as it says.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. demo/common.sh

[ "$(id -u)" = 0 ] || fail "containers need root: sudo make demo"

work=$(mktemp -d "${TMPDIR:-/tmp}/inclavare-demo.XXXXXX")
readonly work
rune=("$PWD/build/bin/rune" --root "$work/state" --sgx-platform emulated)

clean() {
    trap "" INT TERM HUP
    "${rune[@]}" delete --force "$id" "$id-changed" || true
    rm -rf "$work"
}
clean_at_the_end

# What is on the machine of the demo's containers, one line each, the kind first.
traces() {
    local path
    for path in "$work"/state/"$id"*; do [ ! -e "$path" ] || say "state $path"; done
    { grep -F "$work" /proc/self/mountinfo || true; } | sed 's/^/mount /'
    find /sys/fs/cgroup -type d -name "$id*" -printf 'cgroup %p\n' 2>/dev/null || true # others' may vanish meanwhile
    { grep -ls "/$id" /proc/[0-9]*/cgroup || true; } | sed 's/^/process /'
}

title "An enclave: a program in memory that the processor keeps from everybody else, the kernel included"
mrenclave=$("$runectl" measure "$parts/skeleton/encl.bin")
say "   MRENCLAVE $mrenclave"
[ "$mrenclave" = "$golden" ] || fail "the image is not the expected one: its MRENCLAVE should be $golden"
say "   Its identity: the hash over every page, computed from the file, and the same wherever these sources are built."

title "A container with this enclave: rune --sgx-platform emulated run"
bundle=$work/bundle
mkdir -p "$bundle/rootfs/run/rune"
cp "$parts"/skeleton/encl.{bin,ss} "$bundle/rootfs/run/rune/"
"${rune[@]}" spec --bundle "$bundle" --enclave skeleton
"${rune[@]}" run --bundle "$bundle" "$id" >"$work/output" 2>&1 </dev/null || fail "rune failed: $(<"$work/output")"
quote "$work/output"
for line in "platform: emulated" "Hello Inclavare Containers!" "Enclave runtime skeleton initialization succeeded"; do
    grep -qxF "$line" "$work/output" || fail "the line '$line' is missing"
done
say "   'Hello' was written by code in the enclave; the last line by the container's process, which the enclave runtime hosts."
say "   The platform measured the enclave page by page while it was built, and found what its signer signed: this MRENCLAVE."

title "The same with one byte of its code changed"
cp -r "$bundle" "$work/changed"
image=$work/changed/rootfs/run/rune/encl.bin
byte=$(od -An -tu1 -j 4160 -N 1 "$image")
printf '%b' "\\x$(printf '%02x' $((byte ^ 1)))" | dd of="$image" bs=1 seek=4160 conv=notrunc status=none
if "${rune[@]}" run --bundle "$work/changed" "$id-changed" >"$work/refusal" 2>&1 </dev/null; then
    fail "a changed enclave was run"
fi
grep EINIT "$work/refusal" | quote
grep -q SGX_INVALID_MEASUREMENT "$work/refusal" || fail "the changed enclave failed otherwise: $(<"$work/refusal")"
say "   Refused, because it is not the enclave that was signed."

title "Where it ran: rune create, rune state"
"${rune[@]}" create --bundle "$bundle" "$id" >"$work/output" 2>&1 </dev/null || fail "rune failed: $(<"$work/output")"
"${rune[@]}" state "$id" >"$work/document"
grep '"platform"' "$work/document" | quote
grep -q '"platform": "emulated"' "$work/document" || fail "rune state does not say that the platform is emulated"
say "   Emulated: this machine's SGX was not used, and nothing here was protected from anybody. The instructions, the"
say "   measurement and the checks are those of the hardware; the secrecy is not."

title "What is left: nothing"
present=$(traces | cut -d ' ' -f 1 | sort -u | tr '\n' ' ')
[ "$present" = "cgroup process state " ] || fail "of a container that exists, only this was found: $present"
"${rune[@]}" delete --force "$id"
left=$(traces)
[ -z "$left" ] || fail "this is left: $left"
say "   Its state, cgroup and process were there a moment ago; now there is no state, mount, cgroup or process of it."
