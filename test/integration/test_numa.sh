#!/usr/bin/env bash
# berth probe on a machine with NUMA nodes: a made-up /sys in a mount namespace of its own.
set -eu
cd "$(dirname "$0")/../.."
B=${BERTH_PROGRAMS:-${BUILD:-build}}
if [ "${1:-}" != inside ]; then
	if [ "$(id -u)" = 0 ]; then user=; else user=-r; fi
	exec unshare $user -n -m bash "$0" inside
fi
fail() { echo "FAILED: $*"; cat "$dir/out"; exit 1; }
ip link set lo up
dir=$(mktemp -d /dev/shm/berth-numa-XXXXXX); trap 'rm -rf "$dir"' EXIT
truncate -s 32M "$dir/pool"
dev=$(stat -c %d "$dir/pool")
pool=$dir/sys/dev/block/$((dev >> 8 & 0xfff)):$((dev & 0xff | dev >> 12 & 0xfff00)) card=$dir/sys/class/net/lo/device
nodes=$dir/sys/devices/system/node
mkdir -p "$pool" "$card" "$nodes/node0" "$nodes/node1" "$nodes/node2"
echo "10 21 31" > "$nodes/node0/distance"; echo "21 10 32" > "$nodes/node1/distance"; echo "31 32 10" > "$nodes/node2/distance"
mount --bind "$dir/sys" /sys
probe() { FI_PROVIDER=tcp "$B/berth" probe --provider tcp --pool "$dir/pool" "$@" > "$dir/out" || fail "berth probe $*"; }

echo 1 > "$card/numa_node"; echo 2 > "$pool/numa_node"
probe; grep -qx '    NUMA         node 1, the pool node 2, distance 32 (10: the same)' "$dir/out" || fail "another node"
probe --json; python3 -c 'import json, sys
o = next(o for o in json.load(sys.stdin)["offers"] if o.get("usable"))
assert (o["numa_node"], o["pool_numa_node"], o["numa_distance"]) == (1, 2, 32), o' < "$dir/out" || fail "as JSON"
echo 0 > "$card/numa_node"; echo 0 > "$pool/numa_node"
probe; grep -q 'NUMA         node 0, the pool node 0, distance 10 ' "$dir/out" || fail "the same node"
echo -1 > "$pool/numa_node"
probe; grep -qx '    NUMA         node 0' "$dir/out" || fail "a pool of no node"
echo -1 > "$card/numa_node"
probe; ! grep -q NUMA "$dir/out" || fail "a card of no node"
