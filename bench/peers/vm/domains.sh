# domains.sh [OTHERS [COUNT]]: over Soft-RoCE: what a domain for each client costs. Memory of the server and the time of
# a first mapping, with OTHERS idle clients (20); then COUNT (100) durable puts of one more.
. "$HERE/lib.sh"
OTHERS=${1:-20} COUNT=${2:-100}
pool devdax
url=berth+verbs://$SERVER:20049/
now() { sed -n 's/^\(RssAnon\|VmPin\):[^0-9]*\([0-9]*\).*/\2/p' /proc/$BERTHD/status | tr '\n' ' '; ls /proc/$BERTHD/fd | wc -l; }
client() { # OTHERS
	rm -f /run/ask /run/answer
	mkfifo /run/ask /run/answer
	"$B/berth-bench" puts $url 4096 $1 < /run/ask > /run/answer &
	client=$!
	exec 8> /run/ask 9< /run/answer
	read -r -u 9
}
for how in shared client; do
	berthd -o server.supervise=off -o "fabric rdma.layouts=on" -o "fabric rdma.layout_domain=$how"
	client 1 # what is made once
	exec 8>&- 9<&-
	wait $client
	until [ "$(counter layouts)" = 0 ]; do sleep 0.1; done
	before=($(now))
	client $OTHERS
	after=($(now))
	echo "$how: for each client, KiB pinned $(((${after[0]} - ${before[0]}) / OTHERS)), KiB anonymous $(((${after[1]} - ${before[1]}) / OTHERS))," \
		"descriptors $(((${after[2]} - ${before[2]}) / OTHERS))" | tee -a $OUT/domains
	for r in 1 2 3; do
		t=$(date +%s%N)
		echo $COUNT >&8
		read -r -u 9
		echo "$how: $((($(date +%s%N) - t) / COUNT / 1000)) us of a durable put of 4 KiB" | tee -a $OUT/domains
	done
	exec 8>&- 9<&-
	wait $client
	stop_berthd
done
