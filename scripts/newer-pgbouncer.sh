#!/usr/bin/env bash
# Puts a pooler that keeps prepared statements but no sessions into target/test-pgbouncer, which takes PgBouncer 1.21. Debian 12 has an older one: there it
# is that of Debian 13 with the libraries that it was built for, from where this machine has its packages, in a folder of its own.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=$PWD/target/test-pgbouncer
[[ ! -x $folder/pgbouncer ]] || exit 0
rm -rf "$folder"
mkdir -p "$folder"

version=$(/usr/sbin/pgbouncer --version | sed -n 's/^PgBouncer //p')
if printf '%s\n' 1.21 "$version" | sort --version-sort --check=quiet; then
  ln -s /usr/sbin/pgbouncer "$folder/pgbouncer"
  exit 0
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work"/{lists,cache,sources,packages}
: >"$work/status"
codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
# As it is set up: what is there of it need not have been fetched.
site=$(apt-get indextargets -o APT::Get::IndexTargets::ReleaseInfo=false --format '$(RELEASE) $(COMPONENT) $(SITE)' |
  sed -n "s/^\($codename\|stable\|oldstable\) main //p" | sort -u | head -n 1)
if [[ -z $site ]]; then
  echo "No source of Debian's packages is set up from which PgBouncer of Debian 13 could be had." >&2
  exit 1
fi
echo "deb $site trixie main" >"$work/sources/next.list"

apt=(apt-get -qq -o "Dir::State::lists=$work/lists" -o "Dir::State::status=$work/status" -o "Dir::Cache=$work/cache"
  -o Dir::Etc::sourcelist=/dev/null -o "Dir::Etc::sourceparts=$work/sources" -o APT::Sandbox::User=)
"${apt[@]}" update
(
  cd "$work/packages"
  "${apt[@]}" download pgbouncer libc6 libevent-2.1-7t64 libssl3t64 libcares2 libpam0g libsystemd0 libcap2 libaudit1 libcap-ng0 \
    libzstd1 zlib1g
)
for package in "$work"/packages/*.deb; do
  dpkg-deb --extract "$package" "$folder"
done

cat >"$folder/wrapper" <<'WRAPPER'
#!/bin/sh
here=${0%/*}
exec "$here"/usr/lib/*/ld-linux-*.so.* --library-path "$(echo "$here"/usr/lib/*-linux-gnu)" "$here/usr/sbin/pgbouncer" "$@"
WRAPPER
chmod 755 "$folder/wrapper"
"$folder/wrapper" --version >/dev/null
mv "$folder/wrapper" "$folder/pgbouncer"
