#!/usr/bin/env bash
# One-sided durable puts over tcp, the server under callgrind: what handles calls and files does not work for them.
set -eu
cd "$(dirname "$0")/../.."
B=${BERTH_PROGRAMS:-${BUILD:-build}}
if ldd "$B/berthd" | grep -q 'lib.san'; then
	echo "not run: valgrind does not run programs with sanitizers"
	exit 77
fi
if [ "${1:-}" != inside ]; then
	if [ "$(id -u)" = 0 ]; then user=; else user=-r; fi
	exec unshare $user -n -p -f --kill-child --mount-proc bash "$0" inside
fi
ip link set lo up
bench/profile-onesided "$B" 200 512
