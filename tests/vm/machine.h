/* What the first process of a virtual machine does before anything else; initrd.sh has put it there. */
#ifndef DMAB_TESTS_VM_MACHINE_H
#define DMAB_TESTS_VM_MACHINE_H

#include <stdbool.h>

/* The modules that make_initrd was given, in that order, each with these options. What cannot be loaded is told. */
void machine_load_modules(const char *options);
/* A file of the kernel's. A failure is told. */
bool machine_write_file(const char *path, const char *text);

#endif
