# destroy.sh PROTO KIND: a machine that is destroyed while it writes leaves nothing behind in the server
. "$HERE/lib.sh"
pool $2
berthd -o server.client_timeout=10 -o server.idle_timeout=10
on_peer="B='$B' HERE='$HERE' OUT='$OUT' TEST=$TEST; . $HERE/lib.sh; "
for state in busy idle; do
	peer "$on_peer attach $1 /mnt/a"
	if [ $state = busy ]; then
		peer "dd if=/dev/zero of=/mnt/a/f bs=1M oflag=direct" > /dev/null &
		writer=$!
		n=$(counter transactions)
		until [ "$(counter transactions)" -gt $((n + 20)) ]; do sleep 0.1; done
	else
		peer "echo text > /mnt/a/g; sync /mnt/a/g"
	fi
	[ "$(counter connections)" -gt 0 ]
	peer_destroy
	for _ in $(seq 400); do
		[ "$(counter connections)" = 0 ] && break
		sleep 0.1
	done
	$BERTH stat
	[ "$(counter connections)" = 0 ] || fail "$state: connections: $(counter connections)"
	[ "$(counter pins)" = 0 ] || fail "$state: pins: $(counter pins)"
	[ "$(counter calls_now)" = 0 ] || fail "$state: calls: $(counter calls_now)"
	[ $state = idle ] || kill $writer 2>/dev/null || true
done
peer "$on_peer attach $1 /mnt/a; [ \"\$(cat /mnt/a/g)\" = text ]; umount /mnt/a" || fail "the server does not serve"
stop_berthd
"$B/berth" check $POOL
