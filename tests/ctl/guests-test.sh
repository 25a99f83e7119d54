#!/bin/sh
# guests, windows, attach, detach, and quotas of guests, where nobody can be asked about any guest.

# daemon.sh runs this script again: the directory is made by the first run and removed by the second.
GUESTS=${GUESTS:-$(mktemp -d)} || exit 99
export GUESTS
vm=5d2c1f0e-8b7a-4c69-9e3d-1a2b3c4d5e6f
dom=0f1e2d3c-4b5a-4697-8877-665544332211
cat >"$GUESTS/configuration" <<END
[guests]
directory = $GUESTS/sockets
libvirt = qemu+unix:///system?socket=$GUESTS/nobody
[guest vm]
uuid = $vm
qmp = $GUESTS/qmp
[guest dom]
uuid = $dom
[quota kvm:$dom]
bytes = 4M
END
# shellcheck disable=SC2034
WITH_DAEMON_OPTIONS="--source sim --config $GUESTS/configuration"
. "${TOP_SRCDIR:-.}/tests/lib/daemon.sh"
watcher=
trap 'kill $watcher 2>/dev/null; rm -rf "$GUESTS"' EXIT

# column FILE ROW NAME: the cell in that row (the heading is row 0) under that title
column() {
        awk -v row="$2" -v name="$3" 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == name) c = i; n = NF }
                NR == row + 1 { if (!c || NF != n) exit 1; print $c }' "$1"
}

shows() {
        grep -qE -e "$2" "$1" || fail "wanted a line like \"$2\" in: $(cat "$1")"
}

# refused SENTENCE ARGUMENTS...
refused() {
        sentence=$1
        shift
        "$CTL" "$@" >"$GUESTS/out" 2>"$GUESTS/err"
        expect 1 $? "the exit status of $*"
        shows "$GUESTS/err" "^dmabrokerctl: $sentence\$"
        [ ! -s "$GUESTS/out" ] || fail "$* fails and prints: $(cat "$GUESTS/out")"
}

# The list. Why nothing is known is not known at once.
tries=0
until "$CTL" guests >"$GUESTS/list" && [ "$(column "$GUESTS/list" 1 WHY)" != - ]; do
        [ $((tries += 1)) -lt 2000 ] || fail "nobody says why nothing is known: $(cat "$GUESTS/list")"
done
expect "GUEST UUID STATE VIA CONNECTED WINDOWS BYTES WHY" "$(head -1 "$GUESTS/list")" "the titles"
expect 3 "$(wc -l <"$GUESTS/list")" "lines of the list"
expect vm "$(column "$GUESTS/list" 1 GUEST)" GUEST
expect "$vm" "$(column "$GUESTS/list" 1 UUID)" UUID
expect unknown "$(column "$GUESTS/list" 1 STATE)" STATE
expect qmp "$(column "$GUESTS/list" 1 VIA)" VIA
expect no "$(column "$GUESTS/list" 1 CONNECTED)" CONNECTED
expect 0 "$(column "$GUESTS/list" 1 WINDOWS)" WINDOWS
expect 0 "$(column "$GUESTS/list" 1 BYTES)" BYTES
column "$GUESTS/list" 1 WHY | grep -qF "$GUESTS/qmp" || fail "WHY does not name the monitor: $(cat "$GUESTS/list")"
expect libvirt "$(column "$GUESTS/list" 2 VIA)" "VIA of the other"
"$CTL" guests --json >"$GUESTS/json" || fail "guests --json fails"
shows "$GUESTS/json" "^\\{\"items\":\\[\\{\"guest\":\"vm\",\"uuid\":\"$vm\",.*\"why\":\"[^\"]+\",.*\\}\\],\"more\":false\\}\$"
"$TOP_BUILDDIR/tests/ctl/on-terminal" 80 "$CTL" guests >"$GUESTS/terminal"
if [ $? -ne 77 ]; then
        shows "$GUESTS/terminal" "^vm: .*$GUESTS/qmp.*"
        awk '!/^(vm|dom): / && length > 80 { exit 1 }' "$GUESTS/terminal" || fail "the table is wider than the terminal"
fi
"$CTL" guests show "$dom" >"$GUESTS/shown" || fail "guests show fails"
shows "$GUESTS/shown" '^guest dom$'
shows "$GUESTS/shown" "^owner kvm:$dom\$"
shows "$GUESTS/shown" "^channel $GUESTS/sockets/$dom.channel\$"
refused 'There is no guest nobody.*' guests show nobody
expect "guests 2" "$("$CTL" status | grep '^guests ')" "the status"

# Windows: there are none.
expect "WINDOW GUEST SIZE STATE GUEST-ADDR" "$("$CTL" windows)" "the empty table"
expect "WINDOW GUEST SIZE STATE GUEST-ADDR" "$("$CTL" windows --guest vm)" "the empty table of a guest"
expect '{"items":[],"more":false}' "$("$CTL" --json windows)" "the JSON of windows"
refused 'There is no guest nobody.*' windows --guest nobody
refused 'There is no window 4711' detach 4711
refused 'There is no window 4711' detach 4711 --force

# attach
refused 'There is no guest nobody in the configuration.*' attach nobody 16M
refused 'A window has a power of two of bytes, at least 1048576.*' attach vm 3M
refused 'A window has a power of two of bytes, at least 1048576.*' attach vm 64K
refused "The guest vm cannot be reached: .*$GUESTS/qmp.*" attach vm 16M
refused "The guest vm cannot be reached: .*" attach "$vm" 16M
refused 'The guest dom cannot be reached: .*' attach dom 16M
"$CTL" --json attach vm 16M >"$GUESTS/json" 2>/dev/null
expect 1 $? "the exit status of attach --json"
shows "$GUESTS/json" '^\{"error":\{.*"reason":"source_unavailable".*\}\}$'

# ... --dry-run: for QEMU itself, and for a domain
"$CTL" attach vm 1G --dry-run >"$GUESTS/advice" || fail "attach --dry-run fails"
shows "$GUESTS/advice" "path=$GUESTS/sockets/$vm.channel,"
shows "$GUESTS/advice" 'virtserialport,.*name=org\.dmabroker\.0'
shows "$GUESTS/advice" "-qmp unix:$GUESTS/qmp,"
shows "$GUESTS/advice" 'pcie-root-port,.*pref64-reserve=2147483648$'
"$CTL" attach vm 1M --dry-run >"$GUESTS/advice" || fail "attach --dry-run of a small window fails"
grep -q pref64-reserve "$GUESTS/advice" && fail "a small window needs a port of its own: $(cat "$GUESTS/advice")"
"$CTL" attach dom 1G --dry-run >"$GUESTS/advice" || fail "attach --dry-run for a domain fails"
shows "$GUESTS/advice" "<source mode='connect' path='$GUESTS/sockets/$dom.channel'>"
shows "$GUESTS/advice" "<controller type='pci' .*model='pcie-root-port'"
shows "$GUESTS/advice" "'pref64-reserve' .*'2147483648'"
"$CTL" attach dom 1G --dry-run --json >"$GUESTS/json" || fail "attach --dry-run --json fails"
shows "$GUESTS/json" '^\{"size":1073741824,"channel":"[^"]*","advice":".*"\}$'
refused 'There is no guest nobody.*' attach nobody 1G --dry-run
refused 'A window has a power of two of bytes.*' attach vm 3M --dry-run
expect 1 "$("$CTL" windows | wc -l)" "lines of windows after that"

# Quotas, by name and by owner; the configuration's, too.
"$CTL" quota vm --set bytes=64M --set allocs=7 >/dev/null || fail "quota of a guest fails"
for name in vm "$vm" "kvm:$vm"; do
        "$CTL" quota "$name" >"$GUESTS/quota" || fail "quota $name fails"
        shows "$GUESTS/quota" "^owner kvm:$vm\$"
        shows "$GUESTS/quota" '^bytes 67108864 0$'
        shows "$GUESTS/quota" '^allocs 7 0$'
done
"$CTL" quota "kvm:$vm" --set bytes=unlimited --guarantee 8M >/dev/null || fail "quota of a guest as an owner fails"
"$CTL" quota vm >"$GUESTS/quota"
shows "$GUESTS/quota" '^bytes unlimited 0$'
shows "$GUESTS/quota" '^guaranteed 8388608$'
"$CTL" quota dom >"$GUESTS/quota"
shows "$GUESTS/quota" '^bytes 4194304 0$'
refused 'There is no guest nobody.*' quota nobody
refused 'There is no guest nobody.*' quota nobody --set bytes=1M

# evict: nothing is there, which is as well.
expect "" "$("$CTL" guests evict vm)" "what evict says"
expect '{"ok":true}' "$("$CTL" guests evict "$dom" --json)" "the JSON of evict"
refused 'There is no guest nobody.*' guests evict nobody

# exchange: there is no Xen. What cannot be is not asked for.
refused 'Only Xen exchanges frames: .*' exchange 2M 0x1f400+512 --guest vm --given-up --mask 32 --pfn 0x1000
refused 'guest is missing.*' exchange 8K 0x1f400 0x1f402
for wrong in "3K 0x1f400" "512M 0x1f400" "2K 0x1f400" "4K 128000" "4K 0x1f400+0" "4K 0x1f400+1x" "4K 0x1f400+" "8K 0x1f400" \
        "4K 0x1f400+65536 0x1" "4K 0x1f400 --pfn 7" "4K"; do
        # shellcheck disable=SC2086
        "$CTL" exchange $wrong --guest vm >"$GUESTS/out" 2>"$GUESTS/err"
        expect 2 $? "the exit status of exchange $wrong"
        [ -s "$GUESTS/err" ] || fail "exchange $wrong says nothing"
done

# watch: somebody connects to the channel. From outside nobody knows when watching has begun, so it goes on until then.
for json in "" --json; do
        : >"$GUESTS/events"
        timeout 60 "$CTL" watch guest --count 1 $json >"$GUESTS/events" &
        watcher=$!
        until [ -s "$GUESTS/events" ]; do
                kill -0 "$watcher" 2>/dev/null || break
                timeout 0.2 "$CTL" --socket "$GUESTS/sockets/$vm.channel" version >/dev/null 2>&1
        done
        wait "$watcher" || fail "watch $json fails"
        watcher=
        if [ -z "$json" ]; then
                shows "$GUESTS/events" '^[^ ]+ guest vm has connected to its channel$'
        else
                shows "$GUESTS/events" "^\\{\"time\":.*\"topic\":\"guest\",.*\"name\":\"vm\",\"change\":\"connected\"\\}\$"
        fi
done
"$CTL" check >/dev/null || fail "the books are wrong"
