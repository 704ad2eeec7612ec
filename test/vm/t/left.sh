# left.sh PROTO KIND: a test that ends badly, its server dead under a hard mount with writes on the way, keeps nobody after it waiting
. "$HERE/lib.sh"
pool $2
berthd -o server.supervise=off
attach $1 /mnt/a hard
# The file is made and open before; what has it open must not be this shell, which could not end then.
setsid sh -c 'cd /mnt/a; exec > file; : > /run/open; until [ -e /run/go ]; do sleep 0.1; done; exec dd if=/dev/zero bs=1M count=20' 2> /dev/null &
until [ -e /run/open ]; do sleep 0.1; done
kill -9 $BERTHD
touch /run/go
until grep -q '^Writeback: *[1-9]' /proc/meminfo; do sleep 0.1; done
echo "left: $(grep Writeback: /proc/meminfo)"
rm /run/open /run/go
