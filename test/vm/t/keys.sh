# keys.sh: layouts over verbs against clients that use them as they should not (test_verbs.c)
. "$HERE/lib.sh"
export FI_MR_CACHE_MONITOR=disabled FI_PROVIDER=verbs SERVER
"$B/test/vm/test_verbs" -j1 --tap --timeout=250 > /run/tap 2>&1 || { cat /run/tap; fail "test_verbs"; }
cat /run/tap
[ "$(grep -c '^ok' /run/tap)" = 2 ] || fail "it did not run"
