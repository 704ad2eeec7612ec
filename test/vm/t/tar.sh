# tar.sh PROTO KIND: unpack the tree of the kernel's headers, compare it after the caches are gone, remove it
. "$HERE/lib.sh"
[ -s "$B/vm/tree.tar" ] || fail "no $B/vm/tree.tar: test/vm/run makes it of the package linux-headers-amd64"
pool $2
berthd
attach $1 /mnt/a
mkdir /mnt/a/tree
time tar -xf "$B/vm/tree.tar" -C /mnt/a/tree
drop_caches
# Names, types, modes, owners, times, sizes, link targets, contents: tar says nothing if all are as in the archive.
time tar -df "$B/vm/tree.tar" -C /mnt/a/tree
find /mnt/a/tree | wc -l
no_copies
[ $2 = tmpfs ] || [ "$(counter payload_staged_bytes)" = 0 ] || fail "payload was staged"
umount /mnt/a
stop_berthd
"$B/berth" check $POOL
berthd
attach $1 /mnt/a
time rm -rf /mnt/a/tree
[ -z "$(ls -A /mnt/a)" ] || fail "left: $(ls -A /mnt/a)"
umount /mnt/a
stop_berthd
"$B/berth" check $POOL
