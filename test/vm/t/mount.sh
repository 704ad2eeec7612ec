# mount.sh PROTO: mount by explicit ports, then by rpcbind; showmount; nothing is left behind after umount
. "$HERE/lib.sh"
proto=$1
pool tmpfs
berthd
attach $proto /mnt/a
grep " /mnt/a nfs .*proto=$proto" /proc/mounts
echo hello > /mnt/a/file
[ "$(cat /mnt/a/file)" = hello ]
umount /mnt/a
for _ in $(seq 50); do
	[ "$(counter connections)" = 0 ] && break
	sleep 0.1
done
$BERTH stat
[ "$(counter connections)" = 0 ] || fail "connections: $(counter connections)"
stop_berthd

# With rpcbind: no ports.
rpcbind -w 2>/dev/null || rpcbind
pidof rpcbind >> /run/pids
berthd
for _ in $(seq 50); do rpcinfo -p $SERVER | grep -q 100003 && break; sleep 0.1; done
rpcinfo $SERVER
showmount -e $SERVER | tee /run/showmount
grep -q '^/ ' /run/showmount
if [ $proto = tcp ]; then
	mount -t nfs -o vers=3,proto=tcp,nolock $SERVER:/ /mnt/a
else
	mount -t nfs -o vers=3,proto=rdma,port=20049,nolock $SERVER:/ /mnt/a
fi
[ "$(cat /mnt/a/file)" = hello ]
showmount -a $SERVER | grep -q ":/" || fail "showmount -a does not list the mount"
umount /mnt/a
! showmount -a $SERVER | grep -q ":/" || fail "the mount is still listed"
stop_berthd
! rpcinfo -p $SERVER | grep -q 100003 || fail "still registered with rpcbind"
