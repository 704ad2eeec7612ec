# bench.sh KIND: berth-bench load over verbs, each line beside its floor; the floor's process elsewhere; and one-sided beside bare RMA
. "$HERE/lib.sh"
pool $1
berthd -o server.supervise=off -o "fabric rdma.layouts=on"
url=berth+verbs://$SERVER:20049/
load() {
	"$B/berth-bench" load --server $url --pid $BERTHD --control /run/berth.sock --count 6 --rounds 1 --json /run/now.json "$@"
}
lines() { # COUNT: as many, each as asked for
	python3 - "$1" <<-'P'
		import json, sys
		lines = json.load(open("/run/now.json"))["lines"]
		assert len(lines) == int(sys.argv[1]), len(lines)
		for l in lines:
		    s, f = l["server"], l["floor"]
		    assert l["transport"] == "verbs" and s["operations"] == f["operations"] == 6, l
		    assert 0 < s["p50_us"] <= s["p99_us"] and 0 < f["p50_us"] <= f["p99_us"], l
		    assert s["copied_bytes"] == 0, l
	P
}
load --depths 2 --connections 2 --threads 2 --sizes 4K,64K --ops null,read,write,create,remove,put,get
lines 11
"$B/berth-bench" floor $SERVER:20060 > /run/floor &
floor=$!
until grep -qx ready /run/floor; do kill -0 $floor; sleep 0.1; done
load --floor $SERVER:20060 --depths 2 --connections 3 --ops write,put
lines 2
kill $floor
"$B/berth-bench" onesided $url 1 4 | tee /run/table
[ "$(grep -c '|' /run/table)" = 11 ] || fail "not a table of ten lines"
stop_berthd
"$B/berth" check $POOL
