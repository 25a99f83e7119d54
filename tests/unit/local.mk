# what is built and run from tests/unit: one block per test

if HAVE_CMOCKA
check_PROGRAMS += tests/unit/source-sim-test
TESTS += tests/unit/source-sim-test
tests_unit_source_sim_test_SOURCES = tests/unit/source-sim-test.c
tests_unit_source_sim_test_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_source_sim_test_LDADD = libsource.la libcore.la $(CMOCKA_LIBS)

check_PROGRAMS += tests/unit/source-hugetlb-test
TESTS += tests/unit/source-hugetlb-test
tests_unit_source_hugetlb_test_SOURCES = tests/unit/source-hugetlb-test.c
tests_unit_source_hugetlb_test_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_source_hugetlb_test_LDADD = libtest.la libsource.la libcore.la $(CMOCKA_LIBS)
endif

if HAVE_CMOCKA

check_PROGRAMS += tests/unit/arena-model
TESTS += tests/unit/arena-model
tests_unit_arena_model_SOURCES = tests/unit/arena-model.c
tests_unit_arena_model_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_arena_model_LDADD = libcore.la $(CMOCKA_LIBS)

endif

if HAVE_CMOCKA
check_PROGRAMS += tests/unit/broker-test
TESTS += tests/unit/broker-test
tests_unit_broker_test_SOURCES = tests/unit/broker-test.c
tests_unit_broker_test_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_broker_test_LDADD = libiommu.la libsource.la libcore.la $(CMOCKA_LIBS)
endif
