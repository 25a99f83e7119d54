noinst_LTLIBRARIES += libproto.la
libproto_la_SOURCES = \
	proto/dispatch.h \
	proto/fdpass.c proto/fdpass.h \
	proto/frame.c proto/frame.h \
	proto/methods.c proto/methods.h \
	proto/reason.h \
	proto/schema.c proto/schema.h
libproto_la_CFLAGS = $(AM_CFLAGS) $(JANSSON_CFLAGS)
libproto_la_LIBADD = $(JANSSON_LIBS)
