# What guest tests share. Source it first: . "$HERE/lib.sh"
SERVER=192.0.2.1
BERTH="$B/berth -s /run/berth.sock"

fail() {
	echo "FAILED: $*"
	exit 1
}

# Tests end with what ended them.
trap 'echo "FAILED: line $LINENO of $0: $BASH_COMMAND"' ERR
set -E -o pipefail

namespace() { # dimm mode: the namespace of that NVDIMM in that mode
	local ns=namespace$1.0
	ndctl create-namespace -f -e $ns -m "$2" --map=mem 2>&1 | tail -1 >> /run/ndctl.log
	ndctl list -n $ns | grep -q "\"mode\":\"$2\"" || { cat /run/ndctl.log; fail "ndctl: no $2"; }
}

# pool KIND: make an empty pool, its path in $POOL.
pool() {
	local size=${SIZE:-400M}
	case $1 in
	tmpfs)
		POOL=/dev/shm/pool
		;;
	devdax)
		namespace 0 devdax
		POOL=/dev/dax0.0
		size=
		;;
	fsdax)
		modprobe xfs
		namespace 1 fsdax
		mkfs.xfs -q -f -m reflink=0 /dev/pmem1
		mkdir -p /mnt/dax
		mount -o dax=always /dev/pmem1 /mnt/dax
		POOL=/mnt/dax/pool
		;;
	file)
		modprobe ext4
		mkfs.ext4 -q -F /dev/vda
		mkdir -p /mnt/disk
		mount /dev/vda /mnt/disk
		POOL=/mnt/disk/pool
		;;
	*)
		fail "no pool kind $1"
		;;
	esac
	"$B/berth" mkfs --sparse -f ${size:+-s $size} "$POOL" > /dev/null
}

# berthd [OPTION...]: start it on $POOL, and wait until it serves. FABRIC=none: sockets only.
berthd() {
	cat > /run/berth.conf <<-E
	[server]
	pool = $POOL
	control = /run/berth.sock
	[exports]
	file = /run/exports
	E
	[ "${FABRIC:-}" = none ] || printf '[fabric rdma]\nprovider = verbs\nservice = 20049\n' >> /run/berth.conf
	[ -s /run/exports ] || echo "/ *(rw,no_root_squash,insecure)" > /run/exports
	: >> /run/berthd.log
	local before
	before=$(grep -c 'berthd: ready' /run/berthd.log || true)
	"$B/berthd" -c /run/berth.conf "$@" >> /run/berthd.log 2>&1 &
	BERTHD=$!
	echo $BERTHD >> /run/pids
	for _ in $(seq 300); do
		[ "$(grep -c 'berthd: ready' /run/berthd.log)" -gt "$before" ] && return
		kill -0 $BERTHD 2>/dev/null || fail "berthd did not start"
		sleep 0.1
	done
	fail "berthd is not ready after 30 s"
}

# attach PROTO DIR [OPTIONS]: mount the server's root with explicit ports.
attach() {
	local how
	case $1 in
	tcp) how=proto=tcp,port=2049,mountport=2049 ;;
	rdma) how=proto=rdma,port=20049,mountproto=tcp,mountport=2049 ;;
	esac
	mkdir -p "$2"
	mount -t nfs -o "vers=3,nolock,$how${3:+,$3}" $SERVER:/ "$2"
}

drop_caches() {
	sync
	echo 3 > /proc/sys/vm/drop_caches
}

counter() { # NAME: a number of berth stat
	$BERTH stat --json | tr ',{}' '\n\n\n' | sed -n "s/^ *\"$1\": *\([0-9]*\).*/\1/p" | head -1
}

# Payload that the server's CPU has moved from buffer to buffer.
no_copies() {
	local n
	n=$(counter payload_copied_bytes)
	[ "$n" = 0 ] || fail "payload_copied_bytes is '$n'"
}

stop_berthd() { # clean
	kill -TERM $BERTHD
	wait $BERTHD || fail "berthd ended with status $?"
}

# peer COMMAND...: a shell command on the second machine; its output and its status. It waits for the machine to be there.
peer() {
	local c=$OUT/peer/$TEST.$((RANDOM * 32768 + RANDOM))
	peer_up
	echo "$*" > $c.tmp
	mv $c.tmp $c.do
	until [ -e $c.done ]; do sleep 0.2; done
	cat $c.out
	return "$(cat $c.done)"
}

peer_up() {
	until [ -e $OUT/peer/up ]; do sleep 0.2; done
}

# The second machine is destroyed where it stands: no goodbye. Another takes its place.
peer_destroy() {
	local c=$OUT/peer/$TEST.$((RANDOM * 32768 + RANDOM))
	peer_up
	rm $OUT/peer/up
	echo 'echo b > /proc/sysrq-trigger' > $c.tmp
	mv $c.tmp $c.do
	until [ -e $c.doing ]; do sleep 0.1; done
}

# cable off|on: pulled out of this machine, or put in again. (`ip link set down` is another thing: it takes routes and addresses away.)
cable() {
	echo $1 > $OUT/cable.tmp
	mv $OUT/cable.tmp $OUT/cable
	while [ -e $OUT/cable ]; do sleep 0.1; done
}
