# Each fuzzer is one file with LLVMFuzzerTestOneInput() and a corpus of its own name. Every build replays the corpora;
# builds with libFuzzer also have the fuzzers, which `make fuzz` runs.
check_PROGRAMS += tests/fuzz/replay-rpc
TESTS += tests/fuzz/replay-rpc
tests_fuzz_replay_rpc_SOURCES = tests/fuzz/fuzz-rpc.c tests/fuzz/replay.c
tests_fuzz_replay_rpc_CPPFLAGS = $(AM_CPPFLAGS) -DCORPUS='"fuzz-rpc"'
tests_fuzz_replay_rpc_CFLAGS = $(AM_CFLAGS) $(JANSSON_CFLAGS)
tests_fuzz_replay_rpc_LDADD = libproto.la $(JANSSON_LIBS)

if HAVE_LIBFUZZER
fuzz_programs += tests/fuzz/fuzz-rpc
tests_fuzz_fuzz_rpc_SOURCES = tests/fuzz/fuzz-rpc.c
tests_fuzz_fuzz_rpc_CFLAGS = $(AM_CFLAGS) $(JANSSON_CFLAGS)
tests_fuzz_fuzz_rpc_LDFLAGS = $(AM_LDFLAGS) -fsanitize=fuzzer
tests_fuzz_fuzz_rpc_LDADD = libproto.la $(JANSSON_LIBS)
endif

EXTRA_DIST += tests/fuzz/corpus/fuzz-rpc
