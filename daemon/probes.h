/* Places where tracers such as bpftrace and SystemTap can look on: user-space probes of the provider dmabroker. Each is
 * one instruction that does nothing until somebody looks, and none at all in a build without <sys/sdt.h>.
 *
 * Names and arguments are for those outside: dmabrokerd(8) lists them. Arguments are members and variables that are there
 * anyway: nothing is computed for a probe. */
#ifndef DMAB_DAEMON_PROBES_H
#define DMAB_DAEMON_PROBES_H

#include <config.h>

#ifdef HAVE_PROBES
#define SDT_USE_VARIADIC 1
#include <sys/sdt.h>
#define PROBE(name, ...) STAP_PROBEV(dmabroker, name, __VA_ARGS__)
#else
#define PROBE(name, ...) ((void)0)
#endif

/* Arrays, too, are told by their address. */
#define PROBE_TEXT(text) ((const char *)(text))

/* const char *method, const char *owner, pid_t pid: a call comes in. */
#define PROBE_REQUEST_START(method, owner, pid) PROBE(request_start, PROBE_TEXT(method), PROBE_TEXT(owner), pid)
/* const char *method, uint64_t nanoseconds, int code: it is answered; code 0: with a result. */
#define PROBE_REQUEST_DONE(method, nanoseconds, code) PROBE(request_done, PROBE_TEXT(method), nanoseconds, code)
/* const char *owner, uint32_t session. */
#define PROBE_SESSION_OPEN(owner, session) PROBE(session_open, PROBE_TEXT(owner), session)
/* const char *owner, uint32_t session, bool died: died: its client has vanished. */
#define PROBE_SESSION_END(owner, session, died) PROBE(session_end, PROBE_TEXT(owner), session, died)
/* const char *owner, const char *device, uint64_t handle, uint64_t size, uint64_t dma_addr: handed out, and taken
 * back. */
#define PROBE_ALLOC(owner, device, handle, size, dma_addr) \
        PROBE(alloc, PROBE_TEXT(owner), PROBE_TEXT(device), handle, size, dma_addr)
#define PROBE_FREE(owner, device, handle, size, dma_addr) \
        PROBE(free, PROBE_TEXT(owner), PROBE_TEXT(device), handle, size, dma_addr)
/* const char *source, uint64_t machine_addr, uint64_t size, int status: a region was cut out of a source's stock, or not
 * (status -errno); it came back. */
#define PROBE_CARVE(source, machine_addr, size, status) PROBE(carve, PROBE_TEXT(source), machine_addr, size, status)
#define PROBE_RESTORE(source, machine_addr, size, status) PROBE(restore, PROBE_TEXT(source), machine_addr, size, status)

#endif
