#!/usr/bin/env bash
# The systemd unit: it says nothing that systemd does not know, gives away little, keeps what berthd needs, and what it leaves
# of root's rights is enough to serve clients of every kind. Needs root, or user namespaces.
set -eu
cd "$(dirname "$0")/../.."
B=${BERTH_PROGRAMS:-${BUILD:-build}}
if [ "${1:-}" != inside ]; then
	if [ "$(id -u)" = 0 ]; then user=; else user=-r; fi
	exec unshare $user -n bash "$0" inside
fi
fail() { echo "FAILED: $*"; cat "$dir/log"; exit 1; }
dir=$(mktemp -d /dev/shm/berth-unit-XXXXXX)
trap 'rm -rf "$dir"' EXIT
ip link set lo up
: > "$dir/log"
unit="$dir/berthd.service"
sed "s|^ExecStart=[^ ]*|ExecStart=$(realpath "$B")/berthd|" etc/berthd.service > "$unit"

said=$(systemd-analyze verify --man=no "$unit" 2>&1) || fail "verify: $said"
[ -z "$said" ] || fail "verify: $said"
systemd-analyze security --offline=true --threshold=40 "$unit" > "$dir/log" 2>&1 || fail "too much is open"

# These would take device DAX, cards, or the /dev/shm of clients away.
if grep -E '^(PrivateDevices|DevicePolicy|DeviceAllow|ProtectClock|PrivateNetwork|PrivateUsers|PrivateIPC)=' "$unit"; then
	fail "hides what is served"
fi
allowed() { systemd-analyze syscall-filter "$1" | awk '/^ +@/ { print $1 } /^ +[a-z]/ { print "=" $1 }'; }
filter=$(sed -n 's/^SystemCallFilter=//p' "$unit")
for set in $(allowed "$filter" | grep '^@') "$filter"; do allowed "$set"; done | grep '^=' | sort -u > "$dir/calls"
for call in process_vm_readv process_vm_writev msync mlock ioctl set_mempolicy sched_setaffinity signalfd4 timer_create fallocate; do
	grep -qx "=$call" "$dir/calls" || fail "no $call"
done

# Root with these capabilities only.
set=-all
for cap in $(sed -n 's/^CapabilityBoundingSet=//p' "$unit"); do cap=${cap#CAP_}; set="$set,+${cap,,}"; done
"$B/berth" mkfs -s 64M "$dir/pool" >/dev/null
chmod 0400 "$dir/pool"; printf '/ 127.0.0.1(rw,no_root_squash,insecure)\n' > "$dir/exports"
(umask "$(sed -n 's/^UMask=//p' "$unit")" && exec setpriv --no-new-privs --bounding-set "$set" "$B/berthd" -o server.pool="$dir/pool" \
	-o server.control="$dir/control" -o exports.file="$dir/exports" -o nfs.port=649 -o nfs.rpcbind=off \
	-o 'fabric shm.provider=shm' -o "fabric shm.service=unit-$$" -o 'fabric tcp.provider=tcp') 2>>"$dir/log" & pid=$!
for _ in $(seq 200); do
	"$B/berth" -s "$dir/control" stat --json >/dev/null 2>&1 && break
	kill -0 $pid 2>/dev/null || fail "it does not start with these capabilities"
	sleep 0.05
done
head -c 3000000 /dev/urandom > "$dir/a"
for url in "berth+shm://unit-$$" berth+tcp://127.0.0.1; do
	"$B/berth" cp "$dir/a" "$url/a" || fail "$url"
	"$B/berth" cp "$url/a" "$dir/b" || fail "$url"
	cmp "$dir/a" "$dir/b" || fail "$url: not what was written"
	rm "$dir/b"
done
nfs-ls "nfs://127.0.0.1/?nfsport=649&mountport=649" | grep -q ' a$' || fail "a client of TCP"
kill $pid; wait $pid || fail "status $?"
echo "ok"
