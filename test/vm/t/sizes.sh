# sizes.sh PROTO KIND: rsize and wsize from 4 KiB to 1 MiB, and several connections of one mount
. "$HERE/lib.sh"
pool $2
berthd
head -c 5000001 /dev/urandom > /dev/shm/data
for size in 4096 8192 32768 131072 524288 1048576; do
	attach $1 /mnt/a rsize=$size,wsize=$size
	grep -q " /mnt/a nfs .*rsize=$size,wsize=$size," /proc/mounts || fail "$(grep /mnt/a /proc/mounts)"
	cp /dev/shm/data /mnt/a/f$size
	dd if=/dev/shm/data of=/mnt/a/d$size bs=1M oflag=direct 2> /dev/null
	umount /mnt/a
	attach $1 /mnt/a rsize=$size,wsize=$size
	cmp /dev/shm/data /mnt/a/f$size
	dd if=/mnt/a/d$size bs=1M iflag=direct 2> /dev/null | cmp - /dev/shm/data
	umount /mnt/a
	echo "size $size"
done
attach $1 /mnt/a nconnect=4
for i in 1 2 3 4 5 6 7 8; do cp /dev/shm/data /mnt/a/n$i & pids="$pids $!"; done
for p in $pids; do wait $p; done
drop_caches
for i in 1 2 3 4 5 6 7 8; do cmp /dev/shm/data /mnt/a/n$i; done
n=$(counter connections)
[ "$n" = 4 ] || fail "$n connections instead of 4"
no_copies
umount /mnt/a
stop_berthd
