noinst_LTLIBRARIES += libproto.la
libproto_la_SOURCES = \
	proto/dispatch.h \
	proto/methods.c proto/methods.h \
	proto/reason.h \
	proto/schema.c proto/schema.h
libproto_la_CFLAGS = $(AM_CFLAGS) $(JANSSON_CFLAGS)
libproto_la_LIBADD = $(JANSSON_LIBS)
