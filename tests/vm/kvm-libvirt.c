/* Guests in the hands of a libvirtd of our own. */
#include "config.h"

#include "tests/vm/kvm-bed.h"

#ifdef HAVE_LIBVIRT

#include <errno.h>
#include <fcntl.h>
#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PATIENCE_MS = 30000, AGAIN_MS = 50 };

static const struct kvm_place *place;
static char uri[192];
static pid_t libvirtd;

static void must(bool right, const char *what) {
        const virError *error = right ? NULL : virGetLastError();

        if (!right)
                kvm_give_up("%s: %s", what, error ? error->message : strerror(errno));
}

static void configure(const struct kvm_place *given, char *text, size_t size) {
        place = given;
        snprintf(uri, sizeof(uri), "qemu+unix:///session?socket=%s/libvirt/libvirt-sock", place->run_directory);
        snprintf(text, size, "libvirt = %s\n", uri);
}

static void configure_guest(const struct kvm_place *given, const struct kvm_guest *guest, char *text, size_t size) {
        *text = '\0';
}

static void start_libvirtd(void) {
        char path[160];
        int log;

        libvirtd = fork();
        must(libvirtd >= 0, "fork");
        if (libvirtd > 0)
                return;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        snprintf(path, sizeof(path), "%s/libvirtd.log", place->run_directory);
        log = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);
        dup2(log, 1);
        dup2(log, 2);
        if (chdir(place->run_directory) == 0)
                execl(place->libvirtd, place->libvirtd, "-f", "libvirtd.conf", "-p", "libvirtd.pid", (char *)NULL);
        _exit(127);
}

/* It makes its socket when it is ready for us. */
static virConnectPtr reach(void) {
        char path[160];
        struct pollfd poll_for = { .fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK), .events = POLLIN };
        char events[4096];
        virConnectPtr connection;

        snprintf(path, sizeof(path), "%s/libvirt", place->run_directory);
        mkdir(path, 0700);
        inotify_add_watch(poll_for.fd, path, IN_CREATE | IN_ATTRIB | IN_MOVED_TO);
        while (!(connection = virConnectOpen(uri)) && poll(&poll_for, 1, PATIENCE_MS) > 0)
                while (read(poll_for.fd, events, sizeof(events)) > 0)
                        ;
        close(poll_for.fd);
        must(connection, "connect to libvirtd");
        return connection;
}

/* One element of the advice: from its opening to its closing tag. */
static void take_element(const char *advice, const char *from, const char *to, char *ret, size_t size) {
        const char *at = strstr(advice, from), *end = at ? strstr(at, to) : NULL;

        must(end, from);
        snprintf(ret, size, "%.*s", (int)(end + strlen(to) - at), at);
}

/* It cannot be started before libvirtd has done with its last run. */
static bool is_ending(void) {
        return virGetLastErrorCode() == VIR_ERR_OPERATION_INVALID || virGetLastErrorCode() == VIR_ERR_OPERATION_FAILED;
}

/* What was advised, and another port of the same kind. */
static void start(const struct kvm_place *given, struct kvm_guest *guest, const char *advice) {
        static char xml[8192], channel[512], port[256], property[256];
        int patience_ms = PATIENCE_MS;
        virConnectPtr connection;
        virDomainPtr domain;

        take_element(advice, "<channel", "</channel>", channel, sizeof(channel));
        take_element(advice, "<controller", "/>", port, sizeof(port));
        take_element(advice, "<qemu:device alias='pci.8'>", "</qemu:device>", property, sizeof(property));
        snprintf(xml, sizeof(xml),
                 "<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>"
                 "<name>%s</name><uuid>%s</uuid><memory unit='MiB'>256</memory>"
                 "<metadata><dmab:guest xmlns:dmab='https://dmabroker.org/xmlns/domain/1.0' allocs='1234'/></metadata>"
                 "<os><type arch='x86_64' machine='q35'>hvm</type><kernel>%s</kernel><initrd>%s</initrd>"
                 "<cmdline>" KVM_CMDLINE "</cmdline></os><cpu mode='custom'><model>qemu64</model></cpu>"
                 "<features><acpi/><apic/></features>"
                 "<devices><controller type='usb' model='none'/><controller type='pci' model='pcie-root'/>%s"
                 "<controller type='pci' index='9' model='pcie-root-port'/>%s<memballoon model='none'/>"
                 "<serial type='unix'><source mode='connect' path='%s/%s.serial'/></serial></devices>"
                 "<qemu:commandline><qemu:arg value='-device'/>"
                 "<qemu:arg value='edu,bus=pcie.0,addr=" KVM_EDU_SLOT ",dma_mask=0xffffffffffff'/></qemu:commandline>"
                 "<qemu:override>%s<qemu:device alias='pci.9'>%s</qemu:override></domain>",
                 guest->name, guest->uuid, place->kernel, place->initrd, port, channel, place->directory, guest->name, property,
                 strstr(property, "<qemu:frontend>"));
        if (!libvirtd)
                start_libvirtd();
        connection = reach();
        /* The daemon may know of its last QEMU's end before libvirtd does. */
        while (!(domain = virDomainCreateXML(connection, xml, 0)) && is_ending() && patience_ms > 0) {
                poll(NULL, 0, AGAIN_MS);
                patience_ms -= AGAIN_MS;
        }
        must(domain, "start the guest");
        virDomainFree(domain);
        virConnectClose(connection);
}

static pid_t pid(const struct kvm_guest *guest) {
        char path[192], text[32] = "";
        int fd;

        snprintf(path, sizeof(path), "%s/libvirt/qemu/run/%s.pid", place->run_directory, guest->name);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || read(fd, text, sizeof(text) - 1) < 0)
                text[0] = '\0';
        close(fd);
        return (pid_t)atoi(text);
}

static void end(struct kvm_guest *guest) {
        pid_t qemu = libvirtd ? pid(guest) : 0;

        if (qemu > 1)
                kill(qemu, SIGKILL);
}

/* Of a process that is not our child, only that it is there no more can be known. */
static void await_end(struct kvm_guest *guest) {
        pid_t qemu = pid(guest);
        struct pollfd poll_for = { .fd = qemu > 1 ? (int)syscall(SYS_pidfd_open, qemu, 0) : -1, .events = POLLIN };

        if (poll_for.fd >= 0)
                must(poll(&poll_for, 1, PATIENCE_MS) > 0, "wait for QEMU");
        close(poll_for.fd);
}

static void with_domain(const struct kvm_guest *guest, const char *what, int (*fn)(virDomainPtr domain)) {
        virConnectPtr connection = reach();
        virDomainPtr domain = virDomainLookupByUUIDString(connection, guest->uuid);

        must(domain && fn(domain) == 0, what);
        virDomainFree(domain);
        virConnectClose(connection);
}

static int reset_domain(virDomainPtr domain) {
        return virDomainReset(domain, 0);
}

static void reset(struct kvm_guest *guest) {
        with_domain(guest, "reset the guest", reset_domain);
}

static void pause_guest(struct kvm_guest *guest) {
        with_domain(guest, "pause the guest", virDomainSuspend);
}

static void resume(struct kvm_guest *guest) {
        with_domain(guest, "let it go on", virDomainResume);
}

static void destroy(struct kvm_guest *guest) {
        with_domain(guest, "destroy the guest", virDomainDestroy);
}

static char saved[192];

static bool save(struct kvm_guest *guest) {
        virConnectPtr connection = reach();
        virDomainPtr domain = virDomainLookupByUUIDString(connection, guest->uuid);
        bool done;

        must(domain, "find the guest");
        snprintf(saved, sizeof(saved), "%s/%s.saved", kvm_host.place.run_directory, guest->name);
        done = virDomainSave(domain, saved) == 0;
        if (!done)
                printf("%s\n", virGetLastErrorMessage());
        virDomainFree(domain);
        virConnectClose(connection);
        return done;
}

static void restore(struct kvm_guest *guest) {
        virConnectPtr connection = reach();

        must(virDomainRestore(connection, saved) == 0, "restore the guest");
        virConnectClose(connection);
}

static pid_t manager(void) {
        return libvirtd;
}

static void start_manager(void) {
        must(waitpid(libvirtd, NULL, 0) == libvirtd, "libvirtd is killed");
        start_libvirtd();
        virConnectClose(reach());
}

static pid_t lose(struct kvm_guest *guest) {
        static const char *const kinds[] = { "xml", "pid" };
        pid_t qemu = pid(guest);
        char path[192];

        must(qemu > 1 && kill(libvirtd, SIGKILL) == 0, "kill libvirtd");
        for (int i = 0; i < 2; i++) {
                snprintf(path, sizeof(path), "%s/libvirt/qemu/run/%s.%s", place->run_directory, guest->name, kinds[i]);
                must(unlink(path) == 0, path);
        }
        start_manager();
        return qemu;
}

static const struct kvm_bed bed = {
        .configure = configure, .configure_guest = configure_guest, .start = start, .kill = end,
        .await_end = await_end, .pid = pid, .reset = reset,
        .pause = pause_guest, .resume = resume, .destroy = destroy, .save = save, .restore = restore,
        .manager = manager, .start_manager = start_manager, .lose = lose,
        .allocs = 1234,
};
const struct kvm_bed *const kvm_bed_libvirt = &bed;

#else

const struct kvm_bed *const kvm_bed_libvirt = NULL;

#endif
