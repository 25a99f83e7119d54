noinst_LTLIBRARIES += libproto.la
libproto_la_SOURCES = proto/reason.h
libproto_la_CFLAGS = $(AM_CFLAGS) $(JANSSON_CFLAGS)
libproto_la_LIBADD = $(JANSSON_LIBS)
