# memlock.sh: berthd as an ordinary user, with too little memory to lock: it says what to raise; with a soft limit: it raises that
. "$HERE/lib.sh"
pool tmpfs
chmod 666 /dev/infiniband/*
chown -R 1234:1234 /dev/shm/pool
mkdir -p /run/user
chown 1234 /run/user
cat > /run/user/berth.conf <<-C
	[server]
	pool = $POOL
	control = /run/user/berth.sock
	[nfs]
	rpcbind = off
	[exports]
	file = /run/exports
	[fabric rdma]
	provider = verbs
	service = 20049
C
echo "/ *(rw,no_root_squash,insecure)" > /run/exports
as_user() { setpriv --reuid=1234 --regid=1234 --clear-groups --inh-caps=-all --bounding-set=-all "$@"; }
# The pool has 400 MiB: enough for queues and messages, not for it.
(ulimit -l 65536; as_user "$B/berthd" -c /run/user/berth.conf) > /run/berthd.log 2>&1 && fail "it started"
cat /run/berthd.log
grep -q "fabric rdma (verbs): .*LimitMEMLOCK=.*ulimit -l" /run/berthd.log || fail "the limit is not named"
# Too little for anything of a card.
(ulimit -l 8; as_user "$B/berthd" -c /run/user/berth.conf) > /run/berthd.log 2>&1 && fail "it started"
cat /run/berthd.log
grep -q "fabric rdma (verbs): .*LimitMEMLOCK=.*ulimit -l" /run/berthd.log || fail "the limit is not named"
# A soft limit is its own to raise.
(ulimit -S -l 64; exec setpriv --reuid=1234 --regid=1234 --clear-groups --inh-caps=-all --bounding-set=-all \
	"$B/berthd" -c /run/user/berth.conf) > /run/berthd.log 2>&1 &
echo $! >> /run/pids
for _ in $(seq 300); do
	grep -q 'berthd: ready' /run/berthd.log && break
	sleep 0.1
done
cat /run/berthd.log
grep -q "placement direct (0.4 GiB registered in" /run/berthd.log || fail "not registered"
attach rdma /mnt/a
echo hello > /mnt/a/file
umount /mnt/a
# Nothing is locked where payload is staged.
kill -9 $(pidof berthd)
(ulimit -l 65536; exec setpriv --reuid=1234 --regid=1234 --clear-groups --inh-caps=-all --bounding-set=-all \
	"$B/berthd" -c /run/user/berth.conf -o 'fabric rdma.placement=staged') > /run/berthd.log 2>&1 &
echo $! >> /run/pids
for _ in $(seq 300); do
	grep -q 'berthd: ready' /run/berthd.log && break
	sleep 0.1
done
grep -q "placement staged (configured)" /run/berthd.log || { cat /run/berthd.log; fail "not staged"; }
attach rdma /mnt/a
[ "$(cat /mnt/a/file)" = hello ]
umount /mnt/a
