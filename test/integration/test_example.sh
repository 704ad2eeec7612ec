#!/usr/bin/env bash
# doc/example-log.c, built as its readers would: against what `make install` puts in place. Records that were
# acknowledged are there after the program, or the server, was killed in the middle.
set -eu
cd "$(dirname "$0")/../.."
B=${BERTH_PROGRAMS:-${BUILD:-build}}
dir=$(mktemp -d /dev/shm/berth-example-XXXXXX) pid=
trap '[ -z "$pid" ] || kill -9 $pid 2>/dev/null || true; rm -rf "$dir"' EXIT
fail() { echo "FAILED: $*"; cat "$dir/log"; exit 1; }
: > "$dir/log"
make -s install B="${BUILD:-build}" DESTDIR="$dir/root" PREFIX=/usr >"$dir/make" 2>&1 || { cat "$dir/make"; fail "make install"; }
${CC:-cc} -Wall -Wextra -Werror -I"$dir/root/usr/include" -o "$dir/example-log" doc/example-log.c \
	-L"$dir/root/usr/lib" -lberth || fail "the example does not build"
# The library may be built with AddressSanitizer, which the program then is not.
export ASAN_OPTIONS="${ASAN_OPTIONS:-}:verify_asan_link_order=0"
export LD_LIBRARY_PATH="$dir/root/usr/lib" FI_PROVIDER=tcp PMEM2_FORCE_GRANULARITY=CACHE_LINE
"$B/berth" mkfs -s 256M "$dir/pool" >/dev/null
echo "/ 127.0.0.1(rw,no_root_squash,insecure)" > "$dir/exports"
port=$((20000 + RANDOM % 20000))
serve() {
	"$B/berthd" -o server.pool="$dir/pool" -o server.control="$dir/control" -o exports.file="$dir/exports" \
		-o nfs.listen=127.0.0.1 -o nfs.port=$port -o nfs.rpcbind=off -o "fabric tcp.provider=tcp" \
		-o "fabric tcp.service=$((port + 1))" -o "fabric tcp.layouts=on" 2>>"$dir/log" & pid=$!
	for _ in $(seq 200); do "$B/berth" -s "$dir/control" stat --json >/dev/null 2>&1 && return; sleep 0.05; done
	fail "not ready"
}
run() { "$dir/example-log" "berth+tcp://127.0.0.1:$((port + 1))/a.log" "$@"; }
serve

seq -f 'first %g' 100 | run append > "$dir/acked" || fail "append"
[ "$(wc -l < "$dir/acked")" = 100 ] || fail "100 records, $(wc -l < "$dir/acked") acknowledged"
run print > "$dir/out" || fail "print"
seq -f 'first %g' 100 | cmp - "$dir/out" || fail "the records"

# The program is killed while it appends; then the server, under another one that does not notice.
for who in program server; do
	before=$(run print | wc -l)
	seq -f "$who %g" 1000000 > "$dir/in"
	"$dir/example-log" "berth+tcp://127.0.0.1:$((port + 1))/a.log" append < "$dir/in" > "$dir/acked" & log=$!
	until [ "$(wc -l < "$dir/acked")" -ge 200 ]; do kill -0 $log || fail "append ended by itself"; done
	if [ $who = server ]; then
		kill -9 $pid; wait $pid 2>/dev/null || true
		serve
		n=$(wc -l < "$dir/acked")
		until [ "$(wc -l < "$dir/acked")" -gt $((n + 100)) ]; do kill -0 $log || fail "append ended with the server"; done
	fi
	kill -9 $log; wait $log 2>/dev/null || true
	acked=$(wc -l < "$dir/acked")
	run print > "$dir/out" || fail "print after the $who was killed"
	tail -n +$((before + 1)) "$dir/out" | head -$acked > "$dir/got"
	head -$acked "$dir/in" | cmp - "$dir/got" || fail "$acked records acknowledged, not all there after the $who was killed"
done
echo again | run append >/dev/null && run print | tail -1 | grep -qx again || fail "append after all that"
kill $pid; wait $pid || fail "status $?"
"$B/berth" check "$dir/pool" >/dev/null || fail "berth check"
pid=
echo ok
