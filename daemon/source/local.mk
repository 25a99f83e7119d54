# Where memory comes from: each source is one table of operations, listed in sources.c.
noinst_LTLIBRARIES += libsource.la
libsource_la_SOURCES = \
	daemon/source/anonymous.c \
	daemon/source/cma.c daemon/source/cma.h \
	daemon/source/copy.c daemon/source/copy.h \
	daemon/source/dma-heap.c \
	daemon/source/host.c daemon/source/host.h \
	daemon/source/huge.c daemon/source/huge.h \
	daemon/source/hugepool.c daemon/source/hugepool.h \
	daemon/source/hugetlb.c \
	daemon/source/hugetlb-options.c daemon/source/hugetlb-options.h \
	daemon/source/hugetlb-record.c daemon/source/hugetlb-record.h \
	daemon/source/keep.c daemon/source/keep.h \
	daemon/source/keep-store.c daemon/source/keep-store.h \
	daemon/source/kept.c daemon/source/kept.h \
	daemon/source/keeper.c daemon/source/keeper.h \
	daemon/source/layout.c daemon/source/layout.h \
	daemon/source/mark.c daemon/source/mark.h \
	daemon/source/memfile.c daemon/source/memfile.h \
	daemon/source/numa.c daemon/source/numa.h \
	daemon/source/option.c daemon/source/option.h \
	daemon/source/pagemap.c daemon/source/pagemap.h \
	daemon/source/physmem.c daemon/source/physmem.h \
	daemon/source/pin.c daemon/source/pin.h \
	daemon/source/sim.c \
	daemon/source/sources.c daemon/source/sources.h \
	daemon/source/stash.c daemon/source/stash.h \
	daemon/source/worker.c daemon/source/worker.h
if HAVE_XEN
libsource_la_SOURCES += \
	daemon/source/xen.c \
	daemon/source/xen-domain.c daemon/source/xen-domain.h \
	daemon/source/xen-frames.c daemon/source/xen-frames.h \
	daemon/source/xen-free.c daemon/source/xen-free.h \
	daemon/source/xen-grants.c daemon/source/xen-grants.h \
	daemon/source/xen-identity.c daemon/source/xen-identity.h \
	daemon/source/xen-library.c daemon/source/xen-library.h \
	daemon/source/xen-member.c daemon/source/xen-member.h \
	daemon/source/xen-options.c daemon/source/xen-options.h \
	daemon/source/xen-stock.c daemon/source/xen-stock.h \
	daemon/source/xen-table.c daemon/source/xen-table.h
endif
libsource_la_CFLAGS = $(AM_CFLAGS) $(SYSTEMD_CFLAGS) $(XEN_CFLAGS)
libsource_la_LIBADD = $(SYSTEMD_LIBS)
