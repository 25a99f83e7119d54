dist_man_MANS += docs/dmabroker.conf.5 docs/dmabrokerd.8
dist_man_MANS += docs/dmabrokerctl.1 docs/libdmabroker.3
dist_doc_DATA += docs/alloc-latency.bt docs/dmabroker-dashboard.json
EXTRA_DIST += docs/example.c
EXTRA_DIST += docs/architecture.md
EXTRA_DIST += docs/kvm.md docs/xen.md docs/guest-example.c
EXTRA_DIST += docs/user-space-driver.md docs/driver-before.c docs/driver-after.c docs/driver-device.c docs/driver-device.h

# ./run demo shows it; the test driver runs it too.
check_PROGRAMS += docs/demo
docs_demo_SOURCES = docs/demo.c
docs_demo_LDADD = libdmabroker.la
