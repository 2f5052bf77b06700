#!/bin/sh
# unpack_rabbitmq.sh VERSION FOLDER: RabbitMQ 4.0 or 4.3 in FOLDER/bin, beside whatever the machine has. Needs no root:
# Debian's packages of a newer suite are unpacked, not installed, and run with the C library that came with them.
# Ends with 3 if this version cannot be had here, with 1 if something broke on the way. Done already: does nothing.
set -eu
version=$1
case $version in
4.3) suite=sid more="erlang-eunit libsctp1" ;;
4.0) suite=trixie more="erlang-parsetools" ;;
*) echo "expected version 4.0 or 4.3, got '$version'" >&2 && exit 1 ;;
esac
mkdir -p "$2"
folder=$(cd "$2" && pwd)

# What was made by this recipe, in this place: the programs below hold their own paths.
recipe() { echo "$folder" && cat "$0"; }
if recipe | cmp -s - "$folder/.complete"; then
    exit 0
fi
impossible() {
    echo "RabbitMQ $version cannot be had here: $1" >&2
    exit 3
}
for tool in apt-get dpkg; do
    command -v "$tool" >/dev/null 2>&1 || impossible "it is unpacked from Debian's packages, and there is no $tool."
done
[ "$(dpkg --print-architecture)" = amd64 ] || impossible "this way is known for amd64, not for $(dpkg --print-architecture)."
keys=/usr/share/keyrings/debian-archive-keyring.gpg
[ -e "$keys" ] || impossible "Debian's keys are missing; install debian-archive-keyring."

echo "unpacking Debian $suite's RabbitMQ into $2; the tests start nodes of their own with it"
rm -rf "$folder/.complete" "$folder/root" "$folder/bin" "$folder/work"
work=$folder/work root=$folder/root
mkdir -p "$work/sources" "$work/lists/partial" "$work/archives/partial" "$root" "$folder/bin"
trap 'rm -rf "$work"' EXIT
# From the mirror that this machine uses, if it uses one of Debian.
mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 2>/dev/null | grep -m 1 '/debian/*$' || true)
cat >"$work/sources/newer.sources" <<END
Types: deb
URIs: ${mirror:-http://deb.debian.org/debian}
Suites: $suite
Components: main
Signed-By: $keys
END
apt() {
    apt-get -qq -o Debug::NoLocking=1 -o Dir::Etc::sourcelist=/dev/null -o "Dir::Etc::sourceparts=$work/sources" \
        -o "Dir::State::lists=$work/lists" -o "Dir::Cache=$work" "$@" </dev/null >>"$work/log" 2>&1
}
failed() {
    tail -n 20 "$work/log" >&2
    impossible "$1"
}
apt update || failed "apt-get update failed for Debian $suite."
erlang="base asn1 crypto eldap inets mnesia os-mon public-key runtime-tools ssl syntax-tools tools xmerl"
packages="libc6 libgcc-s1 libstdc++6 libsystemd0 libtinfo6 zlib1g libssl3t64 libzstd1 libcap2 rabbitmq-server $more"
for part in $erlang; do packages="$packages erlang-$part"; done
# shellcheck disable=SC2086  # names of packages, one word each
(cd "$work" && apt download $packages) || failed "Debian $suite has no longer what RabbitMQ $version was unpacked from."
found=$(dpkg-deb --field "$(echo "$work"/rabbitmq-server_*.deb)" Version)
case $found in
"$version".*) ;;
*) impossible "Debian $suite has moved on to $found. What decides is 4.0, of the suite that stays as it is." ;;
esac
for package in "$work"/*.deb; do dpkg-deb --extract "$package" "$root"; done

# The programs want a newer C library than the machine's: each is started by the loader that was unpacked with it.
loader=$root/usr/lib64/ld-linux-x86-64.so.2
libraries=$root/usr/lib/x86_64-linux-gnu
erlang=$root/usr/lib/erlang
programs=$(echo "$erlang"/erts-*/bin)
starter() {
    printf '#!/bin/sh\n%s\n' "$2" >"$1"
    chmod +x "$1"
}
for name in beam.smp epmd erl_child_setup erlexec escript heart inet_gethost; do
    mv "$programs/$name" "$programs/$name.elf"
    starter "$programs/$name" \
        "exec '$loader' --argv0 '$programs/$name' --library-path '$libraries' '$programs/$name.elf' \"\$@\""
done
for program in "$erlang"/lib/os_mon-*/priv/bin/cpu_sup "$erlang"/lib/os_mon-*/priv/bin/memsup; do
    mv "$program" "$program.elf"
    starter "$program" "exec '$loader' --argv0 '$program' --library-path '$libraries' '$program.elf' \"\$@\""
done
# Debian's erl looks for Erlang in /usr/lib/erlang, and nothing tells it otherwise.
starter "$programs/erl" "export ROOTDIR='$erlang' BINDIR='$programs' EMU=beam PROGNAME=erl
exec '$programs/erlexec' \"\$@\""
cp "$programs/erl" "$erlang/bin/erl"
cp "$programs/escript" "$erlang/bin/escript"
for name in erl epmd escript; do ln -s "$programs/$name" "$folder/bin/$name"; done
for name in rabbitmq-server rabbitmqctl rabbitmq-diagnostics rabbitmq-plugins rabbitmq-queues; do
    starter "$folder/bin/$name" \
        "PATH='$folder/bin':\$PATH exec '$(echo "$root"/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin)/$name' \"\$@\""
done
if ! "$folder/bin/erl" -noshell -eval 'ok = crypto:start(), halt(0).' >"$work/log" 2>&1; then
    failed "its Erlang does not run on this machine."
fi
recipe >"$folder/.complete"
