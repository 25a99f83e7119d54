# Each fuzzer is one file with LLVMFuzzerTestOneInput() and a corpus of its own name. Every build replays the corpora;
# builds with libFuzzer also have the fuzzers, which `make fuzz` runs.
replays = tests/fuzz/replay-domain tests/fuzz/replay-qmp tests/fuzz/replay-rpc
check_PROGRAMS += $(replays)
TESTS += $(replays)

tests_fuzz_replay_domain_SOURCES = tests/fuzz/fuzz-domain.c tests/fuzz/fuzz.h tests/fuzz/replay.c
tests_fuzz_replay_domain_CPPFLAGS = $(AM_CPPFLAGS) -DCORPUS='"fuzz-domain"'
tests_fuzz_replay_domain_LDADD = libdaemon.la

tests_fuzz_replay_qmp_SOURCES = tests/fuzz/fuzz-qmp.c tests/fuzz/fuzz.h tests/fuzz/replay.c
tests_fuzz_replay_qmp_CPPFLAGS = $(AM_CPPFLAGS) -DCORPUS='"fuzz-qmp"'
tests_fuzz_replay_qmp_CFLAGS = $(AM_CFLAGS) $(UV_CFLAGS)
tests_fuzz_replay_qmp_LDADD = libdaemon.la $(UV_LIBS)

tests_fuzz_replay_rpc_SOURCES = tests/fuzz/fuzz-rpc.c tests/fuzz/fuzz.h tests/fuzz/replay.c
tests_fuzz_replay_rpc_CPPFLAGS = $(AM_CPPFLAGS) -DCORPUS='"fuzz-rpc"'
tests_fuzz_replay_rpc_CFLAGS = $(AM_CFLAGS) $(JANSSON_CFLAGS)
tests_fuzz_replay_rpc_LDADD = libproto.la $(JANSSON_LIBS)

if HAVE_LIBFUZZER
fuzz_programs += tests/fuzz/fuzz-domain tests/fuzz/fuzz-qmp tests/fuzz/fuzz-rpc

tests_fuzz_fuzz_domain_SOURCES = tests/fuzz/fuzz-domain.c tests/fuzz/fuzz.h
tests_fuzz_fuzz_domain_LDFLAGS = $(AM_LDFLAGS) -fsanitize=fuzzer
tests_fuzz_fuzz_domain_LDADD = libdaemon.la

tests_fuzz_fuzz_qmp_SOURCES = tests/fuzz/fuzz-qmp.c tests/fuzz/fuzz.h
tests_fuzz_fuzz_qmp_CFLAGS = $(AM_CFLAGS) $(UV_CFLAGS)
tests_fuzz_fuzz_qmp_LDFLAGS = $(AM_LDFLAGS) -fsanitize=fuzzer
tests_fuzz_fuzz_qmp_LDADD = libdaemon.la $(UV_LIBS)

tests_fuzz_fuzz_rpc_SOURCES = tests/fuzz/fuzz-rpc.c tests/fuzz/fuzz.h
tests_fuzz_fuzz_rpc_CFLAGS = $(AM_CFLAGS) $(JANSSON_CFLAGS)
tests_fuzz_fuzz_rpc_LDFLAGS = $(AM_LDFLAGS) -fsanitize=fuzzer
tests_fuzz_fuzz_rpc_LDADD = libproto.la $(JANSSON_LIBS)
endif

EXTRA_DIST += tests/fuzz/corpus/fuzz-domain tests/fuzz/corpus/fuzz-qmp tests/fuzz/corpus/fuzz-rpc
