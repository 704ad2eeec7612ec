# open.sh PROTO KIND: files removed and renamed while open, two mounts of one directory, truncation, links
. "$HERE/lib.sh"
pool $2
berthd
attach $1 /mnt/a
attach $1 /mnt/b nosharecache,actimeo=0
cd /mnt/a
# Removed while open: the client renames it, and removes it at the last close.
head -c 3000000 /dev/urandom > f
sum=$(md5sum < f)
exec 3<> f
rm f
ls -A | grep -q '^\.nfs' || fail "no silly rename"
[ "$(md5sum <&3)" = "$sum" ]
echo more >&3
exec 3>&-
[ -z "$(ls -A)" ] || fail "left: $(ls -A)"
# Removed by another client while open here: the handle is stale, and nothing worse.
echo text > g
exec 3< g
rm /mnt/b/g
echo 3 > /proc/sys/vm/drop_caches
! cat <&3 2> /run/err || fail "read a file that another client removed"
grep -q Stale /run/err
exec 3<&-
# Renamed while open, over a file that is open.
echo one > h
echo two > i
exec 3< h 4>> i
mv i h
[ "$(cat <&3)" = one ]
echo three >&4
exec 3<&- 4>&-
[ "$(cat h)" = "$(printf 'two\nthree')" ]
[ "$(cat /mnt/b/h)" = "$(printf 'two\nthree')" ]
# What one writes the other reads; both write disjoint parts.
for i in $(seq 20); do
	dd if=/dev/urandom of=/mnt/a/s bs=4k count=1 seek=$((i * 2)) conv=notrunc,fsync 2>/dev/null
	dd if=/dev/urandom of=/mnt/b/s bs=4k count=1 seek=$((i * 2 + 1)) conv=notrunc,fsync 2>/dev/null
done
drop_caches
cmp /mnt/a/s /mnt/b/s
truncate -s 5000 /mnt/a/s
[ "$(stat -c %s /mnt/b/s)" = 5000 ]
truncate -s 100000 /mnt/b/s
[ "$(tail -c 95000 /mnt/a/s | tr -d '\0' | wc -c)" = 0 ] || fail "bytes behind a truncation"
ln s t
ln -s "$(printf 'x%.0s' $(seq 1000))" long
[ "$(readlink /mnt/b/long)" = "$(printf 'x%.0s' $(seq 1000))" ]
[ "$(stat -c %h /mnt/b/s)" = 2 ]
mkfifo p
mknod d c 1 3
chmod 4751 t
chown 12:34 t
[ "$(stat -c %a /mnt/b/t)" = 751 ] || fail "a program given away keeps its set-user-ID bit"
chmod 4751 t
touch -d '2001-02-03 04:05:06.789' t
[ "$(stat -c '%a %u %g %y' /mnt/b/t)" = "4751 12 34 2001-02-03 04:05:06.789000000 +0000" ]
[ "$(stat -c '%F %t %T' /mnt/b/d)" = "character special file 1 3" ]
cd /
umount /mnt/b
umount /mnt/a
