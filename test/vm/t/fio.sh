# fio.sh PROTO KIND: written, and read again by a client that remembers nothing; 4 KiB to 1 MiB, buffered and direct
. "$HERE/lib.sh"
pool $2
berthd
for direct in 0 1; do
	for bs in 4k 16k 64k 256k 1m; do
		job="--name=f$direct$bs --directory=/mnt/a --bs=$bs --size=$([ $bs = 4k ] && echo 2m || echo 8m) --direct=$direct
			--ioengine=libaio --iodepth=8 --rw=randwrite --verify=crc32c --verify_fatal=1 --randseed=7"
		attach $1 /mnt/a
		fio $job --do_verify=0 --fsync=64 --end_fsync=1 > /run/fio.out 2>&1 || { cat /run/fio.out; fail "write $direct $bs"; }
		umount /mnt/a
		attach $1 /mnt/a
		fio $job --verify_only=1 > /run/fio.out 2>&1 || { cat /run/fio.out; fail "verify $direct $bs"; }
		umount /mnt/a
		echo "direct=$direct bs=$bs"
	done
done
no_copies
stop_berthd
"$B/berth" check $POOL
