# Berth: build, test, install. Everything lands under $(B); V=1 shows the commands.
#
#   make deps        install every Debian package that the build and the tests use
#   make             berthd, berth, libberth.so, libberth.a
#   make serve       packages, build, a pool if there is none, a server on loopback
#   make check       all tests that this machine can run   (T=pattern: only matching ones)
#   make check-crash the power fails at every point of many runs, for SECONDS=n
#   make fuzz        journals of all kinds, for SECONDS=n
#   make check-vm    the Linux kernel's NFS client over TCP and Soft-RoCE, in a virtual machine: all of test/vm/list
#   make check-asan  the same under AddressSanitizer + UBSan; check-tsan: ThreadSanitizer
#   make bench       figures beside their floor; bench-peers: beside NFS-Ganesha
#   make bench-knfsd the Linux kernel's client against knfsd and against berthd, counted in a virtual machine
#   make install     PREFIX=/usr/local DESTDIR=

B       ?= build
PREFIX  ?= /usr/local
DESTDIR ?=
T       ?=
CC      ?= gcc

# The one list of packages. DEPS builds the product, DEPS_TEST runs its tests.
DEPS      := pkg-config libfabric-dev libpmem2-dev libtirpc-dev libev-dev libinih-dev libisal-dev \
             libsodium-dev libsystemd-dev libjansson-dev uthash-dev rpcsvc-proto
DEPS_TEST := libcriterion-dev libnfs-dev libnfs-utils rpcbind nfs-common clang libclang-rt-dev \
             procps iproute2 python3 valgrind systemd
# What the virtual machine is made of, and what runs in it.
DEPS_VM   := qemu-system-x86 linux-image-amd64 busybox-static cpio kmod rdma-core ibverbs-providers rdmacm-utils \
             ndctl xfsprogs e2fsprogs iproute2 rpcbind nfs-common fio sqlite3 git tar linux-libc-dev
# What check-vm unpacks there besides, and what berthd is compared with: servers that start where they are installed.
DEPS_VM_ALL := linux-headers-amd64
DEPS_KNFSD  := nfs-kernel-server linux-perf
DEPS_PEERS  := nfs-ganesha nfs-ganesha-vfs rpcbind

# For the builds inside tasks, unless the caller said how many.
jobs = $(if $(filter -j% --jobs%,$(MAKEFLAGS)),,-j$(shell nproc))
Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-5s %s\n' '$(1)' '$(patsubst $(B)/%,%,$@)')

PKGS     := libfabric libpmem2 libtirpc libsodium jansson libsystemd
WARN     := -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes \
            -Wpointer-arith -Wundef -Wwrite-strings -Wvla $(if $(WERROR),-Werror)
OPT      ?= -O2 -g
SAN      ?=
sanflags := $(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer -fno-sanitize-recover=all)
CPPFLAGS += -D_GNU_SOURCE -I. -I$(B)/gen $(subst -I,-isystem ,$(shell pkg-config --cflags $(PKGS) 2>/dev/null))
CFLAGS   += -std=c11 -fPIC -fvisibility=hidden $(OPT) $(WARN) $(sanflags) -pthread
LDFLAGS  += $(sanflags) -pthread -Wl,-O1
LDLIBS   += $(shell pkg-config --libs $(PKGS) 2>/dev/null) -lev -linih -lisal -lm

src      = $(wildcard $(1)/*.c)
obj      = $(patsubst %.c,$(B)/obj/%.o,$(1))
PROTO    := $(basename $(notdir $(wildcard proto/*.x)))
gen_h    := $(PROTO:%=$(B)/gen/proto/%.h)
gen_obj  := $(PROTO:%=$(B)/obj/gen/%_xdr.o)

lib_pmemio    := $(B)/libpmemio.a
lib_transport := $(B)/libtransport.a
lib_proto     := $(B)/libproto.a
lib_client    := $(B)/libberth.a
cli_src       := $(wildcard client/cmd/*.c)

all: $(B)/berthd $(B)/berth $(B)/libberth.so $(B)/libberth.a

# --- generated XDR -----------------------------------------------------------
$(B)/gen/proto/%.h: proto/%.x
	$(call say,RPC)
	$(Q)mkdir -p $(@D) && rm -f $@ && rpcgen -N -h -o $@ $<
$(B)/gen/proto/%_xdr.c: proto/%.x
	$(call say,RPC)
	$(Q)mkdir -p $(@D) && rm -f $@ && rpcgen -N -c -o $@ $<
$(B)/obj/gen/%_xdr.o: $(B)/gen/proto/%_xdr.c $(gen_h) transport/xdr.h
	$(call say,CC)
	$(Q)mkdir -p $(@D) && $(CC) $(CPPFLAGS) $(CFLAGS) -w -DTP_XDR_INLINE -include transport/xdr.h -c -o $@ $<
.SECONDARY:

# --- objects, libraries, programs ---------------------------------------------
$(B)/obj/%.o: %.c | $(gen_h)
	$(call say,CC)
	$(Q)mkdir -p $(@D) && $(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

ar = $(Q)mkdir -p $(@D) && rm -f $@ && ar rcs $@ $^
$(lib_pmemio): $(call obj,$(call src,pmemio))
	$(call say,AR)
	$(ar)
$(lib_transport): $(call obj,$(call src,transport))
	$(call say,AR)
	$(ar)
$(lib_proto): $(gen_obj) $(call obj,$(call src,proto))
	$(call say,AR)
	$(ar)
# libberth is complete in itself: the client, its transport and its protocols.
$(lib_client): $(call obj,$(call src,client)) $(call obj,$(call src,transport)) $(gen_obj) $(call obj,$(call src,proto))
	$(call say,AR)
	$(ar)
$(B)/libberth.so: $(lib_client)
	$(call say,LD)
	$(Q)$(CC) -shared $(LDFLAGS) -Wl,-soname,libberth.so.0 -o $@ -Wl,--whole-archive $< -Wl,--no-whole-archive $(LDLIBS)
$(B)/berthd: $(call obj,$(call src,server)) $(lib_transport) $(lib_pmemio) $(lib_proto)
	$(call say,LD)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)
$(B)/berth: $(call obj,$(cli_src)) $(lib_client) $(lib_pmemio)
	$(call say,LD)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

# --- tests: test/MODULE/*.c is one Criterion program each, linked with what MODULE may use ----
test_src := $(wildcard test/pmemio/*.c test/transport/*.c test/server/*.c test/client/*.c test/bench/*.c test/integration/*.c)
test_bin := $(patsubst %.c,$(B)/%,$(test_src))
test_lib := $(B)/libtest.a
srv_obj  := $(filter-out %/main.o,$(call obj,$(call src,server)))
$(test_lib): $(call obj,$(wildcard test/lib/*.c))
	$(call say,AR)
	$(ar)
$(B)/test/pmemio/%: $(B)/obj/test/pmemio/%.o $(test_lib) $(lib_pmemio)
	$(call say,LD)
	$(Q)mkdir -p $(@D) && $(CC) $(LDFLAGS) -o $@ $(filter %.o,$^) $(filter %.a,$^) $(LDLIBS) -lcriterion
# Counts how often the pool comes to a file's extents.
$(B)/test/pmemio/test_trim: LDFLAGS += $(foreach f,ext_find bt_next bt_walk,-Wl,--wrap=$f)
# A fuzz target is linked with a test that runs it a little; alone it wants clang's libFuzzer.
$(B)/test/pmemio/test_journal_fuzz: $(B)/obj/test/fuzz/journal.o
$(B)/fuzz-journal: $(B)/obj/test/fuzz/journal.o $(test_lib) $(lib_pmemio)
	$(call say,LD)
	$(Q)$(CC) $(LDFLAGS) -fsanitize=fuzzer -o $@ $^ $(LDLIBS)
# Threads in a pool, without Criterion.
$(B)/stress-pool: $(call obj,test/stress/pool.c test/lib/stress.c test/lib/pool.c) $(lib_pmemio)
	$(call say,LD)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)
$(B)/test/transport/%: $(B)/obj/test/transport/%.o $(test_lib) $(lib_transport) $(lib_proto)
	$(call say,LD)
	$(Q)mkdir -p $(@D) && $(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS) -lcriterion
# What libfabric and /dev/shm say when there is no room.
$(B)/test/transport/test_shm_room: private LDFLAGS += $(foreach f,fi_getinfo posix_fallocate statvfs,-Wl,--wrap=$f)
# A test's own .x file: header, XDR and client stubs, as its author's users would make them.
$(B)/gen/test/%.h: test/%.x
	$(call say,RPC)
	$(Q)mkdir -p $(@D) && rm -f $@ && rpcgen -h -o $@ $<
$(B)/gen/test/%_xdr.c: test/%.x
	$(call say,RPC)
	$(Q)mkdir -p $(@D) && rm -f $@ && rpcgen -c -o $@ $<
$(B)/gen/test/%_clnt.c: test/%.x
	$(call say,RPC)
	$(Q)mkdir -p $(@D) && rm -f $@ && rpcgen -l -o $@ $<
$(B)/obj/gen/test/%.o: $(B)/gen/test/%.c $(B)/gen/test/transport/sample.h
	$(call say,CC)
	$(Q)mkdir -p $(@D) && $(CC) $(CPPFLAGS) $(CFLAGS) -w -c -o $@ $<
$(B)/obj/test/transport/test_clnt.o: $(B)/gen/test/transport/sample.h
$(B)/test/transport/test_clnt: $(patsubst %,$(B)/obj/gen/test/transport/sample_%.o,xdr clnt)
$(B)/test/server/%: $(B)/obj/test/server/%.o $(test_lib) $(srv_obj) $(lib_client) $(lib_pmemio)
	$(call say,LD)
	$(Q)mkdir -p $(@D) && $(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS) -lcriterion
# The pool is closed while it is at work still.
$(B)/test/server/test_stop: private LDFLAGS += -Wl,--wrap=pm_close
$(B)/test/client/%: $(B)/obj/test/client/%.o $(test_lib) $(lib_client) $(lib_pmemio)
	$(call say,LD)
	$(Q)mkdir -p $(@D) && $(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS) -lcriterion
$(B)/test/bench/%: $(B)/obj/test/bench/%.o $(B)/obj/bench/hist.o
	$(call say,LD)
	$(Q)mkdir -p $(@D) && $(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS) -lcriterion
$(B)/test/integration/%: $(B)/obj/test/integration/%.o $(test_lib) $(lib_client) $(lib_pmemio)
	$(call say,LD)
	$(Q)mkdir -p $(@D) && $(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS) -lnfs -lcriterion
# Tests that stand between two parts of the library.
$(B)/test/integration/test_map_lost: private LDFLAGS += -Wl,--wrap=layout_start_map
$(B)/test/integration/test_push: private LDFLAGS += -Wl,--wrap=tp_client_rma
# Run in the virtual machine.
$(B)/test/vm/%: $(B)/obj/test/vm/%.o $(test_lib) $(lib_client) $(lib_pmemio)
	$(call say,LD)
	$(Q)mkdir -p $(@D) && $(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS) -lcriterion

# A berthd that writes down what a fabric client says to it: see test/vm/record/record.c.
recorded := rr_cm_decode rr_decode rpc_call_run fab_write fab_send
$(B)/berthd-record: $(call obj,test/vm/record/record.c) $(call obj,$(call src,server)) $(lib_transport) $(lib_pmemio) $(lib_proto)
	$(call say,LD)
	$(Q)$(CC) $(LDFLAGS) $(recorded:%=-Wl,--wrap=%) -o $@ $^ $(LDLIBS)

tests: $(test_bin)
.PHONY: all tests deps deps-vm deps-vm-all deps-knfsd deps-peers serve check check-run check-crash fuzz check-vm bench-knfsd check-asan check-tsan bench bench-peers bench-drc bench-sum install clean
-include $(shell find $(B)/obj -name '*.d' 2>/dev/null)

clean:
	rm -rf $(B)

# --- tasks ----------------------------------------------------------------------------------------
# As root or through sudo; otherwise say what somebody who may should type.
deps: want := $(DEPS) $(DEPS_TEST)
deps-vm: want := $(DEPS_VM)
deps-vm-all: want := $(DEPS_VM) $(DEPS_VM_ALL)
deps-knfsd: want := $(DEPS_VM) $(DEPS_KNFSD)
deps-peers: want := $(DEPS_PEERS)
deps deps-vm deps-vm-all deps-knfsd deps-peers:
	@missing=""; for p in $(want); do \
		dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$p"; done; \
	[ -z "$$missing" ] && exit 0; \
	if [ "$$(id -u)" = 0 ]; then sudo=; elif sudo -n true 2>/dev/null; then sudo=sudo; else \
		echo "These packages are needed; as root, type:"; \
		echo "  apt-get install -y --no-install-recommends$$missing"; exit 1; fi; \
	echo "installing$$missing"; \
	{ $$sudo apt-get update -qq && \
	  $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; } >/dev/null

# pkg-config is one of the packages: what the build asks it is only known once they are there.
serve: deps
	$(Q)$(MAKE) --no-print-directory $(jobs) all
	@exec etc/serve $(B)

# Where the packages of the virtual machine cannot be had, its tests are named as not run.
check: deps
	@$(MAKE) --no-print-directory deps-vm || echo "without them the tests in a virtual machine do not run"
	$(Q)$(MAKE) --no-print-directory $(jobs) check-run VM=test/vm/quick.sh@1200
check-run: all tests $(B)/berth-bench
	@BUILD=$(B) test/run $(if $(T),-k $(T)) $(addprefix ./,$(sort $(test_bin))) $(sort $(wildcard test/integration/*.sh test/bench/*.sh)) $(VM)
SECONDS ?= 600
crash_bin := $(B)/test/pmemio/test_crash $(B)/test/pmemio/test_crash_repair
check-crash: deps
	$(Q)$(MAKE) --no-print-directory $(jobs) $(crash_bin)
	@for t in $(crash_bin); do BERTH_CRASH_SECONDS=$$(($(SECONDS) / 2)) $$t -j1 || exit 1; done
# Software emulation, no rights and no hardware needed: test/vm/list names the tests, T= picks some.
fuzz: deps
	$(Q)$(MAKE) --no-print-directory $(jobs) $(B)/fuzz/fuzz-journal B=$(B)/fuzz SAN=fuzzer-no-link,address,undefined OPT='-O1 -g' CC=clang
	@mkdir -p $(B)/fuzz/journal && $(B)/fuzz/fuzz-journal -max_total_time=$(SECONDS) -timeout=20 -max_len=257 \
		-artifact_prefix=$(B)/fuzz/ $(B)/fuzz/journal test/fuzz/journal
check-vm: deps deps-vm-all
	$(Q)$(MAKE) --no-print-directory $(jobs) check-vm-run
check-vm-run: all $(B)/berthd-record $(B)/berth-bench $(B)/test/vm/test_verbs
	@test/vm/run $(if $(T),-k '$(T)') $(B)
bench-knfsd: deps deps-knfsd
	$(Q)$(MAKE) --no-print-directory $(jobs) all
	@test/vm/run -f bench/peers/vm/list -k 'knfsd$$' $(B) && bench/peers/vm/report $(B)/vm/count/out/figures
check-asan: deps
	$(Q)$(MAKE) --no-print-directory $(jobs) check-run B=$(B)/asan SAN=address,undefined OPT='-O1 -g' CC='$(CC)'
# Criterion itself cannot run under ThreadSanitizer: programs are built with it, and plain tests put them to work.
TSAN_TESTS := test_workers test_batch test_stop # whole programs whose threads meet
check-tsan: deps
	$(Q)$(MAKE) --no-print-directory $(jobs) all $(B)/tsan/stress-pool B=$(B)/tsan SAN=thread OPT='-O1 -g' CC=clang
	@for seed in 1 2 3 4; do TSAN_OPTIONS="suppressions=$(CURDIR)/test/tsan.supp second_deadlock_stack=1" \
		$(B)/tsan/stress-pool 4 2000 $$seed && \
		$(B)/tsan/stress-pool $$((seed % 2 * 2 + 2)) 2000 $$seed sums || exit 1; done
	$(Q)$(MAKE) --no-print-directory $(jobs) tests
	@BERTH_PROGRAMS=$(abspath $(B))/tsan TSAN_OPTIONS="suppressions=$(CURDIR)/test/tsan.supp second_deadlock_stack=1" \
		test/run $(if $(T),-k $(T)) $(TSAN_TESTS:%=./$(B)/test/integration/%)

install: all $(B)/berth-bench
	install -D -m755 $(B)/berthd $(DESTDIR)$(PREFIX)/bin/berthd
	install -D -m755 $(B)/berth $(DESTDIR)$(PREFIX)/bin/berth
	install -D -m755 $(B)/berth-bench $(DESTDIR)$(PREFIX)/bin/berth-bench
	install -D -m755 $(B)/libberth.so $(DESTDIR)$(PREFIX)/lib/libberth.so.0
	ln -sf libberth.so.0 $(DESTDIR)$(PREFIX)/lib/libberth.so
	install -D -m644 $(B)/libberth.a $(DESTDIR)$(PREFIX)/lib/libberth.a
	install -D -m644 client/berth.h $(DESTDIR)$(PREFIX)/include/berth.h
	install -D -m644 transport/clnt_fabric.h $(DESTDIR)$(PREFIX)/include/clnt_fabric.h
	for s in 1 3 5 8; do for m in doc/*.$$s; do [ -e $$m ] && \
		install -D -m644 $$m $(DESTDIR)$(PREFIX)/share/man/man$$s/$${m#doc/}; done; done; true
	install -D -m644 doc/example-log.c $(DESTDIR)$(PREFIX)/share/doc/berth/examples/example-log.c
	[ -e $(DESTDIR)/etc/berth/berth.conf ] || install -D -m644 etc/berth.conf $(DESTDIR)/etc/berth/berth.conf
	[ -e $(DESTDIR)/etc/berth/exports ] || install -D -m644 etc/exports $(DESTDIR)/etc/berth/exports
	sed 's|/usr/local|$(PREFIX)|' etc/berthd.service | install -D -m644 /dev/stdin $(DESTDIR)/usr/lib/systemd/system/berthd.service
.PHONY: check-run check-vm-run

$(B)/berth-bench: $(call obj,$(call src,bench)) $(lib_client) $(lib_pmemio)
	$(call say,LD)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)
# The cost of duplicate detection for each change.
$(B)/bench-drc: $(call obj,$(call src,bench/drc)) $(lib_pmemio) $(lib_proto)
	$(call say,LD)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)
bench-drc: deps
	$(Q)$(MAKE) --no-print-directory $(jobs) all $(B)/bench-drc
	@bench/drc/run $(B)
$(B)/bench-sum: $(call obj,$(call src,bench/sum)) $(lib_pmemio)
	$(call say,LD)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)
bench-sum: deps
	$(Q)$(MAKE) --no-print-directory $(B)/bench-sum
	@$(B)/bench-sum /dev/shm
# The same load over TCP on berthd, NFS-Ganesha and a bare echo, in turns.
bench-peers: deps deps-peers
	$(Q)$(MAKE) --no-print-directory $(jobs) all $(B)/berth-bench
	@mkdir -p $(B)/bench
	@PEER=ganesha bench/alone bench/peers/run $(B) --depths 16 --json $(B)/bench/peers.json
# Berth beside bare libfabric and bare sockets: a page of tables and plots, $(B)/bench/index.html.
bench: deps
	$(Q)$(MAKE) --no-print-directory $(jobs) all $(B)/berth-bench
	@bench/run $(B) $(B)/bench
