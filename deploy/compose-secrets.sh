#!/bin/sh
# Makes what deploy/compose.yaml needs and nobody may know: deploy/.env and deploy/secrets. What is
# there already stays.
set -eu
cd "$(dirname "$0")"
umask 077
random() { openssl rand -hex 24; }

if [ ! -e .env ]; then
    printf 'POSTGRES_PASSWORD=%s\nS3_SECRET=%s\n' "$(random)" "$(random)" > .env
fi
mkdir -p secrets
cd secrets
if [ ! -e api-key ]; then
    random > api-key
    hash="$(tr -d '\n' < api-key | openssl dgst -sha256 -r | cut -d' ' -f1)"
    printf 'admin:%s\n' "$hash" > api-keys
fi
if [ ! -e identity.key ]; then
    openssl genpkey -algorithm ed25519 -out identity.key
    openssl pkey -in identity.key -pubout -out identity.pub
fi
# Containers read them as another user; the folder lets nobody in.
chmod 644 api-keys identity.key identity.pub
echo "Authorization: Bearer <the text in deploy/secrets/api-key>"
