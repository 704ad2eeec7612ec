# mmap.sh PROTO KIND: writers through mappings, synced or not before they close, beside a writer with write(2)
. "$HERE/lib.sh"
pool $2
berthd
job="--directory=/mnt/a --size=4m --verify=crc32c --verify_fatal=1 --randseed=5
	--name=sync --ioengine=mmap --rw=randwrite --bs=4k --fsync=100
	--name=lazy --ioengine=mmap --rw=randwrite --bs=8k
	--name=plain --ioengine=psync --rw=randwrite --bs=16k"
attach $1 /mnt/a
fio $job --do_verify=0 > /run/fio.out 2>&1 || { cat /run/fio.out; fail "write"; }
umount /mnt/a
attach $1 /mnt/a
fio $job --verify_only=1 > /run/fio.out 2>&1 || { cat /run/fio.out; fail "verify"; }
# Two processes on one mapping, seen by a second mount.
python3 - <<-P
	import mmap, os
	fd = os.open("/mnt/a/shared", os.O_RDWR | os.O_CREAT)
	os.ftruncate(fd, 1 << 20)
	m = mmap.mmap(fd, 1 << 20)
	child = os.fork()
	for at in range(0 if child else 2048, 1 << 20, 4096):
	    m[at:at + 2048] = (b"p" if child else b"c") * 2048
	if not child:
	    os._exit(0)
	assert os.waitpid(child, 0)[1] == 0
	m.flush()
P
attach $1 /mnt/b nosharecache
python3 -c 'import sys; sys.exit(open("/mnt/b/shared", "rb").read() != (b"p" * 2048 + b"c" * 2048) * 256)'
no_copies
umount /mnt/b
umount /mnt/a
stop_berthd
