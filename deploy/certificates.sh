#!/bin/sh
# Make certificates for TLS: FOLDER/NAME.pem and .key, signed by FOLDER/ca.pem, which is made where missing.
#
#     deploy/certificates.sh FOLDER NAME [HOST ...]
#     deploy/certificates.sh certificates server derma.clinic 10.0.0.5    # of a server that has this name and address
#     deploy/certificates.sh certificates alice                           # of a caller
#
# Whoever holds ca.key can let anyone in: keep it off the server. Needs OpenSSL 3.
set -eu
umask 077
folder=$1 name=$2
shift 2
mkdir -p "$folder"

certificate() { # name, days, extensions, more options of openssl
    file=$1 days=$2 extensions=$3
    shift 3
    printf '[req]\ndistinguished_name = dn\nprompt = no\n[dn]\nCN = %s\n[of_it]\n%s\n' "$file" "$extensions" |
        openssl req -x509 -config /dev/stdin -extensions of_it -days "$days" "$@" \
            -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
            -keyout "$folder/$file.key" -out "$folder/$file.pem"
    chmod 644 "$folder/$file.pem"
}

if ! [ -e "$folder/ca.pem" ]; then
    certificate ca 3650 'basicConstraints = critical, CA:true
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash'
fi

use=clientAuth names=
if [ $# -gt 0 ]; then
    # The launcher, on the server itself, calls 127.0.0.1 and shows the server's certificate.
    use=serverAuth,clientAuth names='subjectAltName = DNS:localhost, IP:127.0.0.1'
    for host; do
        case $host in
        *[!0-9.]*) names="$names, DNS:$host" ;;
        *) names="$names, IP:$host" ;;
        esac
    done
fi
certificate "$name" 365 "basicConstraints = critical, CA:false
keyUsage = critical, digitalSignature
extendedKeyUsage = $use
$names" -CA "$folder/ca.pem" -CAkey "$folder/ca.key"
echo "$folder/$name.pem and $name.key, valid for 365 days"
