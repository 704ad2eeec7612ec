#!/usr/bin/env bash
# Registration with rpcbind, in a network of its own: what clients find there, what is left behind, and that a
# restart after a crash and a stop do the right thing. Needs root, or user namespaces.
set -eu
cd "$(dirname "$0")/../.."
B=${BERTH_PROGRAMS:-${BUILD:-build}}
if [ "${1:-}" != inside ]; then
	if [ "$(id -u)" = 0 ]; then user=; else user=-r; fi
	exec unshare $user -n -m -p -f --mount-proc --kill-child bash "$0" inside
fi
fail() { echo "FAILED: $*"; cat "$dir/log"; exit 1; }
dir=$(mktemp -d /dev/shm/berth-ports-XXXXXX)
trap 'rm -rf "$dir"' EXIT
ip link set lo up
mount -t tmpfs run /run
: > "$dir/log"
echo 'leak:libtirpc.so' > "$dir/lsan"; export LSAN_OPTIONS="suppressions=$dir/lsan" # its rpcb_ calls keep some bytes
serve() {
	"$B/berthd" -o server.pool="$dir/pool" -o server.control="$dir/control" -o exports.file="$dir/exports" \
		-o nfs.port=12049 -o nfs.mount_port=12050 2>>"$dir/log" & pid=$!
	for _ in $(seq 200); do "$B/berth" -s "$dir/control" stat --json >/dev/null 2>&1 && return; sleep 0.05; done
	fail "not ready"
}
registered() { # how many registrations; waits for up to 10 s until there are $1
	for _ in $(seq 100); do
		n=$(rpcinfo 2>/dev/null | grep -cE '^ *(100003|100005) ') || true
		[ "$n" = "$1" ] && return 0
		sleep 0.1
	done
	fail "$n registrations instead of $1: $(rpcinfo)"
}
"$B/berth" mkfs -s 64M "$dir/pool" >/dev/null
printf '/ 127.0.0.1(rw,no_root_squash,insecure) 192.0.2.0/24(ro)\n' > "$dir/exports"

serve # no rpcbind: quietly without
grep -qi rpcbind "$dir/log" && fail "a word about rpcbind although none runs"
kill $pid; wait $pid || fail "status $?"

rpcbind
serve
registered 4 # NFS and MOUNT on tcp and tcp6
rpcinfo -p 127.0.0.1 | grep -qE '100003 +3 +tcp +12049' || fail "NFS port"
rpcinfo -p 127.0.0.1 | grep -qE '100005 +3 +tcp +12050' || fail "MOUNT port"
showmount -e 127.0.0.1 | grep -qE '^/ +127.0.0.1,192.0.2.0/24' || fail "showmount -e"
nfs-ls nfs://127.0.0.1/ || fail "a client that asks rpcbind for the ports"
kill -9 $pid # supervisor and server, registrations stay
wait $pid 2>/dev/null || true
sleep 0.3
serve
registered 4
nfs-ls nfs://127.0.0.1/ || fail "after a crash"
kill $pid; wait $pid || fail "status $?"
registered 0
echo ok
