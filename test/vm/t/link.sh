# link.sh PROTO KIND: the link goes down for 20 seconds under a hard mount that writes, and comes back
. "$HERE/lib.sh"
pool $2
berthd -o server.client_timeout=10
on_peer="B='$B' HERE='$HERE' OUT='$OUT' TEST=$TEST; . $HERE/lib.sh; "
peer "$on_peer attach $1 /mnt/a hard,timeo=50,retrans=2"
job="--name=f --directory=/mnt/a --size=8m --bs=16k --ioengine=libaio --iodepth=8 --rw=randwrite --verify=crc32c
	--verify_fatal=1 --randseed=3 --fsync=32"
rm -f $OUT/peer/stop
peer "while [ ! -e $OUT/peer/stop ]; do fio $(echo $job) > /run/fio.out 2>&1 || { cat /run/fio.out; exit 1; }; done" &
load=$!
for round in 1 2; do
	n=$(counter transactions)
	until [ "$(counter transactions)" -gt $((n + 20)) ]; do
		kill -0 $load 2>/dev/null || fail "the load ended"
		sleep 0.2
	done
	ip link set eth0 down
	sleep 20
	ip link set eth0 up
	ip addr add 2001:db8::1/64 dev eth0 nodad 2>/dev/null || true
done
n=$(counter transactions)
until [ "$(counter transactions)" -gt $((n + 20)) ]; do
	kill -0 $load 2>/dev/null || fail "the load ended"
	sleep 0.2
done
touch $OUT/peer/stop
wait $load || fail "fio on the other machine"
peer "umount /mnt/a && $on_peer attach $1 /mnt/a"
peer "fio $(echo $job) --verify_only=1" || fail "verify"
peer umount /mnt/a
no_copies
stop_berthd
"$B/berth" check $POOL
