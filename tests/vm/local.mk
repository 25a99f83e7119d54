# what is built and run from tests/vm
machine = tests/vm/machine.c tests/vm/machine.h

check_PROGRAMS += tests/vm/dma-heap-guest
tests_vm_dma_heap_guest_SOURCES = tests/vm/dma-heap-guest.c
tests_vm_dma_heap_guest_LDADD = libdmabroker.la
dist_check_SCRIPTS += tests/vm/dma-heap.sh
TESTS += tests/vm/dma-heap.sh
EXTRA_DIST += tests/vm/build-kernel.sh tests/vm/kernel.config

check_PROGRAMS += tests/vm/systemd-guest
tests_vm_systemd_guest_SOURCES = tests/vm/systemd-guest.c
tests_vm_systemd_guest_LDADD = libdmabroker.la
dist_check_SCRIPTS += tests/vm/systemd.sh
TESTS += tests/vm/systemd.sh
EXTRA_DIST += tests/vm/fetch-kernel.sh tests/vm/systemd-guest.sh

check_PROGRAMS += tests/vm/iommu-guest
tests_vm_iommu_guest_SOURCES = tests/vm/iommu-guest.c $(machine)
tests_vm_iommu_guest_LDADD = libtest.la libdmabroker.la $(JANSSON_LIBS)
dist_check_SCRIPTS += tests/vm/iommu.sh
TESTS += tests/vm/iommu.sh

if HAVE_LIBVIRT
check_PROGRAMS += tests/vm/libvirt-host
tests_vm_libvirt_host_SOURCES = tests/vm/libvirt-host.c
tests_vm_libvirt_host_CFLAGS = $(AM_CFLAGS) $(LIBVIRT_CFLAGS) $(UV_CFLAGS) -pthread
tests_vm_libvirt_host_LDADD = libguest-libvirt.la libdaemon.la $(LIBVIRT_LIBS)
endif
dist_check_SCRIPTS += tests/vm/libvirt.sh
TESTS += tests/vm/libvirt.sh

check_PROGRAMS += tests/vm/kvm-guest tests/vm/kvm-host
tests_vm_kvm_guest_SOURCES = tests/vm/kvm-guest.c tests/vm/kvm-guest.h tests/vm/kvm-guest-storm.c \
	tests/vm/kvm-guest-work.c $(machine)
tests_vm_kvm_guest_CFLAGS = $(AM_CFLAGS) -pthread
tests_vm_kvm_guest_LDADD = libdmabroker.la
kvm_beds = tests/vm/kvm-bed.c tests/vm/kvm-bed.h tests/vm/kvm-libvirt.c tests/vm/kvm-qemu.c
tests_vm_kvm_host_SOURCES = tests/vm/kvm-host.c $(kvm_beds)
tests_vm_kvm_host_CFLAGS = $(AM_CFLAGS) $(JANSSON_CFLAGS) $(LIBVIRT_CFLAGS)
tests_vm_kvm_host_LDADD = libtest.la libdmabroker.la $(JANSSON_LIBS) $(LIBVIRT_LIBS)
check_PROGRAMS += tests/vm/kvm-storm
tests_vm_kvm_storm_SOURCES = tests/vm/kvm-storm.c tests/vm/kvm-storm.h tests/vm/kvm-storm-look.c \
	tests/vm/kvm-storm-neighbour.c $(kvm_beds)
tests_vm_kvm_storm_CFLAGS = $(tests_vm_kvm_host_CFLAGS)
tests_vm_kvm_storm_LDADD = $(tests_vm_kvm_host_LDADD)
check_PROGRAMS += tests/vm/kvm-l1
tests_vm_kvm_l1_SOURCES = tests/vm/kvm-l1.c $(machine)
kvm_scripts = tests/vm/kvm.sh tests/vm/kvm-libvirt.sh tests/vm/kvm-passed-through.sh tests/vm/kvm-storm.sh
dist_check_SCRIPTS += $(kvm_scripts)
TESTS += $(kvm_scripts)
EXTRA_DIST += tests/vm/initrd.sh

dist_check_SCRIPTS += tests/vm/docs-kvm.sh
EXTRA_DIST += tests/vm/debian.sh tests/vm/docs-kvm-host.sh tests/vm/docs-steps.sh tests/vm/fetch-debs.sh

check_PROGRAMS += tests/vm/ivshmem-host
tests_vm_ivshmem_host_SOURCES = tests/vm/ivshmem-host.c
tests_vm_ivshmem_host_CFLAGS = $(AM_CFLAGS) $(UV_CFLAGS) $(JANSSON_CFLAGS)
tests_vm_ivshmem_host_LDADD = libdaemon.la $(UV_LIBS) $(JANSSON_LIBS)
dist_check_SCRIPTS += tests/vm/ivshmem.sh
TESTS += tests/vm/ivshmem.sh

if HAVE_XEN
check_PROGRAMS += tests/vm/xen-host
tests_vm_xen_host_SOURCES = tests/vm/xen-host.c tests/vm/xen-bed.c tests/vm/xen-bed.h tests/vm/xen-daemon.c \
	tests/vm/xen-exchange.c tests/vm/xen-grant.c tests/vm/xen-guests.c tests/vm/xen-guests.h tests/vm/xen-library.c \
	tests/vm/xen-life.c tests/vm/xen-life.h tests/vm/xen-memory.c tests/vm/xen-memory.h tests/vm/xen-storm.c $(machine)
tests_vm_xen_host_CFLAGS = $(AM_CFLAGS) $(XEN_CFLAGS)
tests_vm_xen_host_LDADD = libtest.la libdmabroker.la libsource.la libcore.la $(XEN_LIBS)
check_PROGRAMS += tests/vm/xen-guest
tests_vm_xen_guest_SOURCES = tests/vm/xen-guest.c tests/vm/xen-guest-work.c tests/vm/xen-guest-work.h \
	client/fork.c client/fork.h client/port-device.h client/port-vchan.c client/vchan-ring.c client/vchan-ring.h \
	client/xen-device.h client/xen-store.c client/xen-store.h $(machine)
tests_vm_xen_guest_CFLAGS = $(AM_CFLAGS) -pthread
tests_vm_xen_guest_LDADD = libdmabroker.la
endif
dist_check_SCRIPTS += tests/vm/xen.sh
TESTS += tests/vm/xen.sh
EXTRA_DIST += tests/vm/fetch-xen.sh
dist_check_SCRIPTS += tests/vm/docs-xen.sh
EXTRA_DIST += tests/vm/docs-xen-dom0.sh
