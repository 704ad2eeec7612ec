# sqlite.sh PROTO KIND: four writers of one database, then integrity_check
. "$HERE/lib.sh"
pool $2
berthd
attach $1 /mnt/a
db=/mnt/a/test.db
sqlite3 $db 'create table t (who integer, n integer, text text); create index i on t (text);'
for w in 1 2 3 4; do
	{
		echo ".timeout 60000"
		for n in $(seq 8); do
			echo "begin immediate;"
			echo "insert into t select $w, $n * 100 + value, hex(randomblob(200)) from generate_series(1, 20);"
			echo "update t set text = upper(text) || 'x' where who = $w and n % 7 = 0;"
			echo "commit;"
		done
	} > /run/sql.$w
	sqlite3 -bail $db < /run/sql.$w > /run/sql.$w.out 2>&1 &
	pids="$pids $!"
done
for p in $pids; do wait $p || { cat /run/sql.*.out; fail "a writer failed"; }; done
drop_caches
[ "$(sqlite3 $db 'pragma integrity_check')" = ok ]
[ "$(sqlite3 $db 'select count(*) from t')" = 640 ]
no_copies
umount /mnt/a
