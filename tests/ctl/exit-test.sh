#!/bin/sh
# Every exit status: 0 success, 1 failure, 2 wrong usage, 3 no daemon to connect to; and what is said then.
. "${TOP_SRCDIR:-.}/tests/lib/daemon.sh"

directory=$(mktemp -d) || exit 99
trap 'rm -rf "$directory"' EXIT

# status WANTED ARGUMENTS...: also, an unsuccessful run says something on standard error, a successful one nothing
status() {
        wanted=$1
        shift
        "$CTL" "$@" >"$directory/out" 2>"$directory/err"
        expect "$wanted" $? "the exit status of $*"
        if [ "$wanted" = 0 ]; then
                [ ! -s "$directory/err" ] || fail "$* succeeds and says: $(cat "$directory/err")"
        else
                grep -q '^dmabrokerctl: .' "$directory/err" || fail "$* fails without a word"
        fi
}

said() {
        grep -qF -e "$1" "$directory/err" || fail "wanted \"$1\", got: $(cat "$directory/err")"
}

for verb in status devices guests windows regions pools bounces allocs mappings leases quota stats top map check version help; do
        status 0 "$verb"
        # top is one that goes on with --json.
        [ "$verb" = top ] || status 0 "$verb" --json
        [ "$verb" = top ] || status 0 --json "$verb"
        status 0 "$verb" --help
        status 2 "$verb" --no-such-option
        said --no-such-option
        status 2 "$verb" too many arguments for this verb
        [ "$verb" = help ] || status 3 --socket "$directory/none" "$verb"
done
status 0 --version
status 0 --help
status 0 bench --count 10
status 0 bench --count=10 --size=64K
status 0 call broker.ping
status 0 -- status

status 2
status 2 frobnicate
said frobnicate
status 2 --frobnicate
status 2 alloc
status 2 alloc 1X
status 2 alloc --mask
status 2 alloc 4K --mask 0
status 2 alloc 4K --mask 65
status 2 alloc 4K --mask 0xfgh
status 2 alloc 4K --wait soon
status 2 alloc 4K --high=yes
status 2 alloc 99999999999999999999
status 2 alloc 16E
status 2 free
status 2 free x
status 2 quota --set bytes
status 2 quota --set bytes=many
status 2 quota vm --set bytes=many
status 2 quota --device card
status 2 guests show
status 2 guests evict
status 2 guests list
status 2 windows --guest
status 2 attach
status 2 attach vm
status 2 attach vm much
status 2 attach vm 16E
status 2 attach vm 1M --force
status 2 detach
status 2 detach vm
status 2 detach 99999999999999999999
status 2 detach 1 2
status 2 call
status 2 call broker.ping '{'
status 2 call broker.ping '[]'
status 2 call --methods broker.ping
status 2 map --width 5
status 2 bench --count 0
status 2 help no.such_thing
status 2 devices open
status 2 devices close 1 --mask 32
said --mask
status 2 devices shut 1
status 2 allocs --dma-addr 12
status 2 allocs --dma-addr 0x1000 --machine-addr 0x1000

status 2 pools create ring
status 2 pools create ring 2K --force
said --force
status 2 pools create ring 99999999999999999999
status 2 pools alloc
status 2 pools free 1
status 2 pools free 1 12
status 2 pools lease 1 some
status 2 pools drain 1
said drain
status 2 bounces create
status 2 bounces create 64K --areas many
status 2 bounces map 1
status 2 bounces sync here
status 2 bounces sync 1 --count 2
status 2 mappings map
status 2 mappings map x
status 2 mappings unmap x
status 2 leases return
status 2 leases --pool ring
status 2 stats --reset pools
status 2 top --interval 0
status 2 top --interval soon
status 2 top --count 0
status 2 top --count 1 --once
status 2 top --sort BYTES
status 2 top --view nothing
said nothing
status 2 top --view pools --sort nothing
status 2 watch nothing
said nothing
status 2 watch --count 0
status 2 watch leak --count soon
status 2 watch --no-such-option
status 0 watch --help
status 3 --socket "$directory/none" watch
said "$directory/none"
status 2 help --operands
status 0 help --operands pools
status 0 top --json --once
status 0 --json top --count=2 --interval=0.1

status 1 free 12345
status 1 pools destroy nobody
said nobody
status 1 pools destroy 12345
status 1 pools trim 12345
status 1 pools show 12345
status 1 pools alloc 12345
status 1 pools free 12345 0x1000
status 1 pools lease 12345 1
status 1 pools create ring 0
status 1 pools create ring 8M
status 1 pools create ring 64 --align 3
status 1 pools create ring 64 --boundary 32
status 1 pools create ring 64 --caching blue
status 1 pools create ring 64 --device 12345
status 1 bounces create 0
status 1 bounces create 64K --slot-size 3000
status 1 bounces destroy 12345
status 1 bounces map 12345 1K
status 1 bounces lease 12345
status 1 bounces unmap 12345
status 1 bounces show nobody
said nobody
status 1 mappings map 12345
status 1 mappings unmap 12345
status 1 leases return 12345
status 1 alloc 100G
status 1 call no.such_method
status 1 call coherent.free '{"alloc": 12345}'
status 1 call coherent.free '{"alloc": 1, "other": 2}'
said other
status 1 devices close nobody
said nobody
status 1 devices close 12345
status 1 stats nothing
status 1 allocs --dma-addr 0x1000
status 1 allocs --owner nobody --device 12345
status 1 quota user:1 --set nothing=1
status 1 quota --device 12345
status 1 quota vm
said 'no guest vm'
status 1 attach vm 1M
said 'no guest vm'
status 1 attach vm 1M --dry-run
status 1 detach 12345
said 12345
status 1 guests show vm
status 1 guests evict vm
status 1 --json free 12345
grep -q '^{"error":{"code":2,.*"reason":"unknown_handle"' "$directory/out" || fail "no JSON error: $(cat "$directory/out")"

status 3 --socket "$directory/none" status
said "$directory/none"
: >"$directory/file"
status 3 --socket "$directory/file" alloc 4K
said 'not a socket'
status 3 --socket virtio: status
DMABROKER_SOCKET=$directory/none status 3 status
status 0 status --socket "$DMABROKER_SOCKET"
status 0 status --socket "unix:$DMABROKER_SOCKET"

# What cannot be written is a failure.
if [ -c /dev/full ]; then
        "$CTL" status >/dev/full 2>"$directory/err"
        expect 1 $? "the exit status when the output is full"
        said 'cannot write'
fi
