# push.sh KIND: durable puts over verbs where a read behind the writes makes them so (ddio = off); and a pool whose memory
# is staged, which has no layouts to give
. "$HERE/lib.sh"
pool $1
export FI_MR_CACHE_MONITOR=disabled
url=berth+verbs://$SERVER:20049/
commits() { "$B/berth" -s /run/berth.sock stat --json | grep -A1 '"layout.COMMIT"' | grep -o '"count": *[0-9]*' | grep -o '[0-9]*$' | sort -n | tail -1; }
berthd -o "fabric rdma.layouts=on" -o "fabric rdma.ddio=off" -o "fabric rdma.layout_recall=60000"
"$B/berth" -s /run/berth.sock stat | grep -q read-after-write || fail "not the method"
echo 200 | "$B/berth-bench" puts $url 4096 > /run/done
[ "$(tail -1 /run/done)" = 200 ] || fail "puts: $(cat /run/done)"
n=$(commits)
[ "${n:-0}" -le 1 ] || fail "$n COMMITs: the server had to help"
stop_berthd
berthd -o "fabric rdma.layouts=on" -o "fabric rdma.placement=staged"
echo 1 | "$B/berth-bench" puts $url 4096 > /run/done 2>&1 && fail "a layout of memory that is staged"
grep -q "Operation not supported" /run/done || fail "another reason: $(cat /run/done)"
stop_berthd
"$B/berth" check $POOL
