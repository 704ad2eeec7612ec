# dir.sh PROTO KIND: a directory of 20,000 entries: made, listed while others come and go, removed
. "$HERE/lib.sh"
pool $2
berthd
attach $1 /mnt/a
mkdir /mnt/a/d
python3 - <<-P
	import os
	os.chdir("/mnt/a/d")
	for i in range(20000):
	    os.close(os.open("entry-%05d" % i, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
P
drop_caches
[ "$(ls /mnt/a/d | wc -l)" = 20000 ]
[ "$(ls /mnt/a/d | sort | uniq -d | wc -l)" = 0 ]
attach $1 /mnt/b nosharecache,actimeo=0
python3 - <<-P
	import os
	# What stays throughout a listing is seen once, whatever else comes and goes meanwhile.
	seen, n = {}, 0
	with os.scandir("/mnt/b/d") as it:
	    for e in it:
	        seen[e.name] = seen.get(e.name, 0) + 1
	        n += 1
	        if n % 20 == 0:
	            i = n // 20
	            os.unlink("/mnt/a/d/entry-%05d" % (i * 2))
	            os.close(os.open("/mnt/a/d/new-%05d" % i, os.O_CREAT))
	for i in range(1, 20000, 2):
	    assert seen.get("entry-%05d" % i) == 1, (i, seen.get("entry-%05d" % i))
	assert max(seen.values()) == 1
P
ls -l /mnt/b/d | wc -l
rm -r /mnt/a/d
[ -z "$(ls -A /mnt/b)" ] || fail "left: $(ls -A /mnt/b)"
umount /mnt/b
umount /mnt/a
stop_berthd
"$B/berth" check $POOL
