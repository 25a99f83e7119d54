# Guests of hypervisors: what they see of the memory, windows into them, and what their hypervisors say of them.
noinst_LTLIBRARIES += libguest.la
libguest_la_SOURCES = \
	daemon/guest/channel.c daemon/guest/channel.h \
	daemon/guest/guest.h \
	daemon/guest/guest-advice.c \
	daemon/guest/guest-door.c \
	daemon/guest/guest-exchange.c \
	daemon/guest/guest-grant.c \
	daemon/guest/guest-life.c \
	daemon/guest/guest-note.c \
	daemon/guest/guest-policy.c \
	daemon/guest/guest-window.c \
	daemon/guest/guest-xen.c \
	daemon/guest/guests.c daemon/guest/guests.h \
	daemon/guest/ivshmem.c daemon/guest/ivshmem.h \
	daemon/guest/machine.c daemon/guest/machine.h \
	daemon/guest/place.c daemon/guest/place.h \
	daemon/guest/qmp.c daemon/guest/qmp.h \
	daemon/guest/qmp-window.c daemon/guest/qmp-window.h
if HAVE_XEN
libguest_la_SOURCES += \
	daemon/guest/vchan-library.c daemon/guest/vchan-library.h \
	daemon/guest/vchan-server.c daemon/guest/vchan-server.h \
	daemon/guest/vchan-task.c daemon/guest/vchan-task.h \
	daemon/guest/xen.c daemon/guest/xen.h \
	daemon/guest/xen-channel.c daemon/guest/xen-channel.h \
	daemon/guest/xen-exchange.c daemon/guest/xen-exchange.h \
	daemon/guest/xen-foreign.c daemon/guest/xen-foreign.h \
	daemon/guest/xen-lister.c \
	daemon/guest/xen-shared.h \
	daemon/guest/xen-watcher.c \
	daemon/guest/xen-window.c
else
libguest_la_SOURCES += daemon/guest/xen-none.c daemon/guest/xen.h daemon/guest/xen-channel.h \
	daemon/guest/xen-exchange.h daemon/guest/xen-foreign.h
endif
libguest_la_CFLAGS = $(AM_CFLAGS) $(SYSTEMD_CFLAGS) $(UV_CFLAGS) $(XEN_CFLAGS)
libguest_la_LIBADD = libguest-libvirt.la $(SYSTEMD_LIBS) $(UV_LIBS)

# Who the guests are. Needs libdaemon.la for its loop; the library of libvirt is opened at run time.
noinst_LTLIBRARIES += libguest-libvirt.la
libguest_libvirt_la_SOURCES = \
	daemon/guest/guest-port.c daemon/guest/guest-port.h \
	daemon/guest/guest-xml.c daemon/guest/guest-xml.h \
	daemon/guest/libvirt.h \
	daemon/guest/thread.c daemon/guest/thread.h \
	daemon/guest/xml-scan.c daemon/guest/xml-scan.h
if HAVE_LIBVIRT
libguest_libvirt_la_SOURCES += \
	daemon/guest/libvirt.c \
	daemon/guest/libvirt-events.c \
	daemon/guest/libvirt-library.c daemon/guest/libvirt-library.h \
	daemon/guest/libvirt-loop.c daemon/guest/libvirt-loop.h \
	daemon/guest/libvirt-shared.h \
	daemon/guest/libvirt-worker.c
else
libguest_libvirt_la_SOURCES += daemon/guest/libvirt-none.c
endif
libguest_libvirt_la_CFLAGS = $(AM_CFLAGS) $(LIBVIRT_CFLAGS) $(UV_CFLAGS) -pthread
