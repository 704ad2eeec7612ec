# two.sh PROTO KIND: two machines work in one directory
. "$HERE/lib.sh"
pool $2
berthd
attach $1 /mnt/a actimeo=0
mkdir /mnt/a/d
on_peer="B='$B' HERE='$HERE' OUT='$OUT' TEST=$TEST; . $HERE/lib.sh; "
peer "$on_peer attach $1 /mnt/a actimeo=0"
peer "cd /mnt/a/d && for i in \$(seq 0 2 98); do echo peer \$i > f\$i; done" &
p=$!
for i in $(seq 1 2 99); do echo here $i > /mnt/a/d/f$i; done
wait $p
[ "$(ls /mnt/a/d | wc -l)" = 100 ] || fail "here: $(ls /mnt/a/d | wc -l)"
peer "[ \"\$(ls /mnt/a/d | wc -l)\" = 100 ]" || fail "there"
for i in $(seq 0 2 98); do [ "$(cat /mnt/a/d/f$i)" = "peer $i" ] || fail "f$i"; done
peer "for i in \$(seq 1 2 99); do [ \"\$(cat /mnt/a/d/f\$i)\" = \"here \$i\" ] || exit 1; done" || fail "contents there"
# Both take names away from the same directory, both make the same name: one of them wins each time.
peer "cd /mnt/a/d && for i in \$(seq 0 99); do mkdir /mnt/a/d/x\$i 2>/dev/null && echo \$i; rm -f f\$i; done > /run/won; cat /run/won" > /run/won.peer &
p=$!
for i in $(seq 99 -1 0); do mkdir /mnt/a/d/x$i 2>/dev/null && echo $i; rm -f /mnt/a/d/f$i; done > /run/won
wait $p
[ "$(sort -n /run/won /run/won.peer | uniq | wc -l)" = 100 ] || fail "a name that nobody made"
[ "$(cat /run/won /run/won.peer | wc -l)" = 100 ] || fail "a name that both made"
[ "$(ls /mnt/a/d | wc -l)" = 100 ]
# A large file from there, compared here.
peer "head -c 8000000 /dev/urandom > /mnt/a/big && sync /mnt/a/big && md5sum < /mnt/a/big" > /run/sum
drop_caches
[ "$(md5sum < /mnt/a/big)" = "$(cat /run/sum)" ]
no_copies
peer umount /mnt/a
umount /mnt/a
stop_berthd
