#!/bin/sh
# SPDX-License-Identifier: MIT
# A storage provider of Ganeti's disk template ext: a file behind a loop device. Its action is the name it is called by.
set -eu
directory=/srv/ganeti/volumes
mkdir -p "$directory"
file=$directory/$VOL_NAME

attached() {
    losetup --list --noheadings --output NAME,BACK-FILE | while read -r device backing; do
        [ "$backing" != "$file" ] || echo "$device"
    done
}

case ${0##*/} in
create) truncate --size "${VOL_SIZE}M" "$file" ;;
grow) truncate --size "${VOL_NEW_SIZE}M" "$file" && for device in $(attached); do losetup --set-capacity "$device"; done ;;
attach) [ -n "$(attached)" ] || losetup --find "$file" && attached ;;
detach) for device in $(attached); do losetup --detach "$device"; done ;;
remove) for device in $(attached); do losetup --detach "$device"; done && rm -f "$file" ;;
setinfo | verify) ;;
esac
