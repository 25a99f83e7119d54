/* What a fuzzer has found worth keeping, once more, with any compiler. The arguments are files and directories; without
 * any, the program's own corpus is found as the tests are told where the sources are. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/fuzz/fuzz.h"

static size_t replay_file(const char *path, size_t size) {
        FILE *file = fopen(path, "rb");
        uint8_t *data = malloc(size ? size : 1);
        size_t n = 0;

        if (file && data && fread(data, 1, size, file) == size) {
                LLVMFuzzerTestOneInput(data, size);
                n = 1;
        } else {
                fprintf(stderr, "cannot read %s\n", path);
        }
        if (file)
                fclose(file);
        free(data);
        return n;
}

static size_t replay(const char *path) {
        char inner[4096];
        struct dirent *entry;
        struct stat status;
        size_t n = 0;
        DIR *directory;

        if (stat(path, &status)) {
                perror(path);
                return 0;
        }
        if (!S_ISDIR(status.st_mode))
                return replay_file(path, (size_t)status.st_size);
        directory = opendir(path);
        while (directory && (entry = readdir(directory))) {
                if (entry->d_name[0] == '.')
                        continue;
                snprintf(inner, sizeof(inner), "%s/%s", path, entry->d_name);
                n += replay(inner);
        }
        if (directory)
                closedir(directory);
        return n;
}

int main(int argc, char **argv) {
        const char *sources = getenv("TOP_SRCDIR");
        char corpus[4096];
        size_t n = 0;

        snprintf(corpus, sizeof(corpus), "%s/tests/fuzz/corpus/" CORPUS, sources ? sources : ".");
        for (int i = 1; i < argc; i++)
                n += replay(argv[i]);
        if (argc == 1)
                n = replay(corpus);
        printf("%zu inputs\n", n);
        return n ? EXIT_SUCCESS : EXIT_FAILURE;
}
