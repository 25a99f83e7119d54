#!/bin/sh
# pools, bounces, mappings, leases: listed, made and held, and whoever has what is told when they are destroyed.
. "${TOP_SRCDIR:-.}/tests/lib/daemon.sh"

directory=$(mktemp -d) || exit 99
holders=
trap 'kill $holders 2>/dev/null; rm -rf "$directory"' EXIT

# column FILE ROW NAME: the cell in that row (the heading is row 0) under that title
column() {
        awk -v row="$2" -v name="$3" 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == name) c = i; n = NF }
                NR == row + 1 { if (!c || NF != n) exit 1; print $c }' "$1"
}

shows() {
        grep -qE -e "$2" "$1" || fail "wanted a line like \"$2\" in: $(cat "$1")"
}

# held NUMBER ARGUMENTS...: run in the background until `release NUMBER`; what it says first is in $line
held() {
        number=$1
        shift
        mkfifo "$directory/held-$number"
        "$CTL" --json "$@" >"$directory/held-$number" 2>"$directory/held-err" &
        holders="$holders $!"
        eval "holder_$number=$!"
        read -r line <"$directory/held-$number" || fail "$* says nothing but: $(cat "$directory/held-err")"
}

# member NAME: of the JSON in $line
member() {
        printf '%s\n' "$line" | grep -oE "\"$1\":\"?[^,\"}]*" | head -n 1 | sed 's/^[^:]*:"*//'
}

release() {
        eval "kill \$holder_$1; wait \$holder_$1"
        expect 0 $? "the status of what was held"
}

# ---- pools ----
expect 1 "$("$CTL" pools | wc -l)" "lines of pools when there are none"
held 1 pools create ring 1500 --device nic --align 256 --boundary 64K --reserve 40 --max-blocks 100 --mask 32 --wait 1
pool=$(member pool)
expect 1536 "$(member block_size)" "the size of a block, rounded"
expect 256 "$(member align)" align
"$CTL" pools >"$directory/pools" || fail "pools fails"
expect ring "$(column "$directory/pools" 1 NAME)" NAME
expect nic "$(column "$directory/pools" 1 DEVICE)" DEVICE
expect 0 "$(column "$directory/pools" 1 IN-USE)" IN-USE
expect 40 "$(column "$directory/pools" 1 RESERVE)" RESERVE
expect 100 "$(column "$directory/pools" 1 MAX)" MAX
[ "$(column "$directory/pools" 1 BLOCKS)" -ge 40 ] || fail "the reserve is not there"
expect 2 "$("$CTL" pools --owner "user:$(id -u)" | wc -l)" "lines of one's own pools"
expect 2 "$("$CTL" pools --device nic | wc -l)" "lines of the device's pools"
"$CTL" pools show ring >"$directory/show" || fail "pools show fails"
shows "$directory/show" '^boundary 65536$'

# Blocks, held by another program of the same owner, and by a command that is told of them.
held 2 pools alloc ring --count 3
expect 3 "$(printf '%s\n' "$line" | grep -o '"offset":' | wc -l)" "blocks"
"$CTL" pools alloc "$pool" --count 2 -- sh -c 'echo $DMABROKER_BLOCKS $DMABROKER_BLOCK_SIZE $DMABROKER_POOL; exit 7' >"$directory/out"
expect 7 $? "the status of the command that had blocks"
shows "$directory/out" "^0x[0-9a-f]+ 0x[0-9a-f]+ 1536 $pool\$"
held 3 pools lease ring 5
expect 5 "$(member count)" "blocks of the lease"
lease=$(member lease)
"$CTL" pools >"$directory/pools"
expect 8 "$(column "$directory/pools" 1 IN-USE)" IN-USE
expect 5 "$(column "$directory/pools" 1 LEASED)" LEASED
expect 8 "$(column "$directory/pools" 1 HIGH)" HIGH
"$CTL" leases >"$directory/leases"
expect "$lease" "$(column "$directory/leases" 1 LEASE)" LEASE
expect "$pool" "$(column "$directory/leases" 1 POOL)" POOL
expect 5 "$(column "$directory/leases" 1 COUNT)" COUNT
expect 1536 "$(column "$directory/leases" 1 UNIT)" UNIT
expect 2 "$("$CTL" leases --pool "$pool" | wc -l)" "lines of the pool's leases"

# Whose is an address?
block=$(column "$directory/leases" 1 DMA-ADDR)
"$CTL" allocs --dma-addr "$block" >"$directory/lookup" || fail "the lookup fails"
expect "$pool" "$(column "$directory/lookup" 1 POOL)" "the pool that has an address"
expect "$block" "$(column "$directory/lookup" 1 BLOCK)" "the block that has an address"
expect "$lease" "$(column "$directory/lookup" 1 LEASE)" "the lease that has an address"

# A pool that is busy says what with, block by block, and goes by force only. Its slabs are its own.
"$CTL" pools destroy ring >"$directory/busy" 2>"$directory/err"
expect 1 $? "destroying a busy pool"
expect 9 "$(wc -l <"$directory/busy")" "lines of busy blocks"
expect 5 "$(awk -v lease="$lease" '$5 == lease' "$directory/busy" | wc -l)" "busy blocks of the lease"
"$CTL" --json pools destroy ring 2>/dev/null | grep -q '"busy":\[{"dma_addr"' || fail "the JSON of a busy pool"
"$CTL" free "$("$CTL" allocs | awk 'NR == 2 { print $1 }')" 2>/dev/null
expect 1 $? "freeing a pool's slab"
"$CTL" leases return "$lease" || fail "the lease cannot be returned"
expect 1 "$("$CTL" leases | wc -l)" "lines of leases"
"$CTL" leases return "$lease" 2>/dev/null
expect 1 $? "returning a lease twice"
first=$(awk 'NR == 2 { print $1 }' "$directory/busy")
"$CTL" pools free ring "$first" || fail "a block cannot be freed"
"$CTL" pools free ring "$first" 2>"$directory/err"
expect 1 $? "freeing a block twice"
"$CTL" pools trim ring >"$directory/trim" || fail "trim fails"
shows "$directory/trim" '^bytes [0-9]+$'
"$CTL" stats pools >"$directory/stats" || fail "stats pools fails"
shows "$directory/stats" '^NAME IN-USE BLOCKS BLOCK-SIZE SLABS POOL '
shows "$directory/stats" '^ring 2 [0-9]+ 1536 [0-9]+ '
"$CTL" stats | grep -q '^group pools$' || fail "stats does not tell of pools"
"$CTL" stats --json | grep -q '"pools":\[{"pool":' || fail "the JSON of stats does not tell of pools"
"$CTL" map --json | grep -q "\"pool\":$pool" || fail "the JSON of map does not tell of pools"
"$CTL" map | grep -Eq 'allocated, of these [0-9]+ in pools$' || fail "map does not tell of pools"
"$CTL" pools destroy ring --force >"$directory/busy" || fail "destroying by force fails"
expect 3 "$(wc -l <"$directory/busy")" "lines of blocks that were taken back"
release 3
release 2
release 1
expect 1 "$("$CTL" pools | wc -l)" "lines of pools in the end"

# What the memory cannot be is refused, and so is a second pool of a name as an operand.
"$CTL" pools create a 64 --caching wc >/dev/null 2>"$directory/err"
expect 1 $? "write-combined memory"
"$CTL" pools create twin 64 --device nic -- "$CTL" pools create twin 64 --device nic -- "$CTL" pools trim twin 2>"$directory/err"
expect 1 $? "a name of two pools"
shows "$directory/err" 'more than one pool named twin'
"$CTL" pools create a 64 -- "$directory/no-such-command" 2>"$directory/err"
expect 127 $? "a command that is not there"
"$CTL" pools create a 64 -- sh -c 'kill -USR1 $$'
expect 138 $? "a command that a signal ends"

# ---- bounce pools ----
held 4 bounces create 256K --device disk --min-align-mask 0xfff --areas 2 --max-size 1M
bounce=$(member bounce)
expect 4096 "$(member slot_size)" "the size of a slot, raised for the mask"
held 5 bounces map disk 10000 --direction to_device --align-offset 0x123
mapping=$(member mapping)
case $(member dma_addr) in
*123) ;;
*) fail "the mapping's low bits are not the buffer's: $line" ;;
esac
held 6 bounces lease "$bounce" --slots 4
"$CTL" bounces >"$directory/bounces" || fail "bounces fails"
expect "$bounce" "$(column "$directory/bounces" 1 BOUNCE)" BOUNCE
expect disk "$(column "$directory/bounces" 1 DEVICE)" DEVICE
expect 7 "$(column "$directory/bounces" 1 IN-USE)" IN-USE
expect 4 "$(column "$directory/bounces" 1 LEASED)" LEASED
expect 1048576 "$(column "$directory/bounces" 1 MAX)" MAX
"$CTL" mappings >"$directory/mappings" || fail "mappings fails"
expect "$mapping" "$(column "$directory/mappings" 1 MAPPING)" MAPPING
expect "$bounce" "$(column "$directory/mappings" 1 BOUNCE)" BOUNCE
expect to_device "$(column "$directory/mappings" 1 DIRECTION)" DIRECTION
expect 10000 "$(column "$directory/mappings" 1 SIZE)" SIZE
expect 2 "$("$CTL" leases --bounce "$bounce" | wc -l)" "lines of the bounce pool's leases"
"$CTL" bounces sync "$mapping" --offset 100 --size 50 --for device || fail "sync fails"
for words in "sync $mapping --for cpu" "sync $mapping --offset 9999 --size 2" "unmap $mapping --size 1" \
        "unmap $mapping --direction from_device" "destroy disk" "map disk 10M" "map disk 0"; do
        # shellcheck disable=SC2086
        "$CTL" bounces $words >/dev/null 2>&1
        expect 1 $? "the status of bounces $words"
done
"$CTL" bounces destroy disk 2>/dev/null >"$directory/busy"
expect 3 "$(wc -l <"$directory/busy")" "lines of what keeps a bounce pool busy"
"$CTL" bounces show disk | grep -q '^syncs 1$' || fail "bounces show does not count"
"$CTL" stats bounces | grep -q '^disk 7 ' || fail "stats does not tell of bounce pools"
"$CTL" bounces unmap "$mapping" --size 10000 --direction to_device || fail "unmap fails"
"$CTL" bounces destroy disk --force >/dev/null || fail "destroying by force fails"
release 6
release 5
release 4

# ---- mappings ----
"$CTL" alloc 64K --device nic --shareable >/dev/null || fail "alloc fails"
alloc=$("$CTL" allocs | awk 'NR == 2 { print $1 }')
held 7 mappings map "$alloc" --device other --offset 4K --size 8K --direction from_device
mapping=$(member mapping)
"$CTL" mappings >"$directory/mappings"
expect "$alloc" "$(column "$directory/mappings" 1 ALLOC)" ALLOC
expect 8192 "$(column "$directory/mappings" 1 SIZE)" SIZE
"$CTL" free "$alloc" 2>/dev/null
expect 1 $? "freeing what is mapped"
"$CTL" mappings unmap "$mapping" || fail "unmap fails"
"$CTL" mappings unmap "$mapping" 2>/dev/null
expect 1 $? "unmapping twice"
release 7

# A device that is closed by force says what it had.
held 8 pools create ring 64 --device nic --mask 64 --reserve 1
"$CTL" devices close "$(member device)" --force >"$directory/closed" || fail "closing by force fails"
expect ring "$(column "$directory/closed" 1 NAME)" NAME
release 8

# What is held ends with who holds it, also when its device goes on: an allocation keeps it.
"$CTL" pools create ring 64 --device nic -- true || fail "a pool for a device that is there already fails"
"$CTL" bounces create 64K --device nic -- true || fail "a bounce pool for a device that is there already fails"
expect 1 "$("$CTL" pools | wc -l)" "lines of pools in the end"
expect 1 "$("$CTL" bounces | wc -l)" "lines of bounce pools in the end"
"$CTL" free "$alloc" || fail "free fails"
"$CTL" check >/dev/null || fail "check finds something"
