# link.sh PROTO KIND: the cable is out for 20 seconds, twice, under a hard mount that writes
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
# The load makes progress, within the time that clients wait between two attempts to connect, several times over.
at_work() {
	local n
	n=$(counter transactions)
	for _ in $(seq 150); do
		[ "$(counter transactions)" -gt $((n + 20)) ] && return
		kill -0 $load 2>/dev/null || fail "the load ended"
		sleep 0.3
	done
	$BERTH stat
	cat /run/berthd.log
	rdma resource show qp
	peer "dmesg | tail -40; rdma resource show qp; rdma link; grep -h xprt: /proc/self/mountstats; cat /proc/[0-9]*/wchan" || true
	fail "$1: the load makes no progress"
}
for round in 1 2; do
	at_work "before the link goes down"
	cable off
	sleep 20
	[ "$(cat /sys/class/net/eth0/carrier)" = 0 ] || fail "the cable is not out"
	cable on
done
at_work "after the link came up"
touch $OUT/peer/stop
wait $load || fail "fio on the other machine"
peer "umount /mnt/a && $on_peer attach $1 /mnt/a"
peer "fio $(echo $job) --verify_only=1" || fail "verify"
peer umount /mnt/a
no_copies
stop_berthd
"$B/berth" check $POOL
