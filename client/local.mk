# libdmabroker, and dmabrokerctl in client/ctl
lib_LTLIBRARIES += libdmabroker.la
libdmabroker_la_SOURCES = \
	client/address.c client/address.h \
	client/area.c \
	client/agent.c client/agent.h \
	client/any.c client/any.h \
	client/block.c \
	client/bounce.c client/bounce.h \
	client/call.c \
	client/channel.c client/channel.h \
	client/clock.h \
	client/coherent.c client/coherent.h \
	client/device.c \
	client/error.c client/error.h \
	client/exchange.c \
	client/fork.c client/fork.h \
	client/grant.c \
	client/grant-window.c client/grant-window.h \
	client/hello.c client/hello.h \
	client/inspect.c \
	client/lease.c client/lease.h \
	client/link.c client/link.h \
	client/magazine.c client/magazine.h \
	client/memory.c client/memory.h \
	client/params.c client/params.h \
	client/pool.c client/pool.h \
	client/pool-info.c \
	client/port.c client/port.h \
	client/port-device.h \
	client/port-vchan.c \
	client/port-virtio.c \
	client/refill.c \
	client/region.c client/region.h \
	client/result.c client/result.h \
	client/session.c client/session.h \
	client/shadow.c client/shadow.h \
	client/slots.c client/slots.h \
	client/streaming.c client/streaming.h \
	client/tracking.c client/tracking.h \
	client/vchan-ring.c client/vchan-ring.h \
	client/window.c client/window.h \
	client/xen-device.h \
	client/xen-store.c client/xen-store.h
libdmabroker_la_CFLAGS = $(AM_CFLAGS) $(JANSSON_CFLAGS) -pthread -fvisibility=hidden
libdmabroker_la_LDFLAGS = $(AM_LDFLAGS) -pthread -version-info 0:0:0 \
	-Wl,--version-script=$(top_srcdir)/client/libdmabroker.map
libdmabroker_la_LIBADD = libproto.la $(JANSSON_LIBS)
# The list of symbols is part of what is linked.
libdmabroker_la_DEPENDENCIES = libproto.la client/libdmabroker.map
EXTRA_DIST += client/libdmabroker.map

pkgconfig_DATA = client/dmabroker.pc

bin_PROGRAMS += dmabrokerctl
dmabrokerctl_SOURCES = \
	client/ctl/actions.c client/ctl/actions.h \
	client/ctl/bar.c client/ctl/bar.h \
	client/ctl/ctl.c client/ctl/ctl.h \
	client/ctl/devices.h \
	client/ctl/hold.c client/ctl/hold.h \
	client/ctl/keeper.c client/ctl/keeper.h \
	client/ctl/lists.c client/ctl/lists.h \
	client/ctl/main.c \
	client/ctl/memory-map.c client/ctl/memory-map.h \
	client/ctl/show.c client/ctl/show.h \
	client/ctl/top-sampler.c client/ctl/top-sampler.h \
	client/ctl/top-screen.c client/ctl/top-screen.h \
	client/ctl/top-views.c client/ctl/top-views.h \
	client/ctl/verb-alloc.c \
	client/ctl/verb-attach.c \
	client/ctl/verb-bench.c \
	client/ctl/verb-bounces.c \
	client/ctl/verb-call.c \
	client/ctl/verb-devices.c \
	client/ctl/verb-exchange.c \
	client/ctl/verb-grants.c \
	client/ctl/verb-guests.c \
	client/ctl/verb-help.c \
	client/ctl/verb-lists.c \
	client/ctl/verb-map.c \
	client/ctl/verb-mappings.c \
	client/ctl/verb-pools.c \
	client/ctl/verb-quarantine.c \
	client/ctl/verb-quota.c \
	client/ctl/verb-release.c \
	client/ctl/verb-stats.c \
	client/ctl/verb-status.c \
	client/ctl/verb-swap.c \
	client/ctl/verb-top.c \
	client/ctl/verb-watch.c \
	client/ctl/verbs.c client/ctl/verbs.h
dmabrokerctl_CFLAGS = $(AM_CFLAGS) $(JANSSON_CFLAGS) $(SMARTCOLS_CFLAGS) $(NCURSES_CFLAGS) -pthread
dmabrokerctl_LDADD = libdmabroker.la libproto.la $(JANSSON_LIBS) $(SMARTCOLS_LIBS) $(NCURSES_LIBS)

dist_bashcompletion_DATA = client/ctl/completion/dmabrokerctl.bash
dist_zshcompletion_DATA = client/ctl/completion/_dmabrokerctl
