# onesided.sh KIND [none]: the append-only log of doc/, one-sided over the verbs provider; read back, and the pool checked
# none: this pool's memory cannot be registered, so there are no layouts: it goes by READ and WRITE, and why is said
. "$HERE/lib.sh"
pool $1
berthd -o "fabric rdma.layouts=on"
export FI_MR_CACHE_MONITOR=disabled LD_LIBRARY_PATH=/run/lib
mkdir -p /run/lib
cp "$B/libberth.so" /run/lib/libberth.so.0
gcc -I"$HERE/../../client" -o /run/log "$HERE/../../doc/example-log.c" /run/lib/libberth.so.0
url=berth+verbs://$SERVER:20049/log
seq -f 'record %g' 300 > /run/in
/run/log $url append < /run/in > /run/acked
[ "$(wc -l < /run/acked)" = 300 ]
/run/log $url print | cmp - /run/in
calls() { $BERTH stat --json | grep -A1 "\"$1\"" | grep -o '"count": *[0-9]*' | grep -o '[0-9]*$' | sort -n | tail -1; }
commits=$(calls layout.COMMIT || true)
if [ "${2:-}" = none ]; then
	[ "${commits:-0}" = 0 ] || fail "$commits COMMITs of layouts that cannot be"
	[ "$(calls nfs3.WRITE)" -ge 300 ] || fail "not by WRITE"
	[ "$(counter layouts)" = 0 ] || fail "layouts"
	echo 1 | "$B/berth-bench" puts berth+verbs://$SERVER:20049/ 4096 > /run/puts 2>&1 && fail "a layout of memory that is staged"
	cat /run/puts
	grep -q "Operation not supported" /run/puts || fail "another reason"
	grep "no layouts" /run/berthd.log || fail "berthd does not say it"
else
	[ "$commits" -ge 300 ] || fail "only $commits COMMITs: it did not go one-sided"
	[ "$(grep -c 'has a domain of its own' /run/berthd.log)" -ge 2 ] || fail "not in domains of their own"
	[ "$(counter domains)" = 0 ] || fail "a domain is left"
fi
stop_berthd
"$B/berth" probe --timeout 120 --provider verbs --pool $POOL > /run/probe
cat /run/probe
if [ "${2:-}" = none ]; then
	grep -q "no layouts.*staging\|layouts.*no.*staging" /run/probe || fail "berth probe does not say that there are none"
fi
"$B/berth" check $POOL
