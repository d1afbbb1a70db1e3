#!/bin/sh
# Makes a machine of the test's own out of this one, for as long as it runs: its files are laid over this machine's, in
# memory, and /dev, /root, /run and /tmp are its own. Started in namespaces of its own:
#
#   unshare --mount --propagation private --net --uts --pid --fork host.sh NAME DIRECTORY BINARY SOURCES
#
# DIRECTORY is an empty one, for the mounts, with a file `hosts`. BINARY and the directory SOURCES are seen in
# /root/ocpp-tunnel, as somebody has them who has built the agent.
set -eu

name=$1 dir=$2 binary=$3 sources=$4
hostname "$name"
ip link set lo up

mkdir "$dir/memory" "$dir/root"
mount -t tmpfs tmpfs "$dir/memory"
mkdir "$dir/memory/upper" "$dir/memory/work"
root=$dir/root
mount -t overlay overlay -o "lowerdir=/,upperdir=$dir/memory/upper,workdir=$dir/memory/work" "$root"
mount -t proc proc "$root/proc"
for directory in run tmp dev root; do mount -t tmpfs -o mode=0755 tmpfs "$root/$directory"; done
chmod 1777 "$root/tmp"
mkdir "$root/run/sshd" "$root/dev/pts" "$root/dev/shm"
for node in null zero full random urandom tty; do
    : >"$root/dev/$node"
    mount --bind "/dev/$node" "$root/dev/$node"
done
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"

cp "$dir/hosts" "$root/etc/hosts"
rm -f "$root/etc/resolv.conf"
echo "nameserver 127.0.0.1" >"$root/etc/resolv.conf"
# Another machine has other keys, and none of this one's configuration.
rm -rf "$root"/etc/ssh/ssh_host_* "$root"/etc/ssh/sshd_config.d/* "$root/etc/ocpp-tunnel" "$root/var/lib/ocpp-tunnel"
# The binary in there is run by ordinary users, too.
chmod 711 "$root/root"
mkdir -p "$root/root/ocpp-tunnel/cross" "$root/etc/ssh/sshd_config.d"
: >"$root/root/ocpp-tunnel/ocpp-tunnel"
mount --bind "$binary" "$root/root/ocpp-tunnel/ocpp-tunnel"
mount --bind "$sources/cross" "$root/root/ocpp-tunnel/cross"
cp "$sources/tests/peers/systemctl" "$root/usr/bin/systemctl"
chmod 755 "$root/usr/bin/systemctl"
ln -sf /root/ocpp-tunnel/ocpp-tunnel "$root/usr/bin/ocpp-tunnel"

: >"$dir/ready"
# The first process of its namespace: everything ends with it, and it collects whoever is nobody's child.
exec chroot "$root" sh -c 'while sleep 1; do :; done'
