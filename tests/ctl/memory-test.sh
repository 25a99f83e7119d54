#!/bin/sh
# alloc, free, allocs, regions, devices: memory that outlives the command, told in columns and in JSON.
. "${TOP_SRCDIR:-.}/tests/lib/daemon.sh"

directory=$(mktemp -d) || exit 99
trap 'rm -rf "$directory"' EXIT

# value NAME: of the pairs in $directory/alloc
value() {
        awk -v name="$1" '$1 == name { print $2 }' "$directory/alloc"
}

# column FILE ROW NAME: the cell in that row (the heading is row 0) under that title
column() {
        awk -v row="$2" -v name="$3" 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == name) c = i; n = NF }
                NR == row + 1 { if (!c || NF != n) exit 1; print $c }' "$1"
}

alloc() {
        "$CTL" alloc "$@" >"$directory/alloc" || fail "alloc $* fails"
}

# It stays, with all that was asked for.
alloc 1M --device card --mask 32 --align 2M --shareable --zero --wait 1 --high
number=$(value alloc)
address=$(value dma_addr)
expect 1048576 "$(value size)" size
expect simulated "$(value addressing)" addressing
[ $((address % 2097152)) -eq 0 ] || fail "$address is not aligned"
[ $((address)) -lt 4294967296 ] || fail "$address is not below 4 GiB"
"$CTL" allocs >"$directory/allocs" || fail "allocs fails"
expect 2 "$(wc -l <"$directory/allocs")" "lines of allocs"
expect "$number" "$(column "$directory/allocs" 1 ALLOC)" ALLOC
expect "$address" "$(column "$directory/allocs" 1 DMA-ADDR)" DMA-ADDR
expect owner "$(column "$directory/allocs" 1 LIFETIME)" LIFETIME
expect yes "$(column "$directory/allocs" 1 SHAREABLE)" SHAREABLE
expect 1048576 "$(column "$directory/allocs" 1 SIZE)" SIZE

# Its device, which it keeps, and its region.
"$CTL" devices >"$directory/devices"
expect card "$(column "$directory/devices" 1 NAME)" NAME
expect - "$(column "$directory/devices" 1 PARENT)" "PARENT, of which there is none"
expect 1 "$(column "$directory/devices" 1 ALLOCS)" ALLOCS
expect "$(value device)" "$(column "$directory/devices" 1 DEVICE)" DEVICE
"$CTL" regions >"$directory/regions"
expect "$(value region)" "$(column "$directory/regions" 1 REGION)" REGION
expect sim "$(column "$directory/regions" 1 SOURCE)" SOURCE

# What may be had of it.
"$CTL" quota --device "$(value device)" --set bytes=2M --set pools=0 >"$directory/quota" || fail "quota --device fails"
grep -q '^device card$' "$directory/quota" || fail "quota --device shows $(cat "$directory/quota")"
grep -q '^bytes 2097152 1048576$' "$directory/quota" || fail "quota --device shows $(cat "$directory/quota")"
grep -q '^pools 0 0$' "$directory/quota" || fail "quota --device shows $(cat "$directory/quota")"
grep -q '^connections' "$directory/quota" && fail "a device has connections"
"$CTL" quota --device "$(value device)" --set bytes=unlimited >/dev/null || fail "quota --device unlimited fails"

# The same device again, by name and by number.
alloc 4K --device card
expect "$(column "$directory/devices" 1 DEVICE)" "$(value device)" "the device of that name"
"$CTL" free "$(value alloc)" || fail "free fails"
alloc 4K --device "$(column "$directory/devices" 1 DEVICE)"
expect 3 "$("$CTL" allocs --device card | wc -l)" "lines of allocs of one device"
"$CTL" free "$(value alloc)" || fail "free fails"

# Whose is an address?
"$CTL" allocs --dma-addr "$(printf '0x%x' $((address + 5000)))" >"$directory/lookup" || fail "the lookup fails"
expect "$number" "$(column "$directory/lookup" 1 ALLOC)" "the allocation that holds an address"
"$CTL" allocs --machine-addr "$address" >"$directory/lookup" || fail "the lookup fails"
expect "$number" "$(column "$directory/lookup" 1 ALLOC)" "the allocation that holds an address"

# JSON is the daemon's own.
"$CTL" --json allocs | grep -q "^{\"allocs\":\[{\"alloc\":$number,.*\],\"more\":false}\$" || fail "the JSON of allocs"
"$CTL" alloc 4K --json | grep -q '^{"alloc":[0-9]*,"region":.*"addressing":"simulated".*}$' || fail "the JSON of alloc"
"$CTL" call coherent.list '{"limit": 1}' | grep -q '"more":true' || fail "the list has one element"
expect 3 "$("$CTL" allocs | wc -l)" "lines of allocs"

# Out to ordinary memory, where it has no address, and in again.
"$CTL" swap out "$number" >"$directory/alloc" || fail "swap out fails"
expect none "$(value addressing)" "addressing of what is swapped out"
expect "" "$(value dma_addr)" "an address of what is swapped out"
"$CTL" allocs --device card >"$directory/allocs"
expect - "$(column "$directory/allocs" 1 DMA-ADDR)" "DMA-ADDR of what is swapped out"
expect none "$(column "$directory/allocs" 1 ADDRESSING)" "ADDRESSING of what is swapped out"
expect none "$("$CTL" regions | awk '$3 == "anonymous" { print $NF }')" "ADDRESSING of its region"
"$CTL" allocs --dma-addr "$address" >/dev/null 2>&1
expect 1 $? "the lookup of where it was"
"$CTL" status --json | grep -q '"anonymous":{"total":1048576,"used":1048576,' || fail "status does not tell what is swapped out"
"$CTL" swap in "$number" --mask 31 --align 2M --wait 1 >"$directory/alloc" || fail "swap in fails"
expect simulated "$(value addressing)" "addressing of what is swapped in"
address=$(value dma_addr)
[ $((address % 2097152)) -eq 0 ] || fail "$address is not aligned"
[ $((address)) -lt 2147483648 ] || fail "$address is not below 2 GiB"
"$CTL" allocs --device card >"$directory/allocs"
expect "$address" "$(column "$directory/allocs" 1 DMA-ADDR)" DMA-ADDR
for words in "swap" "swap out" "swap over $number" "swap out $number --wait 1" "swap in here"; do
        "$CTL" $words >/dev/null 2>&1
        expect 2 $? "the status of $words"
done
"$CTL" swap in 12345678 >/dev/null 2>&1
expect 1 $? "swapping in what is not there"

# A device with memory is closed by force only.
"$CTL" devices close card 2>"$directory/err"
expect 1 $? "closing a device that has memory"
"$CTL" devices close card --force >"$directory/closed" || fail "closing by force fails"
expect "$number" "$(column "$directory/closed" 1 FREED)" FREED

# Several are freed, also when one of them is gone already.
alloc 4K
first=$(value alloc)
alloc 4K
"$CTL" free "$first" "$number" "$(value alloc)" 2>"$directory/err"
expect 1 $? "freeing one that is gone"
expect 1 "$(wc -l <"$directory/err")" "complaints"
for left in $("$CTL" allocs | awk 'NR > 1 { print $1 }'); do
        "$CTL" free "$left" || fail "free $left fails"
done
expect 1 "$("$CTL" allocs | wc -l)" "lines of allocs in the end"
expect 1 "$("$CTL" devices | wc -l)" "lines of devices in the end"

# A device is held open until interrupted, and memory reserved for it serves it.
mkfifo "$directory/held"
"$CTL" devices open nic --mask 36 --boundary 64K --json >"$directory/held" &
holder=$!
exec 3<"$directory/held"
read -r line <&3
case $line in
*'"mask":"0xfffffffff"'*) ;;
*) fail "devices open says: $line" ;;
esac
"$CTL" devices reserve nic 1M --stride 128K --usable 64K >"$directory/alloc" || fail "reserve fails"
region=$(value region)
expect 524288 "$(value usable_bytes)" "usable bytes"
alloc 4K --device nic
expect "$region" "$(value region)" "the region that serves the device"
"$CTL" devices unreserve nic "$region" 2>/dev/null
expect 1 $? "giving back what is in use"
"$CTL" free "$(value alloc)"
"$CTL" devices unreserve nic "$region" || fail "unreserve fails"
kill "$holder"
wait "$holder"
expect 0 $? "the status of an interrupted devices open"
exec 3<&-
expect 1 "$("$CTL" devices | wc -l)" "lines of devices after the holder's end"
