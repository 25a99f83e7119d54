#!/bin/sh
# grants, where there is no Xen.
. "${TOP_SRCDIR:-.}/tests/lib/daemon.sh"
[ ! -e /dev/xen/privcmd ] || { echo "skipped: this is a dom0 of Xen's"; exit 77; }
directory=$(mktemp -d) || exit 99
trap 'rm -rf "$directory"' EXIT

# refused STATUS SENTENCE ARGUMENTS...
refused() {
        status=$1
        sentence=$2
        shift 2
        "$CTL" "$@" >"$directory/out" 2>"$directory/err"
        expect "$status" $? "the exit status of $*"
        grep -qE -e "$sentence" "$directory/err" || fail "wanted a line like \"$sentence\" in: $(cat "$directory/err")"
        [ ! -s "$directory/out" ] || fail "$* fails and prints: $(cat "$directory/out")"
}

refused 1 '^dmabrokerctl: There are no grants: ' grants
refused 1 '^dmabrokerctl: There are no grants: ' grants --guest vm --owner user:0
refused 2 'takes no operand|more' grants more
refused 1 '^dmabrokerctl: There are no grants: ' grants map vm 8,9,20+100
refused 1 '^dmabrokerctl: There are no grants: ' grants share vm 64K true
refused 1 '^dmabrokerctl: There are no grants: ' grants unmap 77
refused 2 'map' grants map vm
for refs in 8, ,8 8+ 8+0 x 4294967296 8+9999999 -1; do
        refused 2 'REFS|there is no option' grants map vm "$refs"
done
refused 2 'REFS has too many pages for one grant, which has at most 32768' grants map vm 8,9+32768
refused 2 'SIZE' grants share vm much
refused 2 'GRANT' grants unmap x
refused 2 'only|--guest' grants map vm 8 --guest vm
refused 2 'there is no option --device' grants --device card
"$CTL" --json grants 2>/dev/null >"$directory/out"
expect 1 $? "the exit status with --json"
grep -q '"reason": *"unsupported"' "$directory/out" || fail "JSON does not say why: $(cat "$directory/out")"
