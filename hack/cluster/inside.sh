#!/bin/sh
# The first process in the cluster's own network, mount and process namespaces; becomes pause.
# Usage: inside.sh RUN PAUSE    RUN: the folder of this run, PAUSE: the program that stays.
set -eu
run=$1 pause=$2
# Pods' mounts must reach the kubelet's, so mounts are shared among all that is inside.
mount --make-rshared /
# What the programs write to fixed places goes with the namespace.
for folder in /run /var/log /var/lib; do mount -t tmpfs -o mode=755 tmpfs "$folder"; done
echo 1 > /proc/sys/net/ipv4/ip_forward
echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables
# The kubelet wants these of the whole machine; it finds them as it likes and changes nothing.
pretend() {
  echo "$2" > "$run/$(basename "$1")"
  mount --bind "$run/$(basename "$1")" "/proc/sys/$1"
}
pretend vm/overcommit_memory 1
pretend kernel/panic 10
pretend kernel/panic_on_oops 1
ip link set lo up
touch "$run/inside"
exec "$pause"
