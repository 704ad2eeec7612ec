# knfsd.sh [-s] [-p WHAT]... [PROTO...]: the kernel's client against knfsd on XFS-DAX, then against berthd, on one and the same NVDIMM
# Each figure is a line in $OUT/figures: SERVER PROTO WHAT NAME VALUE...; bench/peers/vm/report makes the table.
# -p: where the time of WHAT goes, in $OUT/profile-*: perf report --kallsyms kallsyms -i profile-...; the profiler's
# interrupts are in the figures then. -s: only how long the server takes for a durable WRITE.
. "$HERE/lib.sh"
modprobe nfsd
modprobe xfs
PROFILE= SPANS=
while [ "$1" = -p ] || [ "$1" = -s ]; do
	case $1 in
	-p) PROFILE="$PROFILE $2" && shift ;;
	-s) SPANS=write-4k-1 ;;
	esac
	shift
done
[ $# -gt 0 ] || set -- tcp rdma
echo > $OUT/figures
[ -z "$PROFILE" ] || cat /proc/kallsyms > $OUT/kallsyms

# Nanoseconds that the server's threads have run.
ran() {
	local p
	for p in $(pidof berthd nfsd || pgrep -x nfsd); do
		cat /proc/$p/task/*/schedstat
	done | awk '{s += $1} END {printf "%.0f", s}'
}

fio_run() { # WHAT BLOCK OPS OPTION...: one figure
	local what=$1 bs=$2 ops=$3 before after switches perf=
	shift 3
	case " $PROFILE " in *" $what "*)
		ops=$((ops * 8)) # or starting fio is most of it
		perf="perf record -q -a -g -e cpu-clock -F 9973 -o /run/perf.data --"
	esac
	[ -z "$PROFILE$SPANS" ] || [ -n "$perf" ] || [ $what = "$SPANS" ] || return 0
	before=$(ran)
	switches=$(awk '$1 == "ctxt" {print $2}' /proc/stat)
	$perf fio --name=$what --directory=/mnt/a --thread --randrepeat=1 --fallocate=none --output-format=json --lat_percentiles=1 \
		--bs=$bs --io_size=$((ops * bs)) "$@" > /run/fio.json 2> /run/fio.err || { cat /run/fio.err /run/fio.json; fail "fio: $what"; }
	after=$(ran)
	switches=$(($(awk '$1 == "ctxt" {print $2}' /proc/stat) - switches))
	python3 "$HERE/../../bench/peers/vm/figure" "$SERVER_NAME" $PROTO $what $((after - before)) $switches < /run/fio.json >> $OUT/figures
	tail -1 $OUT/figures
	[ -z "$perf" ] || cp /run/perf.data $OUT/profile-$SERVER_NAME-$PROTO-$what
}

# How long the server takes for a durable WRITE, by the kernel's trace: a line "span" of the figures.
spans() {
	local t=/sys/kernel/debug/tracing on e
	case $SERVER_NAME in
	knfsd)
		on="sunrpc/svc_xdr_recvfrom sunrpc/svc_stats_latency sunrpc/svc_send"
		;;
	berthd)
		on="uprobes/placed uprobes/send uprobes/sent"
		[ $PROTO = rdma ] || on="uprobes/placed syscalls/sys_enter_sendmsg syscalls/sys_exit_sendmsg"
		;;
	esac
	: > $t/trace
	echo 16384 > $t/buffer_size_kb
	for e in $on; do echo 1 > $t/events/$e/enable; done
	echo 1 > $t/tracing_on
	fio_run write-4k-1 4096 400 $(data --rw=randwrite --sync=dsync)
	echo 0 > $t/tracing_on
	for e in $on; do echo 0 > $t/events/$e/enable; done
	cp $t/trace $OUT/trace-$SERVER_NAME-$PROTO
	python3 "$HERE/../../bench/peers/vm/spans" $SERVER_NAME $PROTO < $OUT/trace-$SERVER_NAME-$PROTO >> $OUT/figures
	tail -1 $OUT/figures
}

# Probes want the program on a local file system. Its text is where its headers say, at the same place as in the file. These
# functions begin with a push, which the kernel does itself; any other instruction it has run alone, by a second trap.
probes() {
	local at
	mkdir -p /dev/shm/b
	cp "$B/berthd" "$B/berth" /dev/shm/b/
	B=/dev/shm/b
	for p in p:placed=write_placed p:send=fab_send r:sent=fab_send; do
		at=$(nm $B/berthd | awk -v f=${p#*=} '$3 == f {print $1}')
		echo "${p%%=*} $B/berthd:0x$at" >> /sys/kernel/debug/tracing/uprobe_events
	done
}

data() { # the common options of what reads and writes
	echo "--filename=data --ioengine=libaio --direct=1 --size=16m $*"
}

load() { # SERVER PROTO, mounted at /mnt/a
	SERVER_NAME=$1 PROTO=$2
	dd if=/dev/zero of=/mnt/a/data bs=1M count=16 oflag=direct 2> /dev/null
	mkdir -p /mnt/a/d
	[ -z "$SPANS" ] || { spans; return; }
	fio_run write-1m 1048576 48 $(data --rw=write --sync=dsync)
	fio_run read-1m 1048576 48 $(data --rw=read)
	fio_run write-4k-1 4096 400 $(data --rw=randwrite --sync=dsync)
	fio_run write-4k-16 4096 800 $(data --rw=randwrite --sync=dsync --iodepth=16)
	fio_run read-4k-1 4096 400 $(data --rw=randread)
	fio_run read-4k-16 4096 800 $(data --rw=randread --iodepth=16)
	[ -n "$PROFILE" ] || names
	grep -E 'WRITE:|COMMIT:|xprt:' /proc/self/mountstats
}

names() { # creations and removals, by a process that does nothing else
	python3 - /mnt/a/d 200 <<-'P' > /run/names
		import os, sys, time
		d, n = sys.argv[1], int(sys.argv[2])
		names = ["%s/file%d" % (d, i) for i in range(n)]
		for what, one in (("create", lambda p: os.close(os.open(p, os.O_CREAT | os.O_EXCL | os.O_WRONLY))),
		                  ("unlink", os.unlink)):
		    t = []
		    for p in names:
		        a = time.perf_counter_ns()
		        one(p)
		        t.append(time.perf_counter_ns() - a)
		    t.sort()
		    print("%s ops %d p50_ns %d each_ns %d server_ns 0" % (what, n, t[n // 2], sum(t) // n))
	P
	sed "s/^/$SERVER_NAME $PROTO /" /run/names >> $OUT/figures
	cat /run/names
}

rpcbind -w 2> /dev/null || rpcbind
pidof rpcbind >> /run/pids

# knfsd
namespace 1 fsdax
mkfs.xfs -q -f -m reflink=0 /dev/pmem1
mkdir -p /mnt/dax
mount -o dax=always /dev/pmem1 /mnt/dax
mount -t nfsd nfsd /proc/fs/nfsd 2> /dev/null || true
exportfs -i -o rw,no_root_squash,insecure,sync,no_subtree_check,fsid=1 "*:/mnt/dax"
echo 1048576 > /proc/fs/nfsd/max_block_size
rpc.nfsd -N 4 -V 3 8
echo "rdma 20049" > /proc/fs/nfsd/portlist
rpc.mountd -N 4 -p 20048
pidof rpc.mountd >> /run/pids
for proto in "$@"; do
	mkdir -p /mnt/a
	mount -t nfs -o vers=3,nolock,proto=$proto,rsize=1048576,wsize=1048576,mountproto=tcp,mountport=20048,port=$([ $proto = tcp ] && echo 2049 || echo 20049) \
		$SERVER:/mnt/dax /mnt/a
	load knfsd $proto
	umount /mnt/a
done
exportfs -ua
rpc.nfsd 0
kill $(pidof rpc.mountd)
umount /mnt/dax

# berthd
namespace 1 devdax
POOL=/dev/dax1.0
[ -z "$SPANS" ] || probes
"$B/berth" mkfs -f $POOL > /dev/null
berthd
grep -E "persistence|placement" /run/berthd.log
for proto in "$@"; do
	attach $proto /mnt/a rsize=1048576,wsize=1048576
	load berthd $proto
	umount /mnt/a
done
no_copies
