# what is built and run from tests/bench: every program prints lines of one table (tests/bench/table.h)
EXTRA_DIST += tests/bench/README.md

check_LTLIBRARIES += libtable.la
libtable_la_SOURCES = tests/bench/table.c tests/bench/table.h

# DPDK's headers ask for instructions that the rest is not compiled for, so it is kept apart.
check_LTLIBRARIES += libpeer-dpdk.la
libpeer_dpdk_la_SOURCES = tests/bench/peer-dpdk.c tests/bench/peer-dpdk.h
libpeer_dpdk_la_CFLAGS = $(AM_CFLAGS) $(DPDK_CFLAGS)
libpeer_dpdk_la_LIBADD = $(DPDK_LIBS)

bench_programs += tests/bench/fragmentation
tests_bench_fragmentation_SOURCES = tests/bench/fragmentation.c
tests_bench_fragmentation_LDADD = libcore.la libtable.la libpeer-dpdk.la libtest.la -lm

# P1 to P3.
bench_programs += tests/bench/pool
tests_bench_pool_SOURCES = tests/bench/pool.c
tests_bench_pool_CFLAGS = $(AM_CFLAGS) -pthread
tests_bench_pool_LDADD = libdmabroker.la libtable.la libpeer-dpdk.la libtest.la -lm

# P4; mimalloc is loaded when it is installed.
bench_programs += tests/bench/any-size
tests_bench_any_size_SOURCES = tests/bench/any-size.c
tests_bench_any_size_LDADD = libdmabroker.la libtable.la libpeer-dpdk.la libtest.la -lm

# P14, as far as it is about leases.
bench_programs += tests/bench/lease
tests_bench_lease_SOURCES = tests/bench/lease.c
tests_bench_lease_LDADD = libdmabroker.la libtable.la libpeer-dpdk.la libtest.la -lm

# P14, as far as it is about starting.
bench_programs += tests/bench/startup
tests_bench_startup_SOURCES = tests/bench/startup.c
tests_bench_startup_LDADD = libdmabroker.la libtable.la libpeer-dpdk.la libtest.la -lm

# P8 and P9; the peers Redis and OVSDB are taken from the PATH when they are installed.
bench_programs += tests/bench/rpc
tests_bench_rpc_SOURCES = tests/bench/rpc.c
tests_bench_rpc_CFLAGS = $(AM_CFLAGS) $(UV_CFLAGS) $(JANSSON_CFLAGS)
tests_bench_rpc_LDADD = libtest.la libtable.la $(UV_LIBS) $(JANSSON_LIBS) -lm

bench_programs += tests/bench/contiguity
tests_bench_contiguity_SOURCES = tests/bench/contiguity.c
tests_bench_contiguity_LDADD = libsource.la libcore.la libtest.la libtable.la -lm

# P6
bench_programs += tests/bench/bounce
tests_bench_bounce_SOURCES = tests/bench/bounce.c tests/bench/peer-swiotlb.c tests/bench/peer-swiotlb.h client/slots.c \
	client/slots.h
tests_bench_bounce_LDADD = libtable.la -lm

# P7
bench_programs += tests/bench/streaming
tests_bench_streaming_SOURCES = tests/bench/streaming.c
tests_bench_streaming_LDADD = libdmabroker.la libtest.la libtable.la -lm

bench_caller = tests/bench/caller.c tests/bench/caller.h

# Whether a flood harms others.
bench_programs += tests/bench/neighbours
tests_bench_neighbours_SOURCES = tests/bench/neighbours.c $(bench_caller)
tests_bench_neighbours_LDADD = libtest.la libtable.la -lm

# P10, P12, P13
bench_programs += tests/bench/scale
tests_bench_scale_SOURCES = tests/bench/scale.c $(bench_caller)
tests_bench_scale_LDADD = libtest.la libtable.la -lm
