# kind.sh KIND METHOD PLACEMENT [OPTION...]: what berthd says of this kind of pool at start and in berth stat, and that it works
. "$HERE/lib.sh"
pool $1
berthd "${@:4}"
cat /run/berthd.log
grep -q "persistence $2 (" /run/berthd.log || fail "method"
grep -q "listening: verbs .*placement $3" /run/berthd.log || fail "placement"
$BERTH stat > /run/stat
grep -q "^ *persistence  *$2$" /run/stat || fail "method in berth stat"
grep -q "listens on .*verbs .*placement $3" /run/stat || fail "placement in berth stat"
head -c 7654321 /dev/urandom > /dev/shm/data
for proto in tcp rdma; do
	attach $proto /mnt/a
	cp /dev/shm/data /mnt/a/$proto
	fio --directory=/mnt/a --name=f --verify=crc32c --verify_fatal=1 --do_verify=1 --size=4M --rw=randwrite --bs=64k \
		--direct=1 --ioengine=libaio --iodepth=8 > /run/fio.out 2>&1 || { cat /run/fio.out; fail "fio over $proto"; }
	umount /mnt/a
	attach $proto /mnt/a
	cmp /dev/shm/data /mnt/a/$proto
	umount /mnt/a
done
no_copies
staged=$(counter payload_staged_bytes)
if [ $3 = staged ]; then [ "$staged" -gt 0 ]; else [ "$staged" = 0 ]; fi
# Nobody calls while it goes down and up: what was written is there.
stop_berthd
"$B/berth" check $POOL
berthd "${@:4}"
attach rdma /mnt/a
cmp /dev/shm/data /mnt/a/tcp
cmp /dev/shm/data /mnt/a/rdma
umount /mnt/a
stop_berthd
