# libberth.sh KIND: Berth's own client over the verbs provider, beside the kernel's on the same endpoint
. "$HERE/lib.sh"
pool $1
berthd
url=berth+verbs://$SERVER:20049
head -c 7654321 /dev/urandom > /dev/shm/data
"$B/berth" mkdir $url/dir
"$B/berth" cp /dev/shm/data $url/dir/data
"$B/berth" ls -l $url/dir | tee /run/ls
grep -q 7654321 /run/ls
"$B/berth" cp $url/dir/data /dev/shm/back
cmp /dev/shm/data /dev/shm/back
# Replies longer than one message, and longer than the kernel's.
for i in $(seq 40); do echo $i > /dev/shm/small.$i; done
"$B/berth" cp /dev/shm/small.* $url/dir/
[ "$("$B/berth" ls $url/dir | wc -l)" = 41 ] || fail "$("$B/berth" ls $url/dir)"
[ "$("$B/berth" cat $url/dir/small.7)" = 7 ]
attach rdma /mnt/a
cmp /dev/shm/data /mnt/a/dir/data
[ "$(ls /mnt/a/dir | wc -l)" = 41 ]
echo kernel > /mnt/a/dir/kernel
[ "$("$B/berth" cat $url/dir/kernel)" = kernel ]
umount /mnt/a
"$B/berth" rm -r $url/dir
no_copies
[ "$(counter bad_chunks)" = 0 ]
stop_berthd
"$B/berth" check $POOL
