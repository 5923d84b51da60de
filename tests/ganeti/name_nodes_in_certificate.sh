#!/bin/sh
# SPDX-License-Identifier: MIT
# Let the cluster's certificate name the nodes too, with the key and the subject that it has: what the README tells
# for Ganeti 3.1.0~rc2, which exports to no node otherwise. name_nodes_in_certificate.sh NODE...
set -eu
umask 077
cd /var/lib/ganeti
names=DNS:ganeti.example.com$(printf ',DNS:%s' "$@")
openssl req -x509 -new -key server.pem -sha256 -days 1825 -subj /CN=ganeti.example.com \
    -addext "subjectAltName=$names" -out new.crt
openssl pkey -in server.pem -out new.pem
cat new.crt >>new.pem
cat new.pem >server.pem # the owner and the mode stay
rm new.crt new.pem
