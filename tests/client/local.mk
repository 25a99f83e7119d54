# The library against a scripted daemon and against a real one.
client_scripts = tests/client/symbols-test.sh tests/client/example-test.sh
dist_check_SCRIPTS += $(client_scripts)
TESTS += $(client_scripts)

if HAVE_CMOCKA
client_tests = \
	tests/client/any-model \
	tests/client/any-test \
	tests/client/connect-test \
	tests/client/cut-test \
	tests/client/daemon-test \
	tests/client/exchange-test \
	tests/client/fork-test \
	tests/client/guest-test \
	tests/client/hugetlb-test \
	tests/client/kill-test \
	tests/client/link-test \
	tests/client/pool-model \
	tests/client/pool-test \
	tests/client/reconnect-test \
	tests/client/restart-test \
	tests/client/streaming-model \
	tests/client/streaming-test \
	tests/client/swap-test
check_PROGRAMS += $(client_tests)
TESTS += $(client_tests)

client_test_cflags = $(AM_CFLAGS) $(CMOCKA_CFLAGS) $(JANSSON_CFLAGS) -pthread
client_test_libs = libtest.la libdmabroker.la libproto.la $(CMOCKA_LIBS) $(JANSSON_LIBS)

tests_client_connect_test_SOURCES = tests/client/connect-test.c
tests_client_connect_test_CFLAGS = $(client_test_cflags)
tests_client_connect_test_LDADD = $(client_test_libs)

load = tests/client/load.c tests/client/load.h
tests_client_cut_test_SOURCES = tests/client/cut-test.c tests/client/cutter.c tests/client/cutter.h $(load)
tests_client_cut_test_CFLAGS = $(client_test_cflags)
tests_client_cut_test_LDADD = $(client_test_libs)

tests_client_restart_test_SOURCES = tests/client/restart-test.c $(load)
tests_client_restart_test_CFLAGS = $(client_test_cflags)
tests_client_restart_test_LDADD = $(client_test_libs)

tests_client_daemon_test_SOURCES = tests/client/daemon-test.c
tests_client_daemon_test_CFLAGS = $(client_test_cflags)
tests_client_daemon_test_LDADD = $(client_test_libs)

# The library's own insides: to tell it where the devices of a guest are that is none.
check_LTLIBRARIES += libinside.la
libinside_la_SOURCES = $(libdmabroker_la_SOURCES)
libinside_la_CFLAGS = $(libdmabroker_la_CFLAGS)
libinside_la_LIBADD = $(libdmabroker_la_LIBADD)

tests_client_guest_test_SOURCES = tests/client/guest-test.c tests/client/guest-double.c tests/client/guest-double.h $(load)
tests_client_guest_test_CFLAGS = $(client_test_cflags)
tests_client_guest_test_LDADD = libtest.la libinside.la libproto.la $(CMOCKA_LIBS) $(JANSSON_LIBS)

tests_client_fork_test_SOURCES = tests/client/fork-test.c
tests_client_fork_test_CFLAGS = $(client_test_cflags)
tests_client_fork_test_LDADD = $(tests_client_guest_test_LDADD)

scripted = tests/client/scripted.c tests/client/scripted.h tests/client/task.c tests/client/task.h
tests_client_exchange_test_SOURCES = tests/client/exchange-test.c $(scripted)
tests_client_exchange_test_CFLAGS = $(client_test_cflags)
tests_client_exchange_test_LDADD = $(client_test_libs)

tests_client_link_test_SOURCES = tests/client/link-test.c $(scripted)
tests_client_link_test_CFLAGS = $(client_test_cflags)
tests_client_link_test_LDADD = $(client_test_libs)

tests_client_swap_test_SOURCES = tests/client/swap-test.c $(scripted)
tests_client_swap_test_CFLAGS = $(client_test_cflags)
tests_client_swap_test_LDADD = $(client_test_libs)

tests_client_reconnect_test_SOURCES = tests/client/reconnect-test.c $(scripted)
tests_client_reconnect_test_CFLAGS = $(client_test_cflags)
tests_client_reconnect_test_LDADD = $(client_test_libs)

tests_client_hugetlb_test_SOURCES = tests/client/hugetlb-test.c
tests_client_hugetlb_test_CFLAGS = $(client_test_cflags)
tests_client_hugetlb_test_LDADD = $(client_test_libs)

tests_client_kill_test_SOURCES = tests/client/kill-test.c
tests_client_kill_test_CFLAGS = $(client_test_cflags)
tests_client_kill_test_LDADD = $(client_test_libs)

tests_client_any_model_SOURCES = tests/client/any-model.c
tests_client_any_model_CFLAGS = $(client_test_cflags)
tests_client_any_model_LDADD = $(client_test_libs) -lm

tests_client_any_test_SOURCES = tests/client/any-test.c
tests_client_any_test_CFLAGS = $(client_test_cflags)
tests_client_any_test_LDADD = $(client_test_libs)

tests_client_pool_model_SOURCES = tests/client/pool-model.c
tests_client_pool_model_CFLAGS = $(client_test_cflags)
tests_client_pool_model_LDADD = $(client_test_libs)

tests_client_pool_test_SOURCES = tests/client/pool-test.c
tests_client_pool_test_CFLAGS = $(client_test_cflags)
tests_client_pool_test_LDADD = $(client_test_libs)

fake_device = tests/client/fake-device.c tests/client/fake-device.h
tests_client_streaming_model_SOURCES = tests/client/streaming-model.c $(fake_device)
tests_client_streaming_model_CFLAGS = $(client_test_cflags)
tests_client_streaming_model_LDADD = $(client_test_libs)
tests_client_streaming_test_SOURCES = tests/client/streaming-test.c $(fake_device)
tests_client_streaming_test_CFLAGS = $(client_test_cflags)
tests_client_streaming_test_LDADD = $(client_test_libs)
endif
