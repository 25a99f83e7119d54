# Peers on sockets: who they are, what they ask, what they are answered.
noinst_LTLIBRARIES += librpc.la
librpc_la_SOURCES = \
	daemon/alive.c daemon/alive.h \
	daemon/rpc/connection.c daemon/rpc/connection.h \
	daemon/rpc/error.c daemon/rpc/error.h \
	daemon/rpc/events.c daemon/rpc/events.h \
	daemon/rpc/identity.c daemon/rpc/identity.h \
	daemon/rpc/json-memory.c daemon/rpc/json-memory.h \
	daemon/rpc/latency.c daemon/rpc/latency.h \
	daemon/rpc/listener.c daemon/rpc/listener.h \
	daemon/rpc/method.c daemon/rpc/method.h \
	daemon/rpc/method-bounce.c \
	daemon/rpc/method-broker.c \
	daemon/rpc/method-coherent.c \
	daemon/rpc/method-debug.c \
	daemon/rpc/method-device.c \
	daemon/rpc/method-events.c \
	daemon/rpc/method-exchange.c \
	daemon/rpc/method-grant.c \
	daemon/rpc/method-guest.c \
	daemon/rpc/method-lease.c \
	daemon/rpc/method-mapping.c \
	daemon/rpc/method-memory.c \
	daemon/rpc/method-pool.c \
	daemon/rpc/method-quarantine.c \
	daemon/rpc/method-quota.c \
	daemon/rpc/method-region.c \
	daemon/rpc/method-stats.c \
	daemon/rpc/pending.c daemon/rpc/pending.h \
	daemon/rpc/principal.c daemon/rpc/principal.h \
	daemon/rpc/rate.c daemon/rpc/rate.h \
	daemon/rpc/server.c daemon/rpc/server.h \
	daemon/rpc/session.c daemon/rpc/session.h
librpc_la_CFLAGS = $(AM_CFLAGS) $(UV_CFLAGS) $(JANSSON_CFLAGS)
librpc_la_LIBADD = libproto.la $(UV_LIBS) $(JANSSON_LIBS)
