#!/bin/bash
# Runs containers under a containerd of its own, through the shim: plain ones, a group, and one with an SGX enclave on the
# software platform, whose quote is verified. Shows that tasks outlive containerd, and that nothing is left of it all.
# Called by `make demo-containerd`; fails when anything is not as it says.
#
# It starts itself again in network and mount namespaces of its own, with an empty /run and /var/lib: neither the
# machine's containerd nor its files are touched, and what is mounted ends with it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. demo/common.sh

[ "$(id -u)" = 0 ] || fail "containers need root: sudo make demo-containerd"
for program in containerd ctr busybox; do
    command -v "$program" >/dev/null || fail "needs $program (Debian packages containerd and busybox-static)"
done
if [ "${1:-}" != inside ]; then
    exec unshare --net --mount --propagation private "$PWD/demo/containerd.sh" inside
fi

readonly runtime=io.containerd.rune.v2
work=$(mktemp -d "${TMPDIR:-/tmp}/inclavare-demo.XXXXXX")
readonly work socket=/run/$id.sock
daemon=

ctr() { command ctr --address "$socket" "$@"; }
# How a task is run: with our runtime, in a cgroup of the demo's, from a directory instead of an image.
run() { # OPTIONS... NAME ROOTFS -- COMMAND...
    local options=() name rootfs
    while [ "$3" != -- ]; do
        options+=("$1")
        shift
    done
    name=$1 rootfs=$2
    shift 3
    ctr run --runtime "$runtime" --cgroup "/$id/$name" "${options[@]}" --rootfs "$rootfs" "$name" "$@" </dev/null
}

start_containerd() {
    # setsid: an interrupt from the keyboard is for the demo, which ends the daemon when its tasks have gone.
    PATH=$PWD/build/bin:$PATH RUNE_SGX_PLATFORM=emulated setsid containerd --config "$work/containerd.toml" \
        >>"$work/containerd.log" 2>&1 </dev/null &
    daemon=$!
    for _ in $(seq 200); do
        ! ctr version >/dev/null 2>&1 || return 0
        kill -0 "$daemon" 2>/dev/null || break
        sleep 0.05
    done
    say "demo: containerd does not answer: $(tail -n 3 "$work/containerd.log")" >&2
    return 1
}

shims() { # their pids; grep finds itself, too, but is no shim
    { grep -alsF "$socket" /proc/[0-9]*/cmdline || true; } | { xargs -r grep -als containerd-shim || true; } | cut -d / -f 3
}

wait_for() { # WHAT COMMAND...
    local what=$1
    shift
    for _ in $(seq 200); do
        ! "$@" >/dev/null 2>&1 || return 0
        sleep 0.05
    done
    fail "$what does not come to pass: $(tail -n 5 "$work/containerd.log")"
}
has_stopped() { ctr task list | grep -qE "^$1 .*STOPPED"; }
are_gone() { [ -z "$(shims)" ]; }

remove() { # NAME...
    local name
    for name; do
        ctr task delete --force "$name" >/dev/null 2>&1 || true
        ctr container delete "$name" >/dev/null 2>&1 || true
    done
}

clean() {
    local names pid
    trap "" INT TERM HUP
    set +e
    if [ -n "$daemon" ]; then
        kill -0 "$daemon" 2>/dev/null || start_containerd
        mapfile -t names < <(ctr container list --quiet 2>/dev/null)
        remove "${names[@]}"
        for pid in $(cat /sys/fs/cgroup/*/"$id"/*/cgroup.procs 2>/dev/null) $(shims); do kill -KILL "$pid"; done
    fi
    # shellcheck disable=SC2046 # one word for each
    kill $(jobs -p) 2>/dev/null
    wait
    find /sys/fs/cgroup -depth -type d -path "*/$id*" -exec rmdir {} + 2>/dev/null || true
    rm -rf "$work"
}
clean_at_the_end

# What is on the machine of the demo's tasks, one line each, the kind first.
traces() {
    local path
    for path in /run/containerd/runc/default/*; do [ ! -e "$path" ] || say "state $path"; done
    for path in /run/containerd/s/*; do [ ! -e "$path" ] || say "socket $path"; done
    { grep -F "$work/" /proc/self/mountinfo || true; } | sed 's/^/mount /'
    find /sys/fs/cgroup -type d -path "*/$id/*" -printf 'cgroup %p\n' 2>/dev/null || true # others' may vanish meanwhile
    { grep -ls "/$id/" /proc/[0-9]*/cgroup || true; } | sed 's/^/process /'
    shims | sed 's/^/shim /'
}

title "A containerd that finds the shim"
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/lib
ip link set lo up 2>/dev/null || true
cat >"$work/containerd.toml" <<TOML
version = 2
root = "$work/root"
state = "$work/state"
oom_score = 0
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "$socket"
[plugins."io.containerd.internal.v1.opt"]
  path = "$work/opt"
TOML
start_containerd || exit 1
ctr version | sed -n '/Server/,$p' | grep -E "Version" | quote
build/bin/containerd-shim-rune-v2 -v | quote
say "   'io.containerd.rune.v2' makes containerd run 'containerd-shim-rune-v2', which is all that had to be installed: the"
say "   runtime is in the shim. No runc, no image, no registry here: the containers' root is a directory with busybox."

rootfs=$work/busybox
mkdir -p "$rootfs"/{bin,dev,proc,sys,tmp}
cp "$(command -v busybox)" "$rootfs/bin/busybox"
for applet in sh echo sleep ps wc; do ln -s busybox "$rootfs/bin/$applet"; done

title "A task: ctr run --runtime $runtime"
out=$(run --rm --env PATH=/bin hello "$rootfs" -- sh -c 'echo "hello from process $$"')
quote <<<"$out"
[ "$out" = "hello from process 1" ] || fail "the task said something else"
status=0
run --rm --env PATH=/bin status "$rootfs" -- sh -c 'exit 7' || status=$?
[ "$status" = 7 ] || fail "the task should have ended with 7, not $status"
say "   Another one ended with 7, and so did ctr."

title "The life of a task: exec, pause, metrics, kill"
run --detach --env PATH=/bin life "$rootfs" -- sleep 1000
ctr task exec --exec-id e life ps | quote
ctr task pause life
ctr task list | quote
ctr task list | grep -qE '^life .*PAUSED' || fail "it is not paused"
ctr task resume life
ctr task metrics life | grep -E "memory.usage_in_bytes|memory.usage |cpuacct.usage |cpu.usage_usec|pids.current" | quote
ctr task kill --signal KILL life
wait_for "the end of life" has_stopped life
ctr task delete life 2>&1 | grep -o "exit with non-zero exit code 137" | quote
remove life

title "A group, as the containers of a pod are one"
for name in one two three; do
    run --detach --annotation io.containerd.runc.v2.group=pod --env PATH=/bin "$name" "$rootfs" -- sleep 1000
done
mapfile -t pids < <(shims)
[ "${#pids[@]}" = 1 ] || fail "three tasks of a group have ${#pids[@]} shims"
sleep 1.5 # an idle shim lets go of memory
pss=$(awk '/^Pss:/ {print $2}' "/proc/${pids[0]}/smaps_rollup")
ctr task list | quote
say "   One shim serves the three: process ${pids[0]}, which takes $pss KiB of memory (PSS) when it is idle."

title "containerd crashes: kill -9"
{ kill -KILL "$daemon" && wait "$daemon" || true; } 2>/dev/null # the shell would tell of it
start_containerd || exit 1
out=$(ctr task exec --exec-id e two echo "still here")
quote <<<"$out"
[ "$out" = "still here" ] || fail "the task did not outlive containerd"
say "   The tasks did not notice, and a new containerd has them all again."
remove one two three

title "A task in an enclave"
"$runectl" platform init >/dev/null
setsid "$runectl" aesmd >"$work/aesmd.log" 2>&1 </dev/null &
wait_for "AESM's socket" test -S /run/aesmd/aesm.socket
enclave=$work/skeleton
mkdir -p "$enclave/opt/skeleton"
cp "$parts/skeleton/encl.bin" "$enclave/opt/skeleton"
"$runectl" keygen "$work/key.pem" >/dev/null
"$runectl" sign --no-debugger --key "$work/key.pem" "$enclave/opt/skeleton/encl.bin" "$enclave/opt/skeleton/encl.ss" >/dev/null
run --detach --log-uri "file://$work/output" --cwd /opt/skeleton --env ENCLAVE_TYPE=intelSgx \
    --env "ENCLAVE_RUNTIME_PATH=$parts/liberpal-skeleton-v3.so" enclave "$enclave" -- skeleton wait_timeout 1000
wait_for "the greeting" grep -qxF "Hello Inclavare Containers!" "$work/output"
quote "$work/output"
say "   Written by code in the enclave. ENCLAVE_TYPE and ENCLAVE_RUNTIME_PATH in the container's environment made it so; in"
say "   Kubernetes they are a pod's annotations. containerd was started with RUNE_SGX_PLATFORM=emulated: this machine's SGX"
say "   was not used, and nothing here was protected from anybody."
ctr task exec --exec-id e --cwd /opt/skeleton enclave skeleton >"$work/output" 2>&1 || fail "exec: $(<"$work/output")"
quote "$work/output"
say "   A second process of the container, by 'ctr task exec', which the enclave's runtime hosts, too."

title "Its quote, and a verdict on it"
nonce=$(od -An -tx1 -N16 /dev/urandom | tr -d ' \n')
build/bin/rune --root /run/containerd/runc/default attest --isRA --nonce "$nonce" --reportFile "$work/quote.bin" enclave
"$runectl" verify-quote --quote "$work/quote.bin" --collateral /var/lib/inclavare/platform/collateral.json \
    --root /var/lib/inclavare/platform/root.pem --allow-emulated --mrenclave "$golden" --report-data "$nonce" \
    >"$work/verdict" || fail "the quote was refused: $(<"$work/verdict")"
sed '/^Steps:/,$d' "$work/verdict" | quote
grep -q "$golden" "$work/verdict" || fail "the verdict does not name the enclave"
say "   The quote answers our nonce, is of this MRENCLAVE, and is signed by the platform, in $(grep -c ' passed: ' "$work/verdict") steps of verification."

title "What is left: nothing"
present=$(traces | cut -d ' ' -f 1 | sort -u | tr '\n' ' ')
[ "$present" = "cgroup process shim socket state " ] || fail "of a task that exists, only this was found: $present"
remove enclave
wait_for "the end of the shim" are_gone
left=$(traces)
[ -z "$left" ] || fail "this is left: $left"
say "   Its state, socket, cgroup, process and shim were there a moment ago; now there is no state, socket, mount, cgroup,"
say "   process or shim of it."
