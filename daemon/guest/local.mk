# Who the guests are, and what they see of the memory.
noinst_LTLIBRARIES += libguest.la
libguest_la_SOURCES = \
	daemon/guest/place.c daemon/guest/place.h
