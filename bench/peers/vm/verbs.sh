# verbs.sh ROUNDS COUNT: over Soft-RoCE, counted: durable puts and gets through layouts, WRITE and READ, and bare RMA; then
# operations beside the bare exchange
. "$HERE/lib.sh"
pool devdax
url=berth+verbs://$SERVER:20049/
for ddio in off on; do # off: a durable put is a write and a read behind it; on: the server is asked to write lines back
	berthd -o server.supervise=off -o "fabric rdma.layouts=on" -o "fabric rdma.ddio=$ddio"
	grep "persistence of layouts" /run/berthd.log | tail -1
	"$B/berth-bench" onesided $url $1 $2 | tee $OUT/onesided-ddio-$ddio
	[ $ddio = on ] || stop_berthd
done
load() {
	"$B/berth-bench" load --server $url --pid $BERTHD --control /run/berth.sock --rounds 3 --depths 1,16 "$@"
}
load --count 100 --sizes 4K --ops null,getattr,read,write,put,get
load --count 8 --sizes 1M --ops read,write
no_copies
