# Where memory comes from: each source is one table of operations, listed in sources.c.
noinst_LTLIBRARIES += libsource.la
libsource_la_SOURCES = \
	daemon/source/layout.c daemon/source/layout.h \
	daemon/source/option.c daemon/source/option.h \
	daemon/source/sim.c \
	daemon/source/sources.c daemon/source/sources.h \
	daemon/source/worker.c daemon/source/worker.h
