#!/usr/bin/env bash
# berth-bench load on a berthd of its own: every operation over every transport does exactly as many operations as were
# asked for, has a floor, ratios and counters that are true of any machine; compare, plots and page are made of what it wrote;
# bad command lines are refused with their cure. No timing is looked at.
set -eu
cd "$(dirname "$0")/../.."
B=${BERTH_PROGRAMS:-${BUILD:-build}}
if [ "${1:-}" != inside ]; then
	if [ "$(id -u)" = 0 ]; then user=; else user=-r; fi
	exec unshare $user -n -m -p -f --mount-proc --kill-child bash "$0" inside
fi
fail() { echo "FAILED: $*"; exit 1; }
ip link set lo up
mount -t tmpfs -o mode=1777 tmpfs /dev/shm # of its own: nobody else's files
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
json=$dir/now.json
# A floor ends with its client, however long that takes here; one that does not is ended by the limit of this test. All
# processes that are seen are ours.
floors_end() { while pgrep -f 'berth-bench floor' >/dev/null; do sleep 0.05; done; }
regions() { ls /dev/shm | grep -E '^[0-9]+:[0-9]+:[0-9]+$' || true; } # of shm endpoints without a name of their own
regions >"$dir/before"
export CPU=$(taskset -cp $$ | sed 's/.*: *//; s/[,-].*//')

# 1. every operation, every transport, several threads
OVER="sockets tcp shm" bench/peers/run "$B" --count 7 --rounds 2 --depths 1,3 --connections 2 --threads 2 --sizes 4K,64K \
	--ops null,getattr,lookup,read,write,commit,create,remove,mixed,small,put,get --json "$json" --html "$dir/page.html" \
	>"$dir/out" || fail "it did not run"
python3 - "$json" <<'END' || fail "what it wrote is not what it promises"
import json, sys
doc = json.load(open(sys.argv[1]))
lines = {(l["transport"], l["op"], l["size"], l["depth"]): l for l in doc["lines"]}
assert len(lines) == len(doc["lines"]) == 2 * (3 * (5 + 5 * 2) + 2 * 4), len(lines)
for key, l in lines.items():
    s, f = l["server"], l["floor"]
    assert l["connections"] == 2 and l["threads"] == 2
    assert s["operations"] == f["operations"] == 2 * 7, (key, s["operations"], f["operations"])
    assert s["ops_per_second"] > 0 and f["ops_per_second"] > 0, key
    for p in s, f:
        assert 0 < p["p50_us"] <= p["p90_us"] <= p["p99_us"] <= p["p99.9_us"] <= p["max_us"], key
    for r in f["rate_ratio"], f["p50_ratio"]:
        assert len(r) == 3 and 0 < r[1] <= r[0] <= r[2], key
    durable = f.get("durable_rate_ratio")
    assert (durable is not None) == (key[1] in ("write", "commit", "mixed", "small")), key
    assert not durable or all(d > r for d, r in zip(durable, f["rate_ratio"])), key
    assert (l["persist_us"] > 0) == (l["size"] > 0), key
    assert s["client_cpu_us"] > 0 and s["copied_bytes"] == 0, key
    op = key[1]
    if op in ("write", "create", "remove", "small", "commit", "mixed"):
        assert s["drains_per_op"] > 0, (key, s["drains_per_op"])
    if op in ("null", "getattr", "lookup", "read"):
        assert s["drains_per_op"] == 0, (key, s["drains_per_op"])
END

# 2. beside an earlier run: what is not there is named, what changed by more than both spreads has a star
python3 - "$json" "$dir/then.json" "$dir/twice.json" <<'END'
import copy, json, sys
doc = json.load(open(sys.argv[1]))
json.dump({**doc, "lines": doc["lines"][1:]}, open(sys.argv[2], "w"))
for l in doc["lines"]:
    s = l["server"]
    s["ops_per_second_spread"] = [x * 1000 for x in s["ops_per_second_spread"]]
json.dump(doc, open(sys.argv[3], "w"))
END
report() { "$B/berth-bench" report "$@"; }
report --compare "$json" "$json" >"$dir/same" || fail "no comparison"
[ "$(grep -c ' 1.00 .* 1.00 .* 1.00 ' "$dir/same")" = 106 ] || fail "a run beside itself: not all ratios are 1"
! grep -qF '1.00*' "$dir/same" || fail "a run beside itself has a star"
report --compare "$dir/then.json" "$json" | grep -c 'not there' | grep -qx 1 || fail "the line that is missing in the earlier run"
[ "$(report --compare "$json" "$dir/twice.json" | grep -c ' 1000.00\* ')" = 106 ] || fail "no star where the rate is a thousandfold"

[ "$(report "$json" | wc -l)" = 107 ] || fail "its lines are not shown"

# 3. plots and page
report --svg "$dir/svg" "$json" || fail "no plots"
for f in read-size read-depth write-size getattr-depth put-size; do
	python3 - "$dir/svg/$f.svg" <<'END' || fail "$f.svg is not a drawing with a curve"
import sys, xml.etree.ElementTree as e
root = e.parse(sys.argv[1]).getroot()
assert root.tag == "{http://www.w3.org/2000/svg}svg"
assert len(list(root.iter("{http://www.w3.org/2000/svg}path"))) > 10
END
done
[ ! -e "$dir/svg/getattr-size.svg" ] || fail "a drawing of one point"
python3 - "$dir/page.html" <<'END' || fail "the page has no table of all lines, or not all drawings"
import html.parser, sys, collections
n = collections.Counter()
class P(html.parser.HTMLParser):
    def handle_starttag(self, tag, attrs): n[tag] += 1
P().feed(open(sys.argv[1]).read())
assert n["tr"] == 107 and n["svg"] == 12 + 7, n
END
grep -q ' 64K<\|>64K<' "$dir/svg/read-size.svg" || fail "no size under the curve"
grep -q 'processors, client on 1 of them, Linux .*, TCP '$(cat /proc/sys/net/ipv4/tcp_congestion_control)', libfabric [0-9]' "$dir/page.html" || fail "the page does not say where it was measured"

# 4. idle connections, a second server, a moment of time instead of a count; alone, with a TCP that does not pace
SECOND=1 bench/alone bench/peers/run "$B" --seconds 0.01 --rounds 1 --depths 2 --ops getattr --connections 3 --idle 40 --against-idle 0 \
	--against-connections 1 --json "$json" >"$dir/out" || fail "it did not run with idle connections"
python3 - "$json" <<'END' || fail "what it wrote of idle connections is not what it promises"
import json, sys
doc = json.load(open(sys.argv[1]))
l, = doc["lines"]
assert ", TCP reno, " in doc["machine"], doc["machine"]
assert l["idle"] == 40 and l["connections"] == 3
assert "idle_connection_kib" in l["server"] and "idle_connection_kib" not in l["against"]
assert l["against"]["operations"] > 0 and l["against"]["server_cpu_ratio"][0] > 0
END

# 5. more fabric connections than berth_wait_any() takes
OVER="tcp shm" bench/peers/run "$B" --count 40 --rounds 1 --depths 2 --ops getattr --connections 10 >"$dir/out" ||
	fail "it did not run with ten fabric connections"

# 6. the floor's process where the server is; a server of IPv6
port=24680
"$B/berth-bench" floor 127.0.0.1:$port >"$dir/floor" & floor=$!
until grep -qx ready "$dir/floor"; do kill -0 $floor; sleep 0.05; done
OVER="sockets tcp" bench/peers/run "$B" --floor 127.0.0.1:$port --count 20 --rounds 1 --depths 2 --connections 2 --threads 2 \
	--ops read,write --json "$json" >"$dir/out" || fail "it did not run beside a floor elsewhere"
python3 - "$json" <<'END' || fail "what it wrote of a floor elsewhere is not what it promises"
import json, sys
lines = json.load(open(sys.argv[1]))["lines"]
assert len(lines) == 4
for l in lines:
    assert l["floor"]["operations"] == 20 and l["floor"]["p50_us"] > 0 and "server_cpu_us" not in l["floor"]
END
kill $floor
wait $floor 2>/dev/null || true
floors_end
LISTEN=::1 bench/peers/run "$B" --count 20 --rounds 1 --depths 2 --ops getattr >"$dir/out" || fail "it did not run over IPv6"

# 7. where a floor has no room: an error, no signal
unshare -m sh -c "mount -t tmpfs -o size=8m tmpfs /dev/shm; exec '$B/berth-bench' floor 127.0.0.1:$port" >"$dir/floor" & floor=$!
until grep -qx ready "$dir/floor"; do kill -0 $floor; sleep 0.05; done
for over in sockets tcp; do
	OVER=$over bench/peers/run "$B" --floor 127.0.0.1:$port --count 1 --rounds 1 --ops null >"$dir/out" 2>&1 &&
		fail "a floor of 64 MiB in 8"
	grep -q "No space left.*64 MiB" "$dir/out" || fail "no word of room: $(cat "$dir/out")"
done
kill $floor

# 8. a pool without room for the file, and with too little for what is made
for over in sockets tcp; do
	for size in 48M 84M; do
		OVER=$over SIZE=$size bench/peers/run "$B" --rounds 1 --depths 32 --sizes 1M --ops small --count 100 >"$dir/out" 2>&1 &&
			fail "64 MiB and more in $size"
		grep -q "No space left" "$dir/out" || fail "$over, $size: no word of room: $(cat "$dir/out")"
	done
done

# 9. interrupted: what was whole is written, and nothing is left
OVER=shm bench/peers/run "$B" --seconds 3000 --warm-up 0.01 --rounds 1 --depths 1 --ops write --json "$json" >"$dir/out" 2>&1 & run=$!
until bench=$(pgrep -f 'berth-bench load') && pgrep -f 'berth-bench floor' >/dev/null; do kill -0 $run; sleep 0.05; done
kill -INT $bench
wait $run && fail "an interrupted run is a success" || [ $? = 130 ] || fail "its status"
grep -q "interrupted: 0 lines" "$dir/out" || fail "no word of it: $(cat "$dir/out")"
[ "$(cat "$json" | python3 -c 'import json, sys; print(json.load(sys.stdin)["lines"])')" = "[]" ] || fail "its file"
floors_end
"$B/berth-bench" pool -n 100000 -k one -d /dev/shm >"$dir/out" 2>&1 & run=$!
until ls /dev/shm/berth-bench-one-100000.* >/dev/null 2>&1; do kill -0 $run; sleep 0.05; done
kill -INT $run
wait $run && fail "an interrupted pool is a success" || [ $? = 130 ] || fail "its status"
! ls /dev/shm/berth-bench-* 2>/dev/null || fail "an interrupted pool is left"

refused() { # TEXT OPTIONS...
	local text=$1; shift
	"$B/berth-bench" "$@" 2>"$dir/err" && fail "accepted: $*"
	grep -qF -e "$text" "$dir/err" || fail "$*: no word of '$text': $(cat "$dir/err")"
}
refused "small" load --server 127.0.0.1:1 --ops fly
refused "separated by commas" load --server 127.0.0.1:1 --depths 0
refused "separated by commas" load --server 127.0.0.1:1 --sizes 2M
refused "separated by commas" load --server 127.0.0.1:1 --sizes -1
refused "--rounds 1,2" load --server 127.0.0.1:1 --rounds 1,2
refused "HOST:PORT" load --server 127.0.0.1
refused "HOST:PORT" load --server 127.0.0.1:70000
refused "berth+" load --server berth+tcp:/x
refused "sockets, tcp, shm or verbs" load --server 127.0.0.1:1 --transport udp
refused "is a server there" load --server 127.0.0.1:1
refused "is a server there" load --server [::1]:1
refused "HOST:PORT" load --server [::1]
refused "HOST:PORT" load --server 127.0.0.1:1:2x
refused "nobody listens at 127.0.0.1 port 1:" load --server 127.0.0.1:1 --transport tcp --ops null
refused "one-sided" load --server 127.0.0.1:1 --ops put
refused "--connections" load --server 127.0.0.1:1 --threads 2
refused "at most 3600" load --server 127.0.0.1:1 --seconds no
refused "at most four" load --server a:1 --server a:1 --server a:1 --server a:1 --server a:1
refused "usage" load --sizes 4K
refused "usage" report
refused "no berthd answers" load --server 127.0.0.1:1 --control "$dir/none"
refused "no process" load --server 127.0.0.1:1 --pid 4194303
refused "--json $dir/none/x" load --server 127.0.0.1:1 --json "$dir/none/x"
refused "--html $dir/none/x" load --server 127.0.0.1:1 --html "$dir/none/x"
refused "--json wrote" load --server 127.0.0.1:1 --compare "$dir/out"
refused "behind the comma" load --server 127.0.0.1:1 --depths 1,
refused "from 1 to 99" load --server 127.0.0.1:1 --rounds 100
refused "no 'frob'" frob
refused "-k frob" pool -k frob
refused "extra" pool extra
refused "-r 1x" pool -r 1x
refused "usage" onesided berth+tcp://127.0.0.1:1/ 3x
refused "usage" puts berth+tcp://127.0.0.1:1/ 4096x
refused "ADDRESS:PORT" floor 127.0.0.1
for part in "" load report pool onesided puts floor; do
	"$B/berth-bench" $part --help 2>&1 >"$dir/help" | grep . && fail "$part --help writes to standard error"
	grep -q "^usage: berth-bench $part" "$dir/help" || fail "$part --help: $(cat "$dir/help")"
done
refused "--json wrote" report --compare "$json" "$dir/out"
refused "--json wrote" report --svg "$dir/svg" "$dir/nothing"

# 10. the bare exchange over shm is killed, and leaves no file behind
[ "$(regions | comm -13 "$dir/before" - | wc -l)" = 0 ] || fail "left in /dev/shm: $(regions | comm -13 "$dir/before" -)"
