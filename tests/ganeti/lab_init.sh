#!/bin/sh
# SPDX-License-Identifier: MIT
# The first process of the lab's namespaces: lab_init.sh STATE NODE NODE_IP BRIDGE INSTALLED. Ends with the lab.
set -eu
state=$1 node=$2 address=$3 bridge=$4 installed=$5

mount --make-rprivate /
mount -t proc proc /proc
mount -t sysfs sysfs /sys # the new network's view of it: noded looks for the bridge there
while read -r name path; do
    mount --bind "$state/$name" "$path"
done <<EOF
lib /var/lib/ganeti
log /var/log/ganeti
etc /etc/ganeti
srv /srv/ganeti
ssh /root/.ssh
hosts /etc/hosts
hostname /etc/hostname
default /etc/default/ganeti
EOF
# The definition may be installed on this machine: of one that is in two places, gnt-os diagnose ends with a traceback.
[ $installed = yes ] || [ ! -d /usr/share/ganeti/os ] || mount -t tmpfs -o mode=755 tmpfs /usr/share/ganeti/os
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -m 1777 /run/lock
hostname "$node"
ip link set lo up
ip link add "$bridge" type bridge
ip addr add "$address/24" dev "$bridge"
ip link set "$bridge" up
touch "$state/ready"
# Orphans become ours: waiting reaps them.
while :; do
    sleep 3600 &
    wait $! || true
done
