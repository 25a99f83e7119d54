# The domain: no I/O, no library but libc.
noinst_LTLIBRARIES += libcore.la
libcore_la_SOURCES = \
	daemon/core/arena.c daemon/core/arena.h \
	daemon/core/broker.h daemon/core/translator.h \
	daemon/core/failure.c daemon/core/failure.h \
	daemon/core/source.c daemon/core/source.h

include daemon/source/local.mk
include daemon/rpc/local.mk
