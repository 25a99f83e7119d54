# Guests of hypervisors: windows into them, and what their hypervisors say of them.
noinst_LTLIBRARIES += libguest.la
libguest_la_SOURCES = \
	daemon/guest/ivshmem.c daemon/guest/ivshmem.h
libguest_la_CFLAGS = $(AM_CFLAGS) $(UV_CFLAGS)
libguest_la_LIBADD = $(UV_LIBS)
