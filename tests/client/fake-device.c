#include "tests/client/fake-device.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

struct seen {
        struct seen *next;
        long long region;
        char *memory;
        size_t memory_size;
        dmab_addr_t start; /* of the allocation, which is at memory + offset */
        size_t offset, size;
};

struct fake_device {
        dmab_t *dmab;
        struct seen *seen;
};

struct fake_device *fake_device_new(dmab_t *dmab) {
        struct fake_device *device = calloc(1, sizeof(*device));

        assert_non_null(device);
        device->dmab = dmab;
        return device;
}

/* Allocations of one region have one mapping each: simple, and there are few. */
void fake_device_free(struct fake_device *device) {
        while (device->seen) {
                struct seen *next = device->seen->next;

                munmap(device->seen->memory, device->seen->memory_size);
                free(device->seen);
                device->seen = next;
        }
        free(device);
}

static void map_region(struct fake_device *device, struct seen *seen) {
        struct stat about;
        char params[64];
        size_t n_fds;
        int fd;

        snprintf(params, sizeof(params), "{\"region\":%lld}", seen->region);
        if (dmab_call_fds(device->dmab, "region.get", params, NULL, &fd, 1, &n_fds))
                fail_msg("%s", dmab_last_error());
        assert_int_equal(n_fds, 1);
        assert_int_equal(fstat(fd, &about), 0);
        seen->memory_size = (size_t)about.st_size;
        seen->memory = mmap(NULL, seen->memory_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        assert_ptr_not_equal(seen->memory, MAP_FAILED);
        close(fd);
}

static struct seen *look_up(struct fake_device *device, dmab_addr_t dma) {
        struct seen *seen = calloc(1, sizeof(*seen));
        char params[64], *text = NULL;
        json_t *result;

        assert_non_null(seen);
        snprintf(params, sizeof(params), "{\"dma_addr\":\"0x%llx\"}", (unsigned long long)dma);
        if (dmab_call(device->dmab, "coherent.lookup", params, &text))
                fail_msg("0x%llx: %s", (unsigned long long)dma, dmab_last_error());
        result = json_loads(text, 0, NULL);
        free(text);
        seen->region = json_integer_value(json_object_get(result, "region"));
        seen->offset = (size_t)json_integer_value(json_object_get(result, "offset"));
        seen->size = (size_t)json_integer_value(json_object_get(result, "size"));
        seen->start = strtoull(json_string_value(json_object_get(result, "dma_addr")), NULL, 16);
        json_decref(result);
        map_region(device, seen);
        seen->next = device->seen;
        device->seen = seen;
        return seen;
}

void *fake_device_at(struct fake_device *device, dmab_addr_t dma, size_t size) {
        struct seen *seen = device->seen;

        while (seen && dma - seen->start >= seen->size)
                seen = seen->next;
        if (!seen)
                seen = look_up(device, dma);
        assert_true(dma - seen->start < seen->size && size <= seen->size - (dma - seen->start));
        return seen->memory + seen->offset + (dma - seen->start);
}
