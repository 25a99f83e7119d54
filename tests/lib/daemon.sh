# For shell tests: source it first. The test then runs again inside with-daemon, with DMABROKER_SOCKET and
# DMABROKER_PID set and a private dmabrokerd running, which must end cleanly when the test ends. Options for with-daemon
# go in WITH_DAEMON_OPTIONS, for example WITH_DAEMON_OPTIONS="--source sim --hugepages 16".
TOP_BUILDDIR=${TOP_BUILDDIR:-.}
export TOP_BUILDDIR
if [ -z "$DMABROKER_PID" ]; then
        # shellcheck disable=SC2086
        exec "$TOP_BUILDDIR/tests/lib/with-daemon" $WITH_DAEMON_OPTIONS -- sh "$0" "$@"
fi

CTL=$TOP_BUILDDIR/dmabrokerctl

fail() {
        echo "$0: $*" >&2
        exit 1
}

# expect WANTED GOT WHAT
expect() {
        [ "$1" = "$2" ] || fail "$3: wanted '$1', got '$2'"
}
