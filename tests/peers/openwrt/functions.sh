# What OpenWrt's /lib/functions.sh has that packages call: accounts, and services that are enabled and started.
# shellcheck shell=sh

info=$IPKG_INSTROOT/usr/lib/opkg/info

# The paths of the package's init scripts.
scripts_of() { grep '^/etc/init.d/' "$info/$1.list"; }

default_postinst() {
    name=$(basename "${1%.*}")
    account=$(sed -n 's/^Require-User: *\([^:]*\):.*/\1/p' "$info/$name.control")
    if ! grep -q "^$account:" "$IPKG_INSTROOT/etc/passwd"; then
        echo "$account:x:32768:" >>"$IPKG_INSTROOT/etc/group"
        echo "$account:x:32768:32768:$account:/var/run/$account:/bin/false" >>"$IPKG_INSTROOT/etc/passwd"
    fi
    for script in $(scripts_of "$name"); do
        if [ -n "$IPKG_INSTROOT" ]; then
            sh "$IPKG_INSTROOT/etc/rc.common" "$IPKG_INSTROOT$script" enable
            continue
        fi
        [ "$PKG_UPGRADE" = 1 ] || "$script" enable
        "$script" start
    done
    return 0
}

default_prerm() {
    name=$(basename "${1%.*}")
    for script in $(scripts_of "$name"); do
        [ "$PKG_UPGRADE" = 1 ] || "$script" disable
        "$script" stop
    done
    return 0
}
