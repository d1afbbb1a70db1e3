#!/bin/sh
# Installs ocpp-tunnel from the directory that this file is in, upgrades it, or removes it. For any Linux with a POSIX shell,
# BusyBox's included; docs/install.md explains it.
#
#   ./install.sh                 install, or upgrade; a changed configuration is kept
#   ./install.sh --uninstall     remove the program and its service; configuration and state stay
#   ./install.sh --purge         remove these as well, and the account
#
#   --prefix DIR     where the program goes instead of /usr; the configuration is always /etc/ocpp-tunnel
#   --init NAME      systemd, procd, openrc, busybox or none, instead of what is found here
#   --no-start       start, restart and stop nothing
#
# DESTDIR=/path/of/an/image installs into that; then nothing is run or started.

set -eu

ACCOUNT=ocpp-tunnel
CONFIGURATION=/etc/ocpp-tunnel
# For an account that nobody logs in to.
NO_LOGIN=/bin/false
DESTDIR=${DESTDIR:-}

here=$(cd "$(dirname "$0")" && pwd)
prefix='' init='' action=install start=yes

main() {
    while [ $# -gt 0 ]; do
        case $1 in
        --uninstall) action=uninstall ;;
        --purge) action=purge ;;
        --no-start) start=no ;;
        --prefix | --init)
            [ $# -gt 1 ] || usage "$1 needs a value"
            if [ "$1" = --prefix ]; then prefix=$2; else init=$2; fi
            shift
            ;;
        -h | --help)
            sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
            exit 0
            ;;
        *) usage "unknown option $1" ;;
        esac
        shift
    done
    judge_arguments
    share=$prefix/share/ocpp-tunnel
    program=$prefix/bin/ocpp-tunnel
    manifest=$DESTDIR$share/manifest
    if [ "$action" = install ]; then install_all; else remove_all; fi
}

judge_arguments() {
    # An installed copy of this file knows where it is.
    if [ -z "$prefix" ] && [ -e "$here/manifest" ]; then
        prefix=${here%/share/ocpp-tunnel}
        prefix=${prefix#"$DESTDIR"}
        if [ -z "$init" ]; then init=$(cat "$here/init"); fi
    fi
    prefix=${prefix:-/usr}
    prefix=${prefix%/}
    # It becomes part of the service's file.
    case $prefix in
    *[!A-Za-z0-9/._-]* | *..*) usage "--prefix $prefix: only letters, digits and / . _ - may be in it" ;;
    /*) ;;
    *) usage "--prefix $prefix: not an absolute path" ;;
    esac
    case $DESTDIR in
    '' | /*) ;;
    *) usage "DESTDIR=$DESTDIR: not an absolute path" ;;
    esac
    DESTDIR=${DESTDIR%/}
    if [ -n "$DESTDIR" ]; then
        start=no
    elif [ "$(id -u)" -ne 0 ]; then
        die "only root can do this"
    fi
    if [ -z "$init" ]; then init=$(find_init); fi
    case $init in
    systemd) service=/etc/systemd/system/ocpp-tunnel.service ;;
    procd | openrc) service=/etc/init.d/ocpp-tunnel ;;
    busybox) service=/etc/init.d/S90ocpp-tunnel ;;
    none) service='' ;;
    *) usage "--init $init: there are systemd, procd, openrc, busybox and none" ;;
    esac
    if [ "$init" = procd ]; then state=$CONFIGURATION/state; else state=/var/lib/ocpp-tunnel; fi
}

find_init() {
    if [ -d "$DESTDIR/run/systemd/system" ] || [ -e "$DESTDIR/lib/systemd/systemd" ] ||
        [ -e "$DESTDIR/usr/lib/systemd/systemd" ]; then
        echo systemd
    elif [ -e "$DESTDIR/etc/rc.common" ] && [ -e "$DESTDIR/sbin/procd" ]; then
        echo procd
    elif [ -e "$DESTDIR/sbin/openrc-run" ] || [ -e "$DESTDIR/usr/sbin/openrc-run" ]; then
        echo openrc
    elif [ -d "$DESTDIR/etc/init.d" ]; then
        echo busybox
    else
        echo none
    fi
}

# === installing ===

install_all() {
    [ -e "$here/bin/ocpp-tunnel" ] || die "there is no program beside this file: run the install.sh of an unpacked tarball"
    refuse_package
    version=$(try_program)
    for directory in "$prefix" "$CONFIGURATION" "$state" ${service:+"${service%/*}"}; do
        must_be_writable "$DESTDIR$directory"
    done
    # An upgrade may come through the agent's own tunnel, which ends when the agent does.
    trap '' HUP
    upgrade=no running=no
    if [ -e "$manifest" ]; then upgrade=yes; fi
    if [ "$start" = yes ] && [ "$upgrade" = yes ] && agent_runs; then running=yes; fi

    mkdir -p "$DESTDIR$share"
    : >"$manifest.new"
    put_files
    if [ "$upgrade" = yes ]; then remove_left_over; fi
    mv "$manifest.new" "$manifest"
    printf '%s\n' "$init" >"$DESTDIR$share/init"
    put_configuration
    make_account
    make_state
    say "installed ${version:-ocpp-tunnel} in $DESTDIR$prefix, for ${init#none}${service:+ ($service)}"
    enable_service
    start_service
}

refuse_package() {
    for list in var/lib/dpkg/info/ocpp-tunnel.list usr/lib/opkg/info/ocpp-tunnel.control \
        lib/apk/packages/ocpp-tunnel.list; do
        if [ -e "$DESTDIR/$list" ]; then
            die "a package of ocpp-tunnel is installed here (/$list): upgrade that one, or remove it first"
        fi
    done
}

# Prints the version, once the program has run. A shell that starts another machine's program may take it for a script of its
# own, so that the machine is looked at first.
try_program() {
    if [ -n "$DESTDIR" ]; then return; fi
    triple=$(cat "$here/target")
    machine=$(uname -m)
    case $triple:$machine in
    armv7-*:armv7* | armv7-*:armv8* | armv7-*:aarch64) ;;
    arm-*:armv[678]* | arm-*:aarch64) ;;
    aarch64-*:aarch64 | x86_64-*:x86_64) ;;
    *) die "this tarball is for $triple, and this machine is $machine: take another one" ;;
    esac
    "$here/bin/ocpp-tunnel" --version || die "the program doesn't run here; this tarball is for $triple, this machine is $machine"
}

must_be_writable() {
    directory=$1
    while [ ! -d "$directory" ]; do
        directory=${directory%/*}
        directory=${directory:-/}
    done
    probe=$directory/.ocpp-tunnel.$$
    if (: >"$probe") 2>/dev/null; then
        rm -f "$probe"
        return
    fi
    die "cannot write in $directory, so nothing was changed. If the root file system is read-only: remount it for the time of \
the installation (mount -o remount,rw /), or put ocpp-tunnel into the image with DESTDIR=/path/of/the/image; the program alone \
can also be elsewhere (--prefix)"
}

agent_runs() {
    code=0
    "$program" status >/dev/null 2>&1 || code=$?
    # 0 and 3: an agent answered, whatever it said.
    [ "$code" -eq 0 ] || [ "$code" -eq 3 ]
}

# put MODE SOURCE FILE: at once or not at all, also where FILE is a program that runs.
put() {
    mkdir -p "$DESTDIR${3%/*}"
    cp "$2" "$DESTDIR$3.new"
    chmod "$1" "$DESTDIR$3.new"
    mv -f "$DESTDIR$3.new" "$DESTDIR$3"
    printf '%s\n' "$3" >>"$manifest.new"
}

put_files() {
    put 755 "$here/bin/ocpp-tunnel" "$program"
    put 755 "$here/install.sh" "$share/install.sh"
    for file in "$here"/doc/*; do
        put 644 "$file" "$share/doc/${file##*/}"
    done
    # By these names the vendor's scripts are replaced; whoever wants that links them.
    mkdir -p "$DESTDIR$prefix/lib/ocpp-tunnel"
    for number in 1 2; do
        shim=$prefix/lib/ocpp-tunnel/custom_script$number.sh
        rm -f "$DESTDIR$shim"
        ln -s ../../bin/ocpp-tunnel "$DESTDIR$shim"
        printf '%s\n' "$shim" >>"$manifest.new"
    done
    # Only where there is a place for them: flash is dear.
    put_where_wanted man/ocpp-tunnel.1 "$prefix/share/man" man1/ocpp-tunnel.1
    put_where_wanted completions/ocpp-tunnel.bash "$prefix/share/bash-completion" completions/ocpp-tunnel
    put_where_wanted completions/_ocpp-tunnel "$prefix/share/zsh" site-functions/_ocpp-tunnel
    put_where_wanted completions/ocpp-tunnel.fish "$prefix/share/fish" vendor_completions.d/ocpp-tunnel.fish
    case $init in
    systemd) put_service 644 systemd/ocpp-tunnel.service ;;
    procd) put_service 755 openwrt/ocpp-tunnel.init ;;
    openrc) put_service 755 openrc/ocpp-tunnel ;;
    busybox) put_service 755 busybox/S90ocpp-tunnel ;;
    esac
}

put_where_wanted() {
    if [ -d "$DESTDIR$2" ]; then put 644 "$here/$1" "$2/$3"; fi
}

put_service() {
    changed=$DESTDIR$share/service
    sed "s|/usr/bin/ocpp-tunnel|$program|g" "$here/init/$2" >"$changed"
    put "$1" "$changed" "$service"
    rm -f "$changed"
}

remove_left_over() {
    while read -r file; do
        if ! grep -qxF "$file" "$manifest.new"; then rm -f "$DESTDIR$file"; fi
    done <"$manifest"
}

put_configuration() {
    mkdir -p "$DESTDIR$CONFIGURATION/config.d"
    keep_or_put "$here/etc/config.toml" "$CONFIGURATION/config.toml"
    if [ "$init" = procd ]; then
        keep_or_put "$here/init/openwrt/10-openwrt.toml" "$CONFIGURATION/config.d/10-openwrt.toml"
    fi
}

# keep_or_put SOURCE FILE: what somebody has changed stays, and the new one is put beside it.
keep_or_put() {
    ours=$DESTDIR$share/shipped/${2##*/} theirs=$DESTDIR$2
    mkdir -p "${ours%/*}"
    if [ ! -e "$theirs" ] || cmp -s "$theirs" "$ours"; then
        cp "$1" "$theirs.new"
        chmod 644 "$theirs.new"
        mv -f "$theirs.new" "$theirs"
    elif ! cmp -s "$1" "$theirs" && ! { [ -e "$ours" ] && cmp -s "$1" "$ours"; }; then
        # config.d takes files that end with .toml only.
        cp "$1" "$theirs.new"
        say "$2 was changed here and is kept; the new one is $2.new"
    fi
    cp "$1" "$ours"
}

# === the account and its directory ===

in_file() { grep -q "^$ACCOUNT:" "$DESTDIR/etc/$1" 2>/dev/null; }

make_account() {
    if in_file passwd; then return; fi
    if [ -n "$DESTDIR" ] && [ ! -e "$DESTDIR/etc/passwd" ]; then
        say "$DESTDIR has no /etc/passwd: the image has to have a user and a group $ACCOUNT, which own $state"
    elif [ -z "$DESTDIR" ] && command -v useradd >/dev/null; then
        useradd -r -U -M -d "$state" -s "$NO_LOGIN" "$ACCOUNT"
    else
        # Images, and machines without it, such as those with BusyBox.
        id=$(free_id)
        in_file group || printf '%s\n' "$ACCOUNT:x:$id:" >>"$DESTDIR/etc/group"
        group=$(sed -n "s/^$ACCOUNT:[^:]*:\([0-9]*\):.*/\1/p" "$DESTDIR/etc/group")
        printf '%s\n' "$ACCOUNT:x:$id:$group::$state:$NO_LOGIN" >>"$DESTDIR/etc/passwd"
        if [ -e "$DESTDIR/etc/shadow" ]; then printf '%s\n' "$ACCOUNT:!:::::::" >>"$DESTDIR/etc/shadow"; fi
    fi
}

# A number that neither a user nor a group has, of those that system accounts have.
free_id() {
    id=999
    while cut -d: -f3 "$DESTDIR/etc/passwd" "$DESTDIR/etc/group" | grep -qx "$id"; do id=$((id - 1)); done
    echo "$id"
}

make_state() {
    in_file passwd || return 0
    owner=$(sed -n "s/^$ACCOUNT:[^:]*:\([0-9]*:[0-9]*\):.*/\1/p" "$DESTDIR/etc/passwd")
    mkdir -p "$DESTDIR$state"
    chown "$owner" "$DESTDIR$state" 2>/dev/null || {
        [ -n "$DESTDIR" ] || die "cannot give $state to $ACCOUNT"
        say "you may not give $state to $ACCOUNT: the image has to ($owner, mode 750)"
    }
    chmod 750 "$DESTDIR$state"
}

remove_account() {
    if [ -z "$DESTDIR" ] && command -v userdel >/dev/null; then
        if in_file passwd; then userdel "$ACCOUNT"; fi
        if in_file group; then groupdel "$ACCOUNT"; fi
        return
    fi
    for file in passwd group shadow; do
        in_file "$file" || continue
        # A copy has its mode and owner, and takes its place at once: a power cut leaves either.
        cp -p "$DESTDIR/etc/$file" "$DESTDIR/etc/$file.new"
        others=$(grep -v "^$ACCOUNT:" "$DESTDIR/etc/$file" || true)
        printf '%s\n' "$others" >"$DESTDIR/etc/$file.new"
        sync
        mv -f "$DESTDIR/etc/$file.new" "$DESTDIR/etc/$file"
    done
}

# === the service ===

# An upgrade leaves it as the operator wants it.
enable_service() {
    case $upgrade:$init in
    yes:systemd) if [ "$start" = yes ] && [ -d /run/systemd/system ]; then systemctl daemon-reload; fi ;;
    no:*) enable_new ;;
    esac
}

enable_new() {
    case $init in
    systemd)
        if [ "$start" = yes ] && [ -d /run/systemd/system ]; then
            systemctl daemon-reload
            systemctl enable --quiet ocpp-tunnel
        else
            mkdir -p "$DESTDIR/etc/systemd/system/multi-user.target.wants"
            ln -sf "$service" "$DESTDIR/etc/systemd/system/multi-user.target.wants/ocpp-tunnel.service"
        fi
        ;;
    procd)
        if [ -z "$DESTDIR" ]; then
            "$service" enable
        else
            mkdir -p "$DESTDIR/etc/rc.d"
            ln -sf ../init.d/ocpp-tunnel "$DESTDIR/etc/rc.d/S95ocpp-tunnel"
            ln -sf ../init.d/ocpp-tunnel "$DESTDIR/etc/rc.d/K05ocpp-tunnel"
        fi
        ;;
    openrc)
        if [ -z "$DESTDIR" ]; then
            rc-update --quiet add ocpp-tunnel default
        else
            mkdir -p "$DESTDIR/etc/runlevels/default"
            ln -sf /etc/init.d/ocpp-tunnel "$DESTDIR/etc/runlevels/default/ocpp-tunnel"
        fi
        ;;
    none) say "no init system was found: have it run $program run, as docs/service.md says" ;;
    esac
}

# The last thing that is done: it may end the connection that this is said on.
start_service() {
    if [ "$start" = no ] || [ "$init" = none ]; then return; fi
    if ! mistake=$("$program" config check 2>&1 >/dev/null); then
        say "not started, since it isn't configured yet: $mistake"
        say "edit $CONFIGURATION/config.toml; once \`$program config check\` is content: $(command_to start)"
    elif [ "$upgrade" = no ]; then
        serve start
        say "started"
    elif [ "$running" = yes ]; then
        say "restarting the agent; what was open is opened again"
        serve restart
    else
        say "the agent didn't run, and isn't started; to do so: $(command_to start)"
    fi
}

command_to() {
    case $init in
    systemd) echo "systemctl $1 ocpp-tunnel" ;;
    openrc) echo "rc-service ocpp-tunnel $1" ;;
    *) echo "$service $1" ;;
    esac
}

serve() {
    case $init in
    systemd) systemctl "$1" ocpp-tunnel ;;
    openrc) rc-service ocpp-tunnel "$1" ;;
    *) "$service" "$1" ;;
    esac
}

disable_service() {
    case $init in
    systemd)
        rm -f "$DESTDIR/etc/systemd/system/multi-user.target.wants/ocpp-tunnel.service"
        if [ "$start" = yes ] && [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
        ;;
    procd) rm -f "$DESTDIR/etc/rc.d/S95ocpp-tunnel" "$DESTDIR/etc/rc.d/K05ocpp-tunnel" ;;
    openrc) rm -f "$DESTDIR/etc/runlevels/default/ocpp-tunnel" ;;
    esac
}

# === removing ===

remove_all() {
    if [ -e "$manifest" ]; then
        must_be_writable "$DESTDIR$prefix"
        trap '' HUP
        if [ "$start" = yes ] && [ -n "$service" ]; then serve stop || say "the service could not be stopped"; fi
        elsewhere=$(state_elsewhere)
        disable_service
        while read -r file; do rm -f "$DESTDIR$file"; done <"$manifest"
        rm -rf "$DESTDIR$share"
        rmdir "$DESTDIR$prefix/lib/ocpp-tunnel" 2>/dev/null || true
        if [ "$init" = systemd ] && [ "$start" = yes ] && [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
    elif [ "$action" = uninstall ]; then
        die "ocpp-tunnel isn't installed in $DESTDIR$prefix from a tarball: $manifest is missing"
    else
        elsewhere=''
    fi
    if [ "$action" = uninstall ]; then
        say "removed; configuration and state are still in $CONFIGURATION and $state (--purge removes them, too)"
        return
    fi
    rm -rf "$DESTDIR$CONFIGURATION" "$DESTDIR/var/lib/ocpp-tunnel" "$DESTDIR/run/ocpp-tunnel" "$DESTDIR/var/run/ocpp-tunnel"
    remove_account
    say "removed, with configuration, state and account"
    if [ -n "$elsewhere" ]; then say "state_dir was $elsewhere: that is left for you to remove"; fi
}

# The configured state_dir, if it is one that isn't removed.
state_elsewhere() {
    if [ -n "$DESTDIR" ]; then return; fi
    configured=$("$program" config show 2>/dev/null | sed -n 's/^state_dir = "\(.*\)"$/\1/p') || return 0
    case $configured in
    /var/lib/ocpp-tunnel | "$CONFIGURATION"/*) ;;
    *) printf '%s' "$configured" ;;
    esac
}

# === words ===

say() { printf 'ocpp-tunnel: %s\n' "$*" || true; }

die() {
    printf 'install.sh: error: %s\n' "$*" >&2
    exit 1
}

usage() {
    printf 'install.sh: %s; --help tells what there is\n' "$*" >&2
    exit 2
}

main "$@"
