# libdmabroker, and dmabrokerctl in client/ctl
lib_LTLIBRARIES += libdmabroker.la
libdmabroker_la_SOURCES = \
	client/address.c client/address.h \
	client/call.c \
	client/channel.c client/channel.h \
	client/coherent.c \
	client/device.c \
	client/error.c client/error.h \
	client/link.c client/link.h \
	client/params.c client/params.h \
	client/region.c client/region.h \
	client/result.c client/result.h \
	client/session.c client/session.h
libdmabroker_la_CFLAGS = $(AM_CFLAGS) $(JANSSON_CFLAGS) -pthread -fvisibility=hidden
libdmabroker_la_LDFLAGS = $(AM_LDFLAGS) -pthread -version-info 0:0:0 \
	-Wl,--version-script=$(top_srcdir)/client/libdmabroker.map
libdmabroker_la_LIBADD = libproto.la $(JANSSON_LIBS)
# The list of symbols is part of what is linked.
libdmabroker_la_DEPENDENCIES = libproto.la client/libdmabroker.map
EXTRA_DIST += client/libdmabroker.map

pkgconfig_DATA = client/dmabroker.pc
