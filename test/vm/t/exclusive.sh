# exclusive.sh KIND: layout_exclusive over verbs: clients differ by their addresses. One here has a layout and sits on it; one
# on the other machine is told to come again, and then is served.
. "$HERE/lib.sh"
pool $1
export FI_MR_CACHE_MONITOR=disabled
url=berth+verbs://$SERVER:20049/
berthd -o "fabric rdma.layouts=on" -o "fabric rdma.layout_exclusive=on" -o "fabric rdma.layout_lease=3600" -o "fabric rdma.layout_recall=1000"
mkfifo /run/ask
"$B/berth-bench" puts $url 4096 < /run/ask > /run/held &
exec 8> /run/ask
until grep -q ready /run/held; do sleep 0.1; done
before=$(counter layouts_recalled) revoked=$(counter layouts_revoked)
there="export FI_MR_CACHE_MONITOR=disabled; echo 3 | '$B/berth-bench' puts $url 4096 2>&1"
peer "$there" > /run/there && fail "both have layouts"
cat /run/there
grep -q "Resource temporarily unavailable" /run/there || fail "another reason"
for i in $(seq 30); do
	peer "$there" > /run/there && break
	sleep 0.5
done
cat /run/there
[ "$(tail -1 /run/there)" = 3 ] || fail "it never had its turn"
[ "$(counter layouts_recalled)" = $before ] || fail "it was the file that was asked back, not the turn"
[ "$(counter layouts_revoked)" -gt $revoked ] || fail "who sits on a layout keeps it"
exec 8>&-
wait $! || true
stop_berthd
"$B/berth" check $POOL
