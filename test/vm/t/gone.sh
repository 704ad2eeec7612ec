# gone.sh KIND: the pool's memory is taken away under the server: errors for those who ask, and the server goes on
. "$HERE/lib.sh"
pool $1
# Pages that a device has registered cannot be taken away from it: the kernel would wait for berthd.
[ $1 = devdax ] && FABRIC=none
berthd
attach tcp /mnt/a soft,timeo=50,retrans=3
head -c 60000000 /dev/urandom > /dev/shm/data
for i in 1 2 3; do cp /dev/shm/data /mnt/a/f$i; done
drop_caches
case $1 in
devdax)
	timeout 60 sh -c 'echo dax0.0 > /sys/bus/dax/drivers/device_dax/unbind' || fail "the device is not let go"
	;;
file)
	truncate -s 80M $POOL
	;;
esac
bad=0
for i in 1 2 3; do
	cat /mnt/a/f$i > /dev/null 2> /run/err && continue
	grep -q 'Input/output error\|Stale' /run/err || { cat /run/err; fail "f$i"; }
	bad=$((bad + 1))
done
[ $bad -ge 2 ] || fail "$bad files answered with an error"
echo text > /mnt/a/new 2> /run/err && [ $1 = devdax ] && fail "wrote to a device that is not there"
kill -0 $BERTHD || fail "berthd is gone"
cat /run/berthd.log
grep -q 'media error\|cut short' /run/berthd.log || fail "nothing in the log"
[ "$(counter media_errors)" -gt 0 ]
$BERTH stat > /dev/null
umount -f /mnt/a
