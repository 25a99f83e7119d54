# what is built and run from tests/bench: every program prints lines of one table (tests/bench/table.h)
check_LTLIBRARIES += libtable.la
libtable_la_SOURCES = tests/bench/table.c tests/bench/table.h

# P8 and P9; the peers Redis and OVSDB are taken from the PATH when they are installed.
bench_programs += tests/bench/rpc
tests_bench_rpc_SOURCES = tests/bench/rpc.c
tests_bench_rpc_CFLAGS = $(AM_CFLAGS) $(UV_CFLAGS) $(JANSSON_CFLAGS)
tests_bench_rpc_LDADD = libtest.la libtable.la $(UV_LIBS) $(JANSSON_LIBS) -lm
