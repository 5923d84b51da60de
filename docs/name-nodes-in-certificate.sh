#!/bin/sh
# SPDX-License-Identifier: MIT
# name-nodes-in-certificate.sh NODE...: as root, on the master node; NODE is each node's full name.
#
# Ganeti 3.1.0~rc2 (Debian 13) compares the name in the cluster's certificate, which is always ganeti.example.com, with
# the name that a node's address leads to, and so ends every export (https://github.com/ganeti/ganeti/issues/1839).
# This makes the certificate anew with the nodes' names beside its own. The key and the subject stay, so that whatever
# they have signed remains valid. `gnt-cluster renew-crypto --new-cluster-certificate` undoes it.
set -eu
[ $# -gt 0 ] || { echo "usage: $0 NODE..." >&2; exit 2; }
umask 077
cd /var/lib/ganeti
trap 'rm -f new.crt new.pem' EXIT
names=DNS:ganeti.example.com$(printf ',DNS:%s' "$@")
openssl req -x509 -new -key server.pem -sha256 -days 1825 -subj /CN=ganeti.example.com \
    -addext "subjectAltName=$names" -out new.crt
openssl pkey -in server.pem -out new.pem
cat new.crt >>new.pem
cat new.pem >server.pem # in place: the owner and the mode stay
