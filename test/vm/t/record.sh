# record.sh PROTO: a session of the kernel's client, written down for test/transport/fixtures: test/vm/record/cut makes those
. "$HERE/lib.sh"
proto=$1
export BERTH_RECORD=/run/record
rm -f $BERTH_RECORD
mkdir -p /run/rec
ln -sf "$B/berthd-record" /run/rec/berthd
ln -sf "$B/berth" /run/rec/berth
SIZE=64M pool tmpfs
[ $proto = tcp ] || B=/run/rec
berthd
if [ $proto = tcp ]; then
	python3 "$HERE/record/proxy.py" 3049 2049 $BERTH_RECORD > /run/proxy.out &
	echo $! >> /run/pids
	until [ -s /run/proxy.out ]; do sleep 0.1; done
	how=proto=tcp,port=3049,mountport=3049,mountproto=tcp
else
	how=proto=rdma,port=20049,mountproto=tcp,mountport=2049
fi
# File content that tells where it belongs: the big-endian word at offset o is o.
python3 -c 'import sys
for o in range(0, 300000, 4): sys.stdout.buffer.write(o.to_bytes(4, "big"))' > /dev/shm/words
long() { printf "$1%.0s" $(seq "$2"); }
step() { echo "# $*" >> $BERTH_RECORD; }
mount_it() {
	mkdir -p /mnt/a
	mount -t nfs -o vers=3,nolock,$how,$1 $SERVER:/ /mnt/a
}
step mount
mount_it rsize=262144,wsize=262144
cd /mnt/a
step create
: > file
step write small
printf 'hello, kernel' > small
step write large
dd if=/dev/shm/words of=file bs=64k count=1 conv=notrunc,fsync 2> /dev/null
step write odd
dd if=/dev/shm/words of=odd bs=10001 count=1 conv=fsync 2> /dev/null
step mkdir
mkdir dir
step directory
for i in $(seq 8); do : > dir/$(long n 90)$i; done
step symlink
ln -s target short
ln -s "$(long t 900)" long
step mknod
mknod dir/null c 1 3
mkfifo dir/fifo
step link
ln file hard
step setattr
chmod 4751 file
chown 12:34 file
touch -d '2001-02-03 04:05:06.789' file
truncate -s 60000 file
step rename
mv odd "$(long a 255)"
mv "$(long a 255)" "$(long b 255)"
cd /
umount /mnt/a
step again
mount_it rsize=262144,wsize=262144
cd /mnt/a
step read small
[ "$(cat small)" = 'hello, kernel' ]
step read large
cmp -n 60000 /dev/shm/words file
step readdirplus
ls -l dir > /run/ls
[ "$(grep -c nnnn /run/ls)" = 8 ]
step readlink
[ "$(readlink long)" = "$(long t 900)" ]
[ "$(readlink short)" = target ]
step fsstat
df . > /run/df
step remove
rm hard short
rm -r dir
cd /
umount /mnt/a
# Direct: a write of memory that is not in one piece.
step direct
mount_it rsize=65536,wsize=65536
python3 - <<-P
	import mmap, os
	words = open("/dev/shm/words", "rb").read()
	m = mmap.mmap(-1, 24576)
	m.write(words[:24576])
	v = memoryview(m)
	f = os.open("/mnt/a/pieces", os.O_CREAT | os.O_RDWR | os.O_DIRECT)
	n = os.pwritev(f, [v[i:i + 4096] for i in range(0, 20480, 8192)], 0)
	assert n == 12288, n
	r = mmap.mmap(-1, 12288)
	assert os.preadv(f, [memoryview(r)], 0) == 12288
	assert r[:] == b"".join(words[i:i + 4096] for i in range(0, 20480, 8192))
P
umount /mnt/a
if [ $proto = rdma ]; then # one connection for each mount: nothing has ended one in between
	[ "$(grep -c '^cm' $BERTH_RECORD)" = 3 ] || fail "connections: $(grep -c '^cm' $BERTH_RECORD)"
fi
cp $BERTH_RECORD $OUT/record-$proto
wc $BERTH_RECORD
