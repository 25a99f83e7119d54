#include "daemon/source/host.h"

#include <inttypes.h>
#include <stdio.h>

uint64_t host_available(void) {
        uint64_t kib = 0;
        char line[128];
        FILE *file;

        file = fopen("/proc/meminfo", "re");
        if (!file)
                return 0;
        while (fgets(line, sizeof(line), file))
                if (sscanf(line, "MemAvailable: %" SCNu64, &kib) == 1)
                        break;
        fclose(file);
        return kib * 1024;
}
