# Keeps a root directory usable for as long as its standard input is open: root.sh ROOT [EMULATOR BINFMT]
#
# Runs in a mount namespace of its own, and for another machine's programs in a user namespace as well, since only there
# they can be given to an emulator without a change to the machine (Linux 6.7). BINFMT is an empty directory.
set -e

# By the first line, whoever started this has mapped the user namespace's ids.
read -r _
# A mount of its own, so that a story can make it read-only.
mount --bind "$1" "$1"
mount --rbind /proc "$1/proc"
if [ -n "${2:-}" ]; then
    mount -t binfmt_misc none "$3"
    # A little-endian 32-bit ELF program for ARM. F: opened now, from outside of the root.
    printf '%s' ":arm:M::\x7fELF\x01\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x28\x00:\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:$2:F" >"$3/register"
fi
echo ready
read -r _ || :
