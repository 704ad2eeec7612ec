# verbs.sh ROUNDS: over Soft-RoCE, counted: durable puts and gets through layouts, WRITE and READ, and bare RMA; then every
# operation beside the bare exchange
. "$HERE/lib.sh"
pool devdax
berthd -o server.supervise=off -o "fabric rdma.layouts=on"
url=berth+verbs://$SERVER:20049/
grep -E "persistence|placement" /run/berthd.log
"$B/berth-bench" onesided $url $1 | tee $OUT/onesided
"$B/berth-bench" load --server $url --pid $BERTHD --control /run/berth.sock --count 200 --rounds 3 --depths 1,16 --sizes 4K \
	--ops null,getattr,read,write,put,get --json $OUT/load.json
"$B/berth-bench" load --server $url --pid $BERTHD --control /run/berth.sock --count 24 --rounds 3 --depths 1,16 --sizes 1M \
	--ops read,write,put,get
no_copies
