# fabrics.sh KIND: one server and one configuration for sockets, verbs, tcp and shm at once
. "$HERE/lib.sh"
pool $1
berthd -o "fabric local.provider=shm" -o "fabric local.service=berth" \
	-o "fabric plain.provider=tcp" -o "fabric plain.service=20050"
cat /run/berthd.log
$BERTH stat > /run/stat
for l in "socket at" "verbs FI_EP_MSG" "tcp FI_EP_MSG" "shm FI_EP_RDM"; do
	grep -q "listens on .*$l" /run/stat || fail "berth stat does not list $l"
done
attach tcp /mnt/tcp
attach rdma /mnt/rdma nosharecache
head -c 3000000 /dev/urandom > /dev/shm/data
mkdir /mnt/tcp/d
i=0
for url in berth+verbs://$SERVER:20049 berth+tcp://127.0.0.1:20050 berth+shm://berth; do
	"$B/berth" cp /dev/shm/data $url/d/$i
	i=$((i + 1))
done
cp /dev/shm/data /mnt/tcp/d/3
cp /dev/shm/data /mnt/rdma/d/4
drop_caches
for m in tcp rdma; do
	[ "$(ls /mnt/$m/d | tr '\n' ' ')" = "0 1 2 3 4 " ] || fail "$m sees $(ls /mnt/$m/d)"
	for i in 0 1 2 3 4; do cmp /dev/shm/data /mnt/$m/d/$i; done
done
i=2
for url in berth+verbs://$SERVER:20049 berth+tcp://127.0.0.1:20050 berth+shm://berth; do
	"$B/berth" cat $url/d/$i | cmp - /dev/shm/data
	i=$((i + 1))
done
no_copies
umount /mnt/tcp
umount /mnt/rdma
stop_berthd
