# A real daemon, asked over its socket: one program per subject, one test per behaviour.
if HAVE_CMOCKA
rpc_tests =
check_PROGRAMS += $(rpc_tests)
TESTS += $(rpc_tests)

check_LTLIBRARIES += libask.la
libask_la_SOURCES = tests/rpc/ask.c tests/rpc/ask.h
libask_la_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS) $(JANSSON_CFLAGS)
libask_la_LIBADD = libtest.la $(CMOCKA_LIBS) $(JANSSON_LIBS)

rpc_tests += tests/rpc/hostile-test
tests_rpc_hostile_test_SOURCES = tests/rpc/hostile-test.c
tests_rpc_hostile_test_CFLAGS = $(libask_la_CFLAGS) -pthread
tests_rpc_hostile_test_LDADD = libask.la

rpc_tests += tests/rpc/flood-test
tests_rpc_flood_test_SOURCES = tests/rpc/flood-test.c
tests_rpc_flood_test_CFLAGS = $(libask_la_CFLAGS)
tests_rpc_flood_test_LDADD = libask.la

rpc_tests += tests/rpc/hugetlb-test
tests_rpc_hugetlb_test_SOURCES = tests/rpc/hugetlb-test.c
tests_rpc_hugetlb_test_CFLAGS = $(libask_la_CFLAGS)
tests_rpc_hugetlb_test_LDADD = libask.la

rpc_tests += tests/rpc/keeper-test
tests_rpc_keeper_test_SOURCES = tests/rpc/keeper-test.c
tests_rpc_keeper_test_CFLAGS = $(libask_la_CFLAGS)
tests_rpc_keeper_test_LDADD = libask.la

rpc_tests += tests/rpc/isolation-test
tests_rpc_isolation_test_SOURCES = tests/rpc/isolation-test.c
tests_rpc_isolation_test_CFLAGS = $(libask_la_CFLAGS)
tests_rpc_isolation_test_LDADD = libask.la

rpc_tests += tests/rpc/bad-input-test
tests_rpc_bad_input_test_SOURCES = tests/rpc/bad-input-test.c
tests_rpc_bad_input_test_CFLAGS = $(libask_la_CFLAGS)
tests_rpc_bad_input_test_LDADD = libask.la

rpc_tests += tests/rpc/strangers-test
tests_rpc_strangers_test_SOURCES = tests/rpc/strangers-test.c
tests_rpc_strangers_test_CFLAGS = $(libask_la_CFLAGS)
tests_rpc_strangers_test_LDADD = libask.la

rpc_tests += tests/rpc/session-test
tests_rpc_session_test_SOURCES = tests/rpc/session-test.c
tests_rpc_session_test_CFLAGS = $(libask_la_CFLAGS)
tests_rpc_session_test_LDADD = libask.la

rpc_tests += tests/rpc/survive-test
tests_rpc_survive_test_SOURCES = tests/rpc/survive-test.c
tests_rpc_survive_test_CFLAGS = $(libask_la_CFLAGS)
tests_rpc_survive_test_LDADD = libask.la

rpc_tests += tests/rpc/quota-test
tests_rpc_quota_test_SOURCES = tests/rpc/quota-test.c
tests_rpc_quota_test_CFLAGS = $(libask_la_CFLAGS)
tests_rpc_quota_test_LDADD = libask.la

rpc_tests += tests/rpc/quarantine-test
tests_rpc_quarantine_test_SOURCES = tests/rpc/quarantine-test.c
tests_rpc_quarantine_test_CFLAGS = $(libask_la_CFLAGS)
tests_rpc_quarantine_test_LDADD = libask.la

rpc_tests += tests/rpc/release-test
tests_rpc_release_test_SOURCES = tests/rpc/release-test.c
tests_rpc_release_test_CFLAGS = $(libask_la_CFLAGS)
tests_rpc_release_test_LDADD = libask.la

rpc_tests += tests/rpc/waiting-test
tests_rpc_waiting_test_SOURCES = tests/rpc/waiting-test.c
tests_rpc_waiting_test_CFLAGS = $(libask_la_CFLAGS)
tests_rpc_waiting_test_LDADD = libask.la

rpc_tests += tests/rpc/lifecycle-test
tests_rpc_lifecycle_test_SOURCES = tests/rpc/lifecycle-test.c
tests_rpc_lifecycle_test_CFLAGS = $(libask_la_CFLAGS)
tests_rpc_lifecycle_test_LDADD = libask.la

rpc_tests += tests/rpc/device-test
tests_rpc_device_test_SOURCES = tests/rpc/device-test.c
tests_rpc_device_test_CFLAGS = $(libask_la_CFLAGS)
tests_rpc_device_test_LDADD = libask.la

rpc_tests += tests/rpc/repeat-test
tests_rpc_repeat_test_SOURCES = tests/rpc/repeat-test.c
tests_rpc_repeat_test_CFLAGS = $(libask_la_CFLAGS)
tests_rpc_repeat_test_LDADD = libask.la

rpc_tests += tests/rpc/unread-test
tests_rpc_unread_test_SOURCES = tests/rpc/unread-test.c
tests_rpc_unread_test_CFLAGS = $(libask_la_CFLAGS)
tests_rpc_unread_test_LDADD = libask.la

rpc_tests += tests/rpc/pool-test
tests_rpc_pool_test_SOURCES = tests/rpc/pool-test.c
tests_rpc_pool_test_CFLAGS = $(libask_la_CFLAGS)
tests_rpc_pool_test_LDADD = libask.la

rpc_tests += tests/rpc/pool-waiting-test
tests_rpc_pool_waiting_test_SOURCES = tests/rpc/pool-waiting-test.c
tests_rpc_pool_waiting_test_CFLAGS = $(libask_la_CFLAGS)
tests_rpc_pool_waiting_test_LDADD = libask.la

rpc_tests += tests/rpc/bounce-test
tests_rpc_bounce_test_SOURCES = tests/rpc/bounce-test.c
tests_rpc_bounce_test_CFLAGS = $(libask_la_CFLAGS)
tests_rpc_bounce_test_LDADD = libask.la

rpc_tests += tests/rpc/mapping-test
tests_rpc_mapping_test_SOURCES = tests/rpc/mapping-test.c
tests_rpc_mapping_test_CFLAGS = $(libask_la_CFLAGS)
tests_rpc_mapping_test_LDADD = libask.la

rpc_tests += tests/rpc/grant-test
tests_rpc_grant_test_SOURCES = tests/rpc/grant-test.c
tests_rpc_grant_test_CFLAGS = $(libask_la_CFLAGS)
tests_rpc_grant_test_LDADD = libask.la

rpc_tests += tests/rpc/lease-test
tests_rpc_lease_test_SOURCES = tests/rpc/lease-test.c
tests_rpc_lease_test_CFLAGS = $(libask_la_CFLAGS)
tests_rpc_lease_test_LDADD = libask.la

rpc_tests += tests/rpc/events-test
tests_rpc_events_test_SOURCES = tests/rpc/events-test.c
tests_rpc_events_test_CFLAGS = $(libask_la_CFLAGS)
tests_rpc_events_test_LDADD = libask.la

rpc_tests += tests/rpc/vanish-test
tests_rpc_vanish_test_SOURCES = tests/rpc/vanish-test.c
tests_rpc_vanish_test_CFLAGS = $(libask_la_CFLAGS)
tests_rpc_vanish_test_LDADD = libask.la

rpc_tests += tests/rpc/journal-test
tests_rpc_journal_test_SOURCES = tests/rpc/journal-test.c
tests_rpc_journal_test_CFLAGS = $(libask_la_CFLAGS)
tests_rpc_journal_test_LDADD = libask.la

rpc_tests += tests/rpc/guest-test
tests_rpc_guest_test_SOURCES = tests/rpc/guest-test.c tests/rpc/qemu.c tests/rpc/qemu.h
tests_rpc_guest_test_CFLAGS = $(libask_la_CFLAGS)
tests_rpc_guest_test_LDADD = libask.la libproto.la

rpc_tests += tests/rpc/metrics-test
tests_rpc_metrics_test_SOURCES = tests/rpc/metrics-test.c
tests_rpc_metrics_test_CFLAGS = $(libask_la_CFLAGS)
tests_rpc_metrics_test_LDADD = libask.la
endif
