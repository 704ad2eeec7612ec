# probe.sh KIND SERVER LAYOUTS PLACEMENT [OPTION...]: what berth probe says of verbs and this kind of pool, beside what berthd says
. "$HERE/lib.sh"
pool $1
probe() { # EXPRESSION OPTION...: of the entry for rxe0
	"$B/berth" probe --json --timeout 120 --provider verbs --pool $POOL "${@:2}" > /run/probe.json
	python3 - "$1" < /dev/null <<-END
	import json, sys
	p = json.load(open("/run/probe.json"))
	e = [o for o in p["offers"] if o.get("domain") == "rxe0" and o.get("ep_type") == "FI_EP_MSG"]
	print(json.dumps(e, indent=1))
	e = [o for o in e if o["usable"]][0]
	assert $1, "$1"
	END
}
want="e['persistence']['method'] == '$2' and e['placement'] == '$4' and e['key_size'] == 4 and not e['rma_pmem']"
if [ $3 = none ]; then
	probe "$want and e['layout_persistence']['method'] is None and not e['layouts']"
else
	probe "$want and e['layout_persistence']['method'] == '$3' and p['pool']['map_sync'] and p['ddio_hint'].startswith('unknown')"
	# The administrator's word, where lines written back would have been needed.
	probe "e['layout_persistence']['method'] == 'read-after-write'" --ddio off
fi
probe "e['layout_domain']['default'] == 'client' and e['layout_domain']['kib_each'] and '\\nlayout_domain = client\\n' in e['config']"
berthd -o "fabric rdma.layouts=on"
cat /run/berthd.log
if [ $3 = none ]; then
	grep -q "fabric rdma. no layouts: .*staging buffer" /run/berthd.log || fail "layouts"
else
	grep -q "fabric rdma. persistence of layouts $3 (" /run/berthd.log || fail "layouts"
	"$B/berth" probe --markdown --timeout 120 --provider verbs > /run/rows
	grep "^| .verbs" /run/rows | sort -u > /run/row
	[ -s /run/row ] && grep -qFf /run/row "$HERE/../../providers.md" || { cat /run/rows; fail "providers.md"; }
fi
stop_berthd
