# placement.sh: what is configured about placement on a DAX file system, and what comes of it
. "$HERE/lib.sh"
pool fsdax
rdma="fabric rdma.placement"
# A demand that cannot be met ends the start, and says what would help.
(berthd -o "$rdma=direct") > /run/refused 2>&1 && fail "it started"
cat /run/berthd.log
grep -q "placement = direct forbids to stage: .*on-demand paging is not configured" /run/berthd.log || fail "no reason"
rm /run/berthd.log
# Soft-RoCE of this kernel has no on-demand paging: said, and staged.
berthd -o "fabric rdma.on_demand_paging=on"
grep "placement" /run/berthd.log
if grep -q "placement direct (.*on-demand paging asked for)" /run/berthd.log; then
	fail "this kernel's Soft-RoCE has learned on-demand paging: test direct placement with it"
fi
grep -q "placement staged (.*on-demand paging is configured, but the device has none)" /run/berthd.log || fail "no reason"
$BERTH stat | grep -q "placement staged (.*the device has none)" || fail "no reason in berth stat"
head -c 5000000 /dev/urandom > /dev/shm/data
attach rdma /mnt/a
cp /dev/shm/data /mnt/a/data
umount /mnt/a
attach rdma /mnt/a
cmp /dev/shm/data /mnt/a/data
umount /mnt/a
[ "$(counter payload_staged_bytes)" -ge 10000000 ] || fail "staged: $(counter payload_staged_bytes)"
no_copies
stop_berthd
# Where it could be direct, staging can be wished for.
umount /mnt/dax
pool devdax
rm /run/berthd.log
berthd -o "$rdma=staged"
grep -q "placement staged (configured)" /run/berthd.log || fail "not staged"
attach rdma /mnt/a
cp /dev/shm/data /mnt/a/data
umount /mnt/a
attach rdma /mnt/a
cmp /dev/shm/data /mnt/a/data
umount /mnt/a
[ "$(counter payload_staged_bytes)" -ge 10000000 ]
stop_berthd
rm /run/berthd.log
berthd -o "$rdma=direct"
grep -q "placement direct (0.5 GiB registered in" /run/berthd.log || { cat /run/berthd.log; fail "not direct"; }
attach rdma /mnt/a
cmp /dev/shm/data /mnt/a/data
umount /mnt/a
[ "$(counter payload_staged_bytes)" = 0 ]
stop_berthd
