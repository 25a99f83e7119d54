# Guests of hypervisors: what they see of the memory, windows into them, and what their hypervisors say of them.
noinst_LTLIBRARIES += libguest.la
libguest_la_SOURCES = \
	daemon/guest/ivshmem.c daemon/guest/ivshmem.h \
	daemon/guest/place.c daemon/guest/place.h \
	daemon/guest/qmp.c daemon/guest/qmp.h \
	daemon/guest/qmp-window.c daemon/guest/qmp-window.h
libguest_la_CFLAGS = $(AM_CFLAGS) $(UV_CFLAGS)
libguest_la_LIBADD = $(UV_LIBS)
