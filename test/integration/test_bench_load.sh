#!/usr/bin/env bash
# berth-bench load on a berthd of its own: every operation runs, the JSON has floor, ratios and counters that are true of
# any machine, and bad command lines are refused with their cure. No timing is looked at.
set -eu
cd "$(dirname "$0")/../.."
B=${BERTH_PROGRAMS:-${BUILD:-build}}
if [ "${1:-}" != inside ]; then
	if [ "$(id -u)" = 0 ]; then user=; else user=-r; fi
	exec unshare $user -n -p -f --kill-child bash "$0" inside
fi
fail() { echo "FAILED: $*"; exit 1; }
ip link set lo up
json=$(mktemp); trap 'rm -f "$json" "$json.err"' EXIT
CPU=$(taskset -cp $$ | sed 's/.*: *//; s/[,-].*//') bench/peers/run "$B" --seconds 0.02 --rounds 2 --depths 1,3 --connections 2 --sizes 4K,64K \
	--ops null,getattr,lookup,read,write,commit,create,remove,mixed,small --json "$json" || fail "it did not run"
python3 - "$json" <<'END' || fail "what it wrote is not what it promises"
import json, sys
doc = json.load(open(sys.argv[1]))
lines = {(l["op"], l["size"], l["depth"]): l for l in doc["lines"]}
assert len(lines) == len(doc["lines"]) == 2 * (5 + 5 * 2), len(lines)
for key, l in lines.items():
    s, f = l["server"], l["floor"]
    assert l["connections"] == 2
    assert s["ops_per_second"] > 0 and f["ops_per_second"] > 0, key
    assert s["p50_us"] <= s["p90_us"] <= s["p99_us"] <= s["p99.9_us"] <= s["max_us"], key
    for r in f["rate_ratio"], f["p50_ratio"]:
        assert len(r) == 3 and 0 < r[1] <= r[0] <= r[2], key
    assert s["server_cpu_us"] > 0 and s["client_cpu_us"] > 0 and s["copied_bytes"] == 0, key
    changes = key[0] in ("write", "create", "remove", "small", "commit", "mixed")
    assert (s["drains_per_op"] > 0) == changes, (key, s["drains_per_op"])
END
refused() { # TEXT OPTIONS...
	local text=$1; shift
	"$B/berth-bench" load "$@" 2>"$json.err" && fail "accepted: $*"
	grep -qF -e "$text" "$json.err" || fail "$*: no word of '$text': $(cat "$json.err")"
}
refused "small" --server 127.0.0.1:1 --ops fly
refused "separated by commas" --server 127.0.0.1:1 --depths 0
refused "HOST:PORT" --server 127.0.0.1
refused "is a server there" --server 127.0.0.1:1
refused "usage" --sizes 4K
