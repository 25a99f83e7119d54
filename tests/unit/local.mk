# what is built and run from tests/unit: one block per test

if HAVE_CMOCKA
check_PROGRAMS += tests/unit/source-sim-test
TESTS += tests/unit/source-sim-test
tests_unit_source_sim_test_SOURCES = tests/unit/source-sim-test.c
tests_unit_source_sim_test_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_source_sim_test_LDADD = libsource.la libcore.la $(CMOCKA_LIBS)

check_PROGRAMS += tests/unit/keep-test
TESTS += tests/unit/keep-test
tests_unit_keep_test_SOURCES = tests/unit/keep-test.c
tests_unit_keep_test_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_keep_test_LDADD = libsource.la libcore.la $(CMOCKA_LIBS)
tests_unit_keep_test_LDFLAGS = $(AM_LDFLAGS) \
	-Wl,--wrap=sendmsg,--wrap=recvmsg,--wrap=socketpair,--wrap=_Fork,--wrap=pidfd_send_signal,--wrap=renameat,--wrap=close

keep_fixture = tests/unit/keep-fixture.c tests/unit/keep-fixture.h

check_PROGRAMS += tests/unit/source-keep-test
TESTS += tests/unit/source-keep-test
tests_unit_source_keep_test_SOURCES = tests/unit/source-keep-test.c $(keep_fixture)
tests_unit_source_keep_test_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_source_keep_test_LDADD = libsource.la libcore.la $(CMOCKA_LIBS)

check_PROGRAMS += tests/unit/source-hugetlb-test
TESTS += tests/unit/source-hugetlb-test
tests_unit_source_hugetlb_test_SOURCES = tests/unit/source-hugetlb-test.c
tests_unit_source_hugetlb_test_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_source_hugetlb_test_LDADD = libtest.la libsource.la libcore.la $(CMOCKA_LIBS)
tests_unit_source_hugetlb_test_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=fallocate,--wrap=pread,--wrap=read

check_PROGRAMS += tests/unit/source-hugetlb-keep-test
TESTS += tests/unit/source-hugetlb-keep-test
tests_unit_source_hugetlb_keep_test_SOURCES = tests/unit/source-hugetlb-keep-test.c $(keep_fixture)
tests_unit_source_hugetlb_keep_test_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_source_hugetlb_keep_test_LDADD = libtest.la libsource.la libcore.la $(CMOCKA_LIBS)

check_PROGRAMS += tests/unit/source-mark-test
TESTS += tests/unit/source-mark-test
tests_unit_source_mark_test_SOURCES = tests/unit/source-mark-test.c
tests_unit_source_mark_test_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_source_mark_test_LDADD = libsource.la libcore.la $(CMOCKA_LIBS)

# With a kernel of its own instead of huge.c, pagemap.c and numa.c.
check_PROGRAMS += tests/unit/source-stash-test
TESTS += tests/unit/source-stash-test
tests_unit_source_stash_test_SOURCES = tests/unit/source-stash-test.c daemon/source/stash.c
tests_unit_source_stash_test_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_source_stash_test_LDADD = libcore.la $(CMOCKA_LIBS)

check_PROGRAMS += tests/unit/grant-test
TESTS += tests/unit/grant-test
tests_unit_grant_test_SOURCES = tests/unit/grant-test.c tests/unit/ledger-fixture.c tests/unit/ledger-fixture.h
tests_unit_grant_test_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_grant_test_LDADD = libiommu.la libcore.la $(CMOCKA_LIBS)

check_PROGRAMS += tests/unit/arena-test
TESTS += tests/unit/arena-test
tests_unit_arena_test_SOURCES = tests/unit/arena-test.c
tests_unit_arena_test_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_arena_test_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc,--wrap=reallocarray
tests_unit_arena_test_LDADD = libcore.la $(CMOCKA_LIBS)

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

check_PROGRAMS += tests/unit/broker-choice-test
TESTS += tests/unit/broker-choice-test
tests_unit_broker_choice_test_SOURCES = tests/unit/broker-choice-test.c
tests_unit_broker_choice_test_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_broker_choice_test_LDADD = libiommu.la libsource.la libcore.la $(CMOCKA_LIBS)

core_fixture = tests/unit/core-fixture.c tests/unit/core-fixture.h

check_PROGRAMS += tests/unit/awaited-test
TESTS += tests/unit/awaited-test
tests_unit_awaited_test_SOURCES = tests/unit/awaited-test.c $(core_fixture)
tests_unit_awaited_test_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_awaited_test_LDADD = libiommu.la libsource.la libcore.la $(CMOCKA_LIBS)

check_PROGRAMS += tests/unit/bounce-test
TESTS += tests/unit/bounce-test
tests_unit_bounce_test_SOURCES = tests/unit/bounce-test.c $(core_fixture)
tests_unit_bounce_test_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_bounce_test_LDADD = libiommu.la libsource.la libcore.la $(CMOCKA_LIBS)

check_PROGRAMS += tests/unit/bounce-chaos
TESTS += tests/unit/bounce-chaos
tests_unit_bounce_chaos_SOURCES = tests/unit/bounce-chaos.c $(core_fixture)
tests_unit_bounce_chaos_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_bounce_chaos_LDADD = libiommu.la libsource.la libcore.la $(CMOCKA_LIBS)

check_PROGRAMS += tests/unit/bounce-memory-test
TESTS += tests/unit/bounce-memory-test
tests_unit_bounce_memory_test_SOURCES = tests/unit/bounce-memory-test.c $(core_fixture)
tests_unit_bounce_memory_test_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_bounce_memory_test_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc
tests_unit_bounce_memory_test_LDADD = libiommu.la libsource.la libcore.la $(CMOCKA_LIBS)

check_PROGRAMS += tests/unit/row-damage-test
TESTS += tests/unit/row-damage-test
tests_unit_row_damage_test_SOURCES = tests/unit/row-damage-test.c
tests_unit_row_damage_test_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_row_damage_test_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=realloc
tests_unit_row_damage_test_LDADD = libcore.la $(CMOCKA_LIBS)

check_PROGRAMS += tests/unit/quota-test
TESTS += tests/unit/quota-test
tests_unit_quota_test_SOURCES = tests/unit/quota-test.c $(core_fixture)
tests_unit_quota_test_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_quota_test_LDADD = libiommu.la libsource.la libcore.la $(CMOCKA_LIBS)

check_PROGRAMS += tests/unit/guarantee-test
TESTS += tests/unit/guarantee-test
tests_unit_guarantee_test_SOURCES = tests/unit/guarantee-test.c $(core_fixture)
tests_unit_guarantee_test_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_guarantee_test_LDADD = libiommu.la libsource.la libcore.la $(CMOCKA_LIBS)

check_PROGRAMS += tests/unit/quarantine-test
TESTS += tests/unit/quarantine-test
tests_unit_quarantine_test_SOURCES = tests/unit/quarantine-test.c $(core_fixture)
tests_unit_quarantine_test_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_quarantine_test_LDADD = libiommu.la libsource.la libcore.la $(CMOCKA_LIBS)

check_PROGRAMS += tests/unit/release-test
TESTS += tests/unit/release-test
tests_unit_release_test_SOURCES = tests/unit/release-test.c $(core_fixture)
tests_unit_release_test_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_release_test_LDADD = libiommu.la libsource.la libcore.la $(CMOCKA_LIBS)

check_PROGRAMS += tests/unit/ledger-chaos
TESTS += tests/unit/ledger-chaos
tests_unit_ledger_chaos_SOURCES = tests/unit/ledger-chaos.c tests/unit/ledger-fixture.c tests/unit/ledger-fixture.h \
	$(keep_fixture)
tests_unit_ledger_chaos_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_ledger_chaos_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc
tests_unit_ledger_chaos_LDADD = libiommu.la libsource.la libcore.la $(CMOCKA_LIBS)
check_PROGRAMS += tests/unit/move-test
TESTS += tests/unit/move-test
tests_unit_move_test_SOURCES = tests/unit/move-test.c $(core_fixture)
tests_unit_move_test_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_move_test_LDADD = libiommu.la libsource.la libcore.la $(CMOCKA_LIBS)

check_PROGRAMS += tests/unit/swap-test
TESTS += tests/unit/swap-test
tests_unit_swap_test_SOURCES = tests/unit/swap-test.c $(core_fixture)
tests_unit_swap_test_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_swap_test_LDADD = libiommu.la libsource.la libcore.la $(CMOCKA_LIBS)

check_PROGRAMS += tests/unit/iova-test
TESTS += tests/unit/iova-test
tests_unit_iova_test_SOURCES = tests/unit/iova-test.c
tests_unit_iova_test_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_iova_test_LDADD = libiommu.la libsource.la libcore.la $(CMOCKA_LIBS)

check_PROGRAMS += tests/unit/translate-test
TESTS += tests/unit/translate-test
tests_unit_translate_test_SOURCES = tests/unit/translate-test.c $(core_fixture)
tests_unit_translate_test_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_translate_test_LDADD = libiommu.la libsource.la libcore.la $(CMOCKA_LIBS)

check_PROGRAMS += tests/unit/guest-memory-test
TESTS += tests/unit/guest-memory-test
tests_unit_guest_memory_test_SOURCES = tests/unit/guest-memory-test.c $(core_fixture)
tests_unit_guest_memory_test_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_guest_memory_test_LDADD = libguest.la libiommu.la libsource.la libcore.la $(CMOCKA_LIBS)

check_PROGRAMS += tests/unit/translate-keep-test
TESTS += tests/unit/translate-keep-test
tests_unit_translate_keep_test_SOURCES = tests/unit/translate-keep-test.c tests/unit/ledger-fixture.c \
	tests/unit/ledger-fixture.h $(keep_fixture)
tests_unit_translate_keep_test_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_translate_keep_test_LDADD = libiommu.la libsource.la libcore.la $(CMOCKA_LIBS)

check_PROGRAMS += tests/unit/mapping-test
TESTS += tests/unit/mapping-test
tests_unit_mapping_test_SOURCES = tests/unit/mapping-test.c $(core_fixture)
tests_unit_mapping_test_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_mapping_test_LDADD = libiommu.la libsource.la libcore.la $(CMOCKA_LIBS)

check_PROGRAMS += tests/unit/pool-test
TESTS += tests/unit/pool-test
tests_unit_pool_test_SOURCES = tests/unit/pool-test.c
tests_unit_pool_test_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_pool_test_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc
tests_unit_pool_test_LDADD = libiommu.la libsource.la libcore.la $(CMOCKA_LIBS)

check_PROGRAMS += tests/unit/pool-model
TESTS += tests/unit/pool-model
tests_unit_pool_model_SOURCES = tests/unit/pool-model.c
tests_unit_pool_model_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_pool_model_LDADD = libiommu.la libsource.la libcore.la $(CMOCKA_LIBS)
check_PROGRAMS += tests/unit/bounce-model
TESTS += tests/unit/bounce-model
tests_unit_bounce_model_SOURCES = tests/unit/bounce-model.c $(core_fixture)
tests_unit_bounce_model_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_bounce_model_LDADD = libiommu.la libsource.la libcore.la $(CMOCKA_LIBS)
endif

if HAVE_CMOCKA
check_PROGRAMS += tests/unit/rate-test
TESTS += tests/unit/rate-test
tests_unit_rate_test_SOURCES = tests/unit/rate-test.c daemon/rpc/rate.c
tests_unit_rate_test_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_rate_test_LDADD = $(CMOCKA_LIBS)
endif

if HAVE_CMOCKA
check_PROGRAMS += tests/unit/pressure-test
TESTS += tests/unit/pressure-test
tests_unit_pressure_test_SOURCES = tests/unit/pressure-test.c
tests_unit_pressure_test_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS) $(UV_CFLAGS)
tests_unit_pressure_test_LDADD = libdaemon.la $(CMOCKA_LIBS) $(UV_LIBS)
endif

# The protocol.
if HAVE_CMOCKA
proto_tests = \
	tests/unit/proto-codec \
	tests/unit/proto-dispatch \
	tests/unit/proto-fdpass \
	tests/unit/proto-frame \
	tests/unit/proto-json \
	tests/unit/proto-memory \
	tests/unit/proto-qmp \
	tests/unit/proto-quick \
	tests/unit/proto-spec
check_PROGRAMS += $(proto_tests)
TESTS += $(proto_tests)
proto_test_peer = tests/unit/proto-peer.c tests/unit/proto-peer.h
proto_test_cflags = $(AM_CFLAGS) $(CMOCKA_CFLAGS) $(JANSSON_CFLAGS)
proto_test_libs = libproto.la $(CMOCKA_LIBS) $(JANSSON_LIBS)
tests_unit_proto_codec_SOURCES = tests/unit/proto-codec.c $(proto_test_peer)
tests_unit_proto_codec_CFLAGS = $(proto_test_cflags)
tests_unit_proto_codec_LDADD = $(proto_test_libs)
tests_unit_proto_dispatch_SOURCES = tests/unit/proto-dispatch.c $(proto_test_peer)
tests_unit_proto_dispatch_CFLAGS = $(proto_test_cflags)
tests_unit_proto_dispatch_LDADD = $(proto_test_libs)
tests_unit_proto_fdpass_SOURCES = tests/unit/proto-fdpass.c
tests_unit_proto_fdpass_CFLAGS = $(proto_test_cflags)
tests_unit_proto_fdpass_LDADD = $(proto_test_libs)
tests_unit_proto_qmp_SOURCES = tests/unit/proto-qmp.c
tests_unit_proto_qmp_CFLAGS = $(proto_test_cflags)
tests_unit_proto_qmp_LDADD = $(proto_test_libs)
tests_unit_proto_quick_SOURCES = tests/unit/proto-quick.c $(proto_test_peer)
tests_unit_proto_quick_CFLAGS = $(proto_test_cflags)
tests_unit_proto_quick_LDADD = $(proto_test_libs)
tests_unit_proto_frame_SOURCES = tests/unit/proto-frame.c
tests_unit_proto_frame_CFLAGS = $(proto_test_cflags)
tests_unit_proto_frame_LDADD = $(proto_test_libs)
tests_unit_proto_json_SOURCES = tests/unit/proto-json.c $(proto_test_peer)
tests_unit_proto_json_CFLAGS = $(proto_test_cflags)
tests_unit_proto_json_LDADD = $(proto_test_libs)
tests_unit_proto_memory_SOURCES = tests/unit/proto-memory.c $(proto_test_peer)
tests_unit_proto_memory_CFLAGS = $(proto_test_cflags)
tests_unit_proto_memory_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc
tests_unit_proto_memory_LDADD = $(proto_test_libs)
tests_unit_proto_spec_SOURCES = tests/unit/proto-spec.c $(proto_test_peer)
tests_unit_proto_spec_CFLAGS = $(proto_test_cflags)
tests_unit_proto_spec_LDADD = $(proto_test_libs)
endif

if HAVE_CMOCKA
check_PROGRAMS += tests/unit/daemon-test
TESTS += tests/unit/daemon-test
tests_unit_daemon_test_SOURCES = tests/unit/daemon-test.c
tests_unit_daemon_test_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS) $(UV_CFLAGS)
tests_unit_daemon_test_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=malloc
tests_unit_daemon_test_LDADD = libdaemon.la $(CMOCKA_LIBS)
endif

if HAVE_CMOCKA
check_PROGRAMS += tests/unit/ledger-test
TESTS += tests/unit/ledger-test
tests_unit_ledger_test_SOURCES = tests/unit/ledger-test.c
tests_unit_ledger_test_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_ledger_test_LDADD = libdaemon.la $(CMOCKA_LIBS)
endif

# Guests.
if HAVE_CMOCKA
check_PROGRAMS += tests/unit/ivshmem-test
TESTS += tests/unit/ivshmem-test
tests_unit_ivshmem_test_SOURCES = tests/unit/ivshmem-test.c
tests_unit_ivshmem_test_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS) $(UV_CFLAGS)
tests_unit_ivshmem_test_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=sendmsg
tests_unit_ivshmem_test_LDADD = libdaemon.la $(CMOCKA_LIBS) $(UV_LIBS)

check_PROGRAMS += tests/unit/qmp-test
TESTS += tests/unit/qmp-test
tests_unit_qmp_test_SOURCES = tests/unit/qmp-test.c tests/unit/fake-qemu.c tests/unit/fake-qemu.h
tests_unit_qmp_test_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS) $(UV_CFLAGS)
tests_unit_qmp_test_LDADD = libdaemon.la $(CMOCKA_LIBS) $(UV_LIBS)
endif

# The library's own parts.
if HAVE_CMOCKA
check_PROGRAMS += tests/unit/slots-test tests/unit/slots-model
TESTS += tests/unit/slots-test tests/unit/slots-model
tests_unit_slots_test_SOURCES = tests/unit/slots-test.c client/slots.c client/slots.h
tests_unit_slots_test_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS) -pthread
tests_unit_slots_test_LDADD = $(CMOCKA_LIBS)
tests_unit_slots_model_SOURCES = tests/unit/slots-model.c client/slots.c client/slots.h
tests_unit_slots_model_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_slots_model_LDADD = $(CMOCKA_LIBS)
endif

if HAVE_CMOCKA
check_PROGRAMS += tests/unit/xen-store-test
TESTS += tests/unit/xen-store-test
tests_unit_xen_store_test_SOURCES = tests/unit/xen-store-test.c client/xen-store.c client/xen-store.h
tests_unit_xen_store_test_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS) -pthread
tests_unit_xen_store_test_LDADD = $(CMOCKA_LIBS)
endif

# Guests. Those of libvirt use the library's own test driver.
if HAVE_CMOCKA
check_PROGRAMS += tests/unit/guest-xml-test
TESTS += tests/unit/guest-xml-test
tests_unit_guest_xml_test_SOURCES = tests/unit/guest-xml-test.c
tests_unit_guest_xml_test_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS)
tests_unit_guest_xml_test_LDADD = libguest-libvirt.la $(CMOCKA_LIBS)

check_PROGRAMS += tests/unit/guest-policy-test
TESTS += tests/unit/guest-policy-test
tests_unit_guest_policy_test_SOURCES = tests/unit/guest-policy-test.c
tests_unit_guest_policy_test_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS) $(UV_CFLAGS)
tests_unit_guest_policy_test_LDADD = libdaemon.la $(CMOCKA_LIBS)

check_PROGRAMS += tests/unit/guest-libvirt-test
TESTS += tests/unit/guest-libvirt-test
tests_unit_guest_libvirt_test_SOURCES = tests/unit/guest-libvirt-test.c $(core_fixture)
tests_unit_guest_libvirt_test_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS) $(UV_CFLAGS)
tests_unit_guest_libvirt_test_LDADD = libdaemon.la $(CMOCKA_LIBS)

if HAVE_XEN
xen_tests = tests/unit/xen-absent-test tests/unit/xen-source-test tests/unit/xen-table-test \
	tests/unit/xen-tracker-test tests/unit/guest-xen-test tests/unit/vchan-ring-test \
	tests/unit/vchan-server-test tests/unit/xen-channel-test tests/unit/xen-frames-test \
	tests/unit/xen-foreign-test
check_PROGRAMS += $(xen_tests)
TESTS += $(xen_tests)
tests_unit_xen_absent_test_SOURCES = tests/unit/xen-absent-test.c
tests_unit_xen_absent_test_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS) $(XEN_CFLAGS)
tests_unit_xen_absent_test_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=access,--wrap=dlopen,--wrap=dlerror
tests_unit_xen_absent_test_LDADD = libsource.la libcore.la $(CMOCKA_LIBS)
tests_unit_xen_source_test_SOURCES = tests/unit/xen-source-test.c tests/unit/fake-xen.c tests/unit/fake-xen.h
tests_unit_xen_source_test_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS) $(XEN_CFLAGS)
tests_unit_xen_source_test_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=xen_library
tests_unit_xen_source_test_LDADD = libsource.la libcore.la $(CMOCKA_LIBS)
tests_unit_xen_frames_test_SOURCES = tests/unit/xen-frames-test.c tests/unit/fake-xen.c tests/unit/fake-xen.h
tests_unit_xen_frames_test_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS) $(XEN_CFLAGS)
tests_unit_xen_frames_test_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=xen_library
tests_unit_xen_frames_test_LDADD = libsource.la libcore.la $(CMOCKA_LIBS)
tests_unit_xen_foreign_test_SOURCES = tests/unit/xen-foreign-test.c tests/unit/fake-xen.c tests/unit/fake-xen.h
tests_unit_xen_foreign_test_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS) $(UV_CFLAGS) $(XEN_CFLAGS)
tests_unit_xen_foreign_test_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=xen_library
tests_unit_xen_foreign_test_LDADD = libdaemon.la $(CMOCKA_LIBS)
tests_unit_xen_table_test_SOURCES = tests/unit/xen-table-test.c
tests_unit_xen_table_test_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS) $(XEN_CFLAGS) -pthread
tests_unit_xen_table_test_LDADD = libsource.la libcore.la $(CMOCKA_LIBS)
tests_unit_guest_xen_test_SOURCES = tests/unit/guest-xen-test.c $(core_fixture)
tests_unit_guest_xen_test_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS) $(UV_CFLAGS) -pthread
tests_unit_guest_xen_test_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=xen_unavailable,--wrap=xen_tracker_new,--wrap=xen_tracker_close \
	-Wl,--wrap=xen_grants_give,--wrap=xen_grants_find,--wrap=xen_grants_revoke,--wrap=xen_grants_look \
	-Wl,--wrap=xen_grants_find_crossed,--wrap=xen_grants_look_tables,--wrap=xen_channel_new,--wrap=xen_channel_close \
	-Wl,--wrap=xen_foreign_open,--wrap=xen_foreign_look,--wrap=xen_foreign_close,--wrap=xen_share_open,--wrap=xen_share_end,--wrap=xen_frames_exchange \
	-Wl,--wrap=xen_tracker_repeat,--wrap=xen_check_guest,--wrap=uv_now
tests_unit_guest_xen_test_LDADD = libdaemon.la $(CMOCKA_LIBS)
tests_unit_xen_tracker_test_SOURCES = tests/unit/xen-tracker-test.c
tests_unit_xen_tracker_test_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS) $(UV_CFLAGS) $(XEN_CFLAGS) -pthread
tests_unit_xen_tracker_test_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=xen_library,--wrap=connect
tests_unit_xen_tracker_test_LDADD = libdaemon.la $(CMOCKA_LIBS)
fake_vchan = tests/unit/fake-vchan.c tests/unit/fake-vchan.h client/vchan-ring.c client/vchan-ring.h
fake_vchan_wraps = -Wl,--wrap=vchan_library,--wrap=xen_store_is_dead,--wrap=calloc
tests_unit_vchan_server_test_SOURCES = tests/unit/vchan-server-test.c $(fake_vchan)
tests_unit_vchan_server_test_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS) $(UV_CFLAGS) $(XEN_CFLAGS) -pthread
tests_unit_vchan_server_test_LDFLAGS = $(AM_LDFLAGS) $(fake_vchan_wraps)
tests_unit_vchan_server_test_LDADD = libdaemon.la -lxenvchan $(CMOCKA_LIBS)
tests_unit_xen_channel_test_SOURCES = tests/unit/xen-channel-test.c $(fake_vchan)
tests_unit_xen_channel_test_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS) $(UV_CFLAGS) $(XEN_CFLAGS) -pthread
tests_unit_xen_channel_test_LDFLAGS = $(AM_LDFLAGS) $(fake_vchan_wraps) -Wl,--wrap=xen_check_guest,--wrap=uv_timer_start,--wrap=loop_watch
tests_unit_xen_channel_test_LDADD = libdaemon.la -lxenvchan $(CMOCKA_LIBS)
tests_unit_vchan_ring_test_SOURCES = tests/unit/vchan-ring-test.c client/vchan-ring.c client/vchan-ring.h
tests_unit_vchan_ring_test_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS) $(XEN_CFLAGS) -pthread
tests_unit_vchan_ring_test_LDADD = -lxenvchan $(CMOCKA_LIBS)
endif

if HAVE_LIBVIRT
libvirt_tests = \
	tests/unit/libvirt-absent-test \
	tests/unit/libvirt-loop-test \
	tests/unit/libvirt-memory-test \
	tests/unit/libvirt-test
check_PROGRAMS += $(libvirt_tests)
TESTS += $(libvirt_tests)
tests_unit_libvirt_absent_test_SOURCES = tests/unit/libvirt-absent-test.c
tests_unit_libvirt_absent_test_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS) $(UV_CFLAGS)
tests_unit_libvirt_absent_test_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=dlopen,--wrap=dlerror
tests_unit_libvirt_absent_test_LDADD = libguest-libvirt.la libdaemon.la $(CMOCKA_LIBS)
tests_unit_libvirt_memory_test_SOURCES = tests/unit/libvirt-memory-test.c tests/unit/libvirt-races.c
tests_unit_libvirt_memory_test_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS) $(LIBVIRT_CFLAGS) $(UV_CFLAGS) -pthread
tests_unit_libvirt_memory_test_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=malloc,--wrap=calloc,--wrap=strdup
tests_unit_libvirt_memory_test_LDADD = libguest-libvirt.la libdaemon.la $(CMOCKA_LIBS) $(LIBVIRT_LIBS)
tests_unit_libvirt_loop_test_SOURCES = tests/unit/libvirt-loop-test.c
tests_unit_libvirt_loop_test_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS) $(LIBVIRT_CFLAGS) -pthread
tests_unit_libvirt_loop_test_LDADD = libguest-libvirt.la libdaemon.la $(CMOCKA_LIBS)
tests_unit_libvirt_test_SOURCES = tests/unit/libvirt-test.c tests/unit/libvirt-races.c
tests_unit_libvirt_test_CFLAGS = $(AM_CFLAGS) $(CMOCKA_CFLAGS) $(LIBVIRT_CFLAGS) $(UV_CFLAGS) -pthread
tests_unit_libvirt_test_LDADD = libguest-libvirt.la libdaemon.la $(CMOCKA_LIBS) $(LIBVIRT_LIBS)
endif
endif
