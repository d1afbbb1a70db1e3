#!/bin/sh
# Runs a command with files of the test's own in /etc, and with a /dev/log of the
# test's own, in a mount namespace that ends with the command:
#
#   unshare --mount --propagation private private.sh ETC DEV_LOG COMMAND [ARGUMENT...]
#
# ETC is a directory whose files are laid over /etc, DEV_LOG a socket or "".
set -eu

etc=$1 log=$2
shift 2

mount -t overlay overlay -o "lowerdir=$etc:/etc" /etc

if [ -n "$log" ]; then
    # /dev of a container may be read-only, or /dev/log somebody else's.
    dev=$(mktemp -d)
    mount -t tmpfs -o mode=0755 tmpfs "$dev"
    for node in null zero full random urandom tty; do
        : >"$dev/$node"
        mount --bind "/dev/$node" "$dev/$node"
    done
    ln -s /proc/self/fd "$dev/fd"
    ln -s "$log" "$dev/log"
    mount --rbind "$dev" /dev
    umount --lazy "$dev"
    rmdir "$dev"
fi

exec "$@"
