# what is built and run from tests/bench: every program prints lines of one table (tests/bench/table.h)
check_LTLIBRARIES += libtable.la
libtable_la_SOURCES = tests/bench/table.c tests/bench/table.h
