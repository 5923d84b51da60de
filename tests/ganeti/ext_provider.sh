#!/bin/sh
# SPDX-License-Identifier: MIT
# A storage provider of Ganeti's disk template ext: a file behind a loop device. Its action is the name it is called by.
set -eu
directory=/srv/ganeti/volumes
mkdir -p "$directory"
file=$directory/$VOL_NAME
holder=/run/loopfile.$VOL_NAME

attached() {
    losetup --list --noheadings --output NAME,BACK-FILE | while read -r device backing; do
        [ "$backing" != "$file" ] || echo "$device"
    done
}

# The device is detached at once, which takes effect when the process that holds it ends: at the latest with the lab.
attach() {
    device=$(losetup --find --show "$file")
    exec 9<"$device"
    sleep infinity </dev/null >/dev/null 2>&1 &
    echo $! >"$holder"
    exec 9<&-
    losetup --detach "$device"
    echo "$device"
}

detach() {
    [ -e "$holder" ] || return 0
    kill "$(cat "$holder")" || true
    rm "$holder"
    for _ in $(seq 100); do [ -n "$(attached)" ] && sleep 0.02 || return 0; done
    echo "$file is still in use" >&2
    return 1
}

case ${0##*/} in
create) truncate --size "${VOL_SIZE}M" "$file" ;;
grow) truncate --size "${VOL_NEW_SIZE}M" "$file" && for device in $(attached); do losetup --set-capacity "$device"; done ;;
attach) if [ -n "$(attached)" ]; then attached; else attach; fi ;;
detach) detach ;;
remove) detach && rm -f "$file" ;;
setinfo | verify) ;;
esac
