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
	proto/help.c proto/help.h \
	proto/methods.c proto/methods.h \
	proto/reason.h \
	proto/receive.c \
	proto/qmp-message.c proto/qmp-message.h \
	proto/quick.c proto/quick.h \
	proto/scan.c proto/scan.h \
	proto/schema.c proto/schema.h \
	proto/service.h \
	proto/writer.c proto/writer.h
libproto_la_CFLAGS = $(AM_CFLAGS) $(JANSSON_CFLAGS)
libproto_la_LIBADD = $(JANSSON_LIBS)

# The manual page is printed from the tables, so that it cannot differ from them.
noinst_PROGRAMS += proto/manual
proto_manual_SOURCES = proto/manual.c
proto_manual_LDADD = libproto.la

docs/dmabroker-protocol.7: proto/manual$(EXEEXT)
	$(AM_V_at)$(MKDIR_P) docs
	$(AM_V_GEN)./proto/manual$(EXEEXT) > $@.tmp && mv $@.tmp $@
nodist_man_MANS += docs/dmabroker-protocol.7
CLEANFILES += docs/dmabroker-protocol.7 docs/dmabroker-protocol.7.tmp
