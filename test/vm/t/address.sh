# address.sh KIND: who a client over verbs is to the exports file: its address, and nobody else
. "$HERE/lib.sh"
pool $1
export FI_MR_CACHE_MONITOR=disabled
url=berth+verbs://$SERVER:20049/
printf '%s\n' "/ 127.0.0.1(rw,no_root_squash,insecure) ::1(rw,no_root_squash,insecure) 192.0.2.2(rw,no_root_squash,insecure)" > /run/exports
berthd
"$B/berth" ls $url && fail "it counts as on this machine, or as another one"
kill -9 $BERTHD
echo "/ $SERVER(rw,no_root_squash,insecure)" > /run/exports
berthd
"$B/berth" ls $url
echo here > /dev/shm/f
"$B/berth" cp /dev/shm/f ${url}f
[ "$("$B/berth" cat ${url}f)" = here ]
stop_berthd
