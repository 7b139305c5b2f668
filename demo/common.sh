# What the demos have in common. They source this in the checkout's folder, and define clean().
# shellcheck shell=bash disable=SC2034 # who sources it uses these

readonly parts=$PWD/src/inclavare/_native runectl=$PWD/build/bin/runectl
readonly golden=$(<native/skeleton/MRENCLAVE)
readonly id=inclavare-demo-$$

say() { printf '%s\n' "$*"; }
title() { printf '\n== %s\n' "$*"; }
quote() { sed 's/^/   | /' "$@"; }
fail() {
    printf 'demo: %s\n' "$*" >&2
    exit 1
}

clean_at_the_end() {
    trap clean EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    trap 'exit 129' HUP
}
