# kill.sh PROTO KIND: ten times the server is killed and started again under a hard mount; fio finds all it wrote
. "$HERE/lib.sh"
pool $2
server() { berthd -o server.supervise=off; }
server
attach $1 /mnt/a hard,timeo=50,retrans=2
job="--name=f --directory=/mnt/a --size=16m --bs=16k --ioengine=libaio --iodepth=8 --rw=randwrite --verify=crc32c
	--verify_fatal=1 --randseed=3"
for direct in 0 1; do
	# Enough to do for all rounds, and an end when they are over.
	touch /run/going
	(while [ -e /run/going ]; do fio $job --direct=$direct --do_verify=1 --fsync=32 || exit 1; done) > /run/fio.out 2>&1 &
	load=$!
	for round in 1 2 3 4 5; do
		n=$(counter transactions)
		until [ "$(counter transactions)" -gt $((n + 20)) ]; do # it is at work
			kill -0 $load 2>/dev/null || { cat /run/fio.out; fail "fio ended"; }
			sleep 0.1
		done
		kill -9 $BERTHD
		wait $BERTHD || true
		server
	done
	rm /run/going
	wait $load || { cat /run/fio.out; fail "fio with direct=$direct"; }
done
grep -c 'berthd: ready' /run/berthd.log
[ "$(grep -c 'berthd: ready' /run/berthd.log)" = 11 ]
drop_caches
fio $job --verify_only=1 > /run/fio.out 2>&1 || { cat /run/fio.out; fail "verify in the end"; }
no_copies
umount /mnt/a
stop_berthd
"$B/berth" check $POOL
