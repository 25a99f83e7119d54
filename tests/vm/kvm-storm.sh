#!/bin/sh
# Two real guests beside a real daemon, in QEMUs of ours and then in the hands of a libvirtd of ours: everything happens to one of
# them, and the other one works. kvm-storm.c says what is proven.
#
# usage: kvm-storm.sh [qemu|libvirt …]
#
# ROUNDS, SEED, EVENT and DEADLY as kvm-storm.c has them; but for that, few events.
. "$(dirname "$0")/initrd.sh"
need_machine

ROUNDS=${ROUNDS:-6} PATIENCE=$((300 + ${ROUNDS:-6} * 20))
export ROUNDS PATIENCE
[ $# -gt 0 ] || set -- qemu libvirt
for bed; do
        echo "=== $bed"
        case $bed in
        qemu) PROGRAM=kvm-storm "$(dirname "$0")/kvm.sh" ;;
        libvirt) PROGRAM=kvm-storm "$(dirname "$0")/kvm-libvirt.sh" ;;
        esac
        status=$?
        # One that cannot be had here is told above.
        [ $status -eq 0 ] || { [ $status -eq 77 ] && [ "$bed" = libvirt ]; } || exit $status
done
exit 0
