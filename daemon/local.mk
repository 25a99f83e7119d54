# The domain: no I/O, no library but libc.
noinst_LTLIBRARIES += libcore.la
libcore_la_SOURCES = \
	daemon/core/arena.c daemon/core/arena.h \
	daemon/core/attempt.c \
	daemon/core/bar.c \
	daemon/core/book-check.c \
	daemon/core/bounce.c \
	daemon/core/broker.c daemon/core/broker.h \
	daemon/core/budget.c \
	daemon/core/check.c \
	daemon/core/coherent.c \
	daemon/core/device.c \
	daemon/core/failure.c daemon/core/failure.h \
	daemon/core/guarantee.c \
	daemon/core/grant.c \
	daemon/core/handle.c daemon/core/handle.h \
	daemon/core/lease.c \
	daemon/core/ledger.h \
	daemon/core/load.c \
	daemon/core/mapping.c \
	daemon/core/move.c \
	daemon/core/objects.h \
	daemon/core/owner.c \
	daemon/core/pool.c daemon/core/pool.h \
	daemon/core/pool-ask.c \
	daemon/core/pool-check.c \
	daemon/core/pool-view.c \
	daemon/core/region.c \
	daemon/core/region-users.c \
	daemon/core/quarantine.c \
	daemon/core/release.c \
	daemon/core/request.c \
	daemon/core/row.c daemon/core/row.h \
	daemon/core/save.c \
	daemon/core/slab.c \
	daemon/core/source.c daemon/core/source.h \
	daemon/core/supply.c \
	daemon/core/translator.h \
	daemon/core/tray.c \
	daemon/core/wait.c

# What is measured, over HTTP.
noinst_LTLIBRARIES += libmetrics.la
libmetrics_la_SOURCES = \
	daemon/metrics/address.c daemon/metrics/address.h \
	daemon/metrics/http.c daemon/metrics/http.h \
	daemon/metrics/page.c daemon/metrics/page.h
libmetrics_la_CFLAGS = $(AM_CFLAGS) $(UV_CFLAGS) $(MICROHTTPD_CFLAGS)
libmetrics_la_LIBADD = $(MICROHTTPD_LIBS)

# The daemon but for its main().
noinst_LTLIBRARIES += libdaemon.la
libdaemon_la_SOURCES = \
	daemon/config.c daemon/config.h \
	daemon/config-keys.c \
	daemon/config-value.c \
	daemon/ledger.c daemon/ledger.h \
	daemon/ledger-read.c daemon/ledger-read.h \
	daemon/log.c daemon/log.h \
	daemon/loop.c daemon/loop.h \
	daemon/memory.c daemon/memory.h \
	daemon/notify.c daemon/notify.h \
	daemon/options.c daemon/options.h \
	daemon/pressure.c daemon/pressure.h \
	daemon/privileges.c daemon/privileges.h \
	daemon/probes.h \
	daemon/state.c daemon/state.h
libdaemon_la_CFLAGS = $(AM_CFLAGS) $(INIH_CFLAGS) $(SYSTEMD_CFLAGS) $(UV_CFLAGS)
libdaemon_la_LIBADD = libmetrics.la libguest.la librpc.la libiommu.la libsource.la libcore.la $(INIH_LIBS) $(SYSTEMD_LIBS)

sbin_PROGRAMS += dmabrokerd
dmabrokerd_SOURCES = daemon/main.c
dmabrokerd_CFLAGS = $(AM_CFLAGS) $(UV_CFLAGS)
dmabrokerd_LDADD = libdaemon.la

include daemon/guest/local.mk
include daemon/iommu/local.mk
include daemon/source/local.mk
include daemon/rpc/local.mk
