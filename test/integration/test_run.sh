#!/bin/sh
# What test/run makes of programs that pass, fail, count for themselves, hang, or cannot run here.
set -u
run=$(cd "$(dirname "$0")/.." && pwd)/run
d=$(mktemp -d)
trap 'rm -rf "$d"' EXIT
cd "$d" || exit 1
program() { # NAME COMMANDS
	printf '#!/bin/sh\n%s\n' "$2" > "$1"
	chmod +x "$1"
}
program pass.sh 'exit 0'
program fail.sh 'exit 3'
program count.sh 'echo x; echo "4 passed, 0 failed"'
program some.sh 'echo "4 passed, 2 failed"; exit 1'
program liar.sh 'echo "4 passed, 0 failed"; exit 1'
program absent.sh 'echo "not run: no such machine"; exit 77'
program hang.sh 'sleep 1000'

want() { # STATUS LAST-LINE PROGRAM...
	status=$1 last=$2
	shift 2
	"$run" "$@" > out 2>&1
	got=$?
	[ $got = "$status" ] && [ "$(tail -1 out)" = "$last" ] && return
	echo "test/run $*: status $got instead of $status, or not '$last':"
	cat out
	exit 1
}
want 0 '1 passed, 0 failed' ./pass.sh
want 1 '1 passed, 1 failed' ./pass.sh ./fail.sh
want 0 '5 passed, 0 failed' ./pass.sh ./count.sh
want 1 '5 passed, 2 failed' ./pass.sh ./some.sh
want 1 '4 passed, 1 failed' ./liar.sh
want 1 '1 passed, 1 failed' ./pass.sh ./hang.sh@1
want 0 '1 passed, 0 failed' ./absent.sh ./pass.sh
[ "$(tail -2 out | head -1)" = 'not run: ./absent.sh: no such machine' ] || { cat out; exit 1; }
want 1 '0 passed, 0 failed' ./absent.sh
