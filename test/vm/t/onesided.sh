# onesided.sh KIND: the append-only log of doc/, one-sided over the verbs provider; read back, and the pool checked
. "$HERE/lib.sh"
pool $1
berthd -o "fabric rdma.layouts=on"
export FI_MR_CACHE_MONITOR=disabled LD_LIBRARY_PATH=/run/lib
mkdir /run/lib
cp "$B/libberth.so" /run/lib/libberth.so.0
gcc -I"$HERE/../../client" -o /run/log "$HERE/../../doc/example-log.c" /run/lib/libberth.so.0
url=berth+verbs://$SERVER:20049/log
seq -f 'record %g' 300 > /run/in
/run/log $url append < /run/in > /run/acked
[ "$(wc -l < /run/acked)" = 300 ]
/run/log $url print | cmp - /run/in
layouts=$("$B/berth" -s /run/berth.sock stat --json | grep -A1 '"layout.COMMIT"' | grep -o '"count": *[0-9]*' | grep -o '[0-9]*$' | sort -n | tail -1)
[ "$layouts" -ge 300 ] || fail "only $layouts COMMITs: it did not go one-sided"
stop_berthd
"$B/berth" check $POOL
