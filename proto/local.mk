noinst_LTLIBRARIES += libproto.la
libproto_la_SOURCES = \
	proto/answer.c proto/answer.h \
	proto/codec.h \
	proto/decode.c \
	proto/discover.c proto/discover.h \
	proto/dispatch.c proto/dispatch.h \
	proto/encode.c \
	proto/fdpass.c proto/fdpass.h \
	proto/frame.c proto/frame.h \
	proto/methods.c proto/methods.h \
	proto/reason.h \
	proto/receive.c \
	proto/scan.c proto/scan.h \
	proto/schema.c proto/schema.h \
	proto/service.h \
	proto/writer.c proto/writer.h
libproto_la_CFLAGS = $(AM_CFLAGS) $(JANSSON_CFLAGS)
libproto_la_LIBADD = $(JANSSON_LIBS)
