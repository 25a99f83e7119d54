/* What ThreadSanitizer finds in libvirt, whose counting of references and whose locks it does not see whole. */
const char *__tsan_default_suppressions(void);

const char *__tsan_default_suppressions(void) {
        return "race:pthread_mutex_destroy\ndeadlock:libvirt.so.0\n";
}
