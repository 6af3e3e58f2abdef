#!/bin/sh
# What the nodes of the cluster in docker-compose.yml share besides the database: made once, at random.
set -eu
secrets=${1:-/secrets} workspace=${2:-/workspace} node=${3:-10001} database=${4:-postgres} artifacts=${5:-/artifacts}
# A start that was broken off may have left something.
rm -f "$secrets"/*.new
umask 077
if [ ! -e "$secrets/trine.toml" ]; then
    # Letters and digits only: it stands in a URL.
    password=$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')
    printf %s "$password" >"$secrets/password.new"
    chown "$database" "$secrets/password.new"
    mv "$secrets/password.new" "$secrets/password"
    {
        echo "database = \"postgres://trine:$password@db/trine\""
        echo "webhook_secrets = [\"whsec_$(head -c 32 /dev/urandom | base64 -w 0)\"]"
    } >"$secrets/trine.toml.new"
    chown "$node" "$secrets/trine.toml.new"
    mv "$secrets/trine.toml.new" "$secrets/trine.toml"
fi
# Each reads what is its own there.
chmod 711 "$secrets"
chown "$node" "$workspace" "$artifacts"
