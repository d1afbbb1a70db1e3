# Puts ocpp-tunnel into an image of Yocto, from the tarball of its static program. Not tried with bitbake.
#
# cross/package fills in the version and the tarballs' hashes, and puts the tarballs beside it: either copy these into
# files/ beside this recipe, or serve them and set OCPP_TUNNEL_URL.

SUMMARY = "SSH reverse tunnels from EV charge controllers, on request over OCPP 1.6J"
HOMEPAGE = "https://github.com/ocpp-tunnel/ocpp-tunnel"
SECTION = "net"
LICENSE = "MIT | Apache-2.0"
LIC_FILES_CHKSUM = "file://${COREBASE}/meta/files/common-licenses/MIT;md5=0835ade698e0bcf8506ecda2f7b4f302"

TRIPLE = "unsupported"
TRIPLE:armv7a = "armv7-unknown-linux-musleabihf"
TRIPLE:armv7ve = "armv7-unknown-linux-musleabihf"
TRIPLE:armv6 = "arm-unknown-linux-musleabihf"
TRIPLE:aarch64 = "aarch64-unknown-linux-musl"
TRIPLE:x86-64 = "x86_64-unknown-linux-musl"
COMPATIBLE_HOST = "(arm|aarch64|x86_64).*-linux.*"

OCPP_TUNNEL_URL ?= "file:/"
SRC_URI = "${OCPP_TUNNEL_URL}/ocpp-tunnel-${PV}-${TRIPLE}.tar.gz;name=${TRIPLE}"
S = "${WORKDIR}/ocpp-tunnel-${PV}-${TRIPLE}"

inherit useradd systemd
USERADD_PACKAGES = "${PN}"
USERADD_PARAM:${PN} = "--system --user-group --no-create-home --home-dir /var/lib/ocpp-tunnel --shell /bin/false ocpp-tunnel"
SYSTEMD_SERVICE:${PN} = "ocpp-tunnel.service"

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    init=${@bb.utils.contains('DISTRO_FEATURES', 'systemd', 'systemd', 'busybox', d)}
    DESTDIR=${D} ${S}/install.sh --init $init
    if [ $init = systemd ]; then
        # The class enables it, from the distribution's own place.
        install -d ${D}${systemd_system_unitdir}
        mv ${D}${sysconfdir}/systemd/system/ocpp-tunnel.service ${D}${systemd_system_unitdir}/
        rm -r ${D}${sysconfdir}/systemd
    fi
    install -d -m 0750 -o ocpp-tunnel -g ocpp-tunnel ${D}${localstatedir}/lib/ocpp-tunnel
}

CONFFILES:${PN} = "${sysconfdir}/ocpp-tunnel/config.toml"
FILES:${PN} += "${datadir}/ocpp-tunnel ${libdir}/ocpp-tunnel ${prefix}/lib/ocpp-tunnel ${systemd_system_unitdir}"
# It is static and stripped already.
INSANE_SKIP:${PN} = "already-stripped"
INHIBIT_PACKAGE_STRIP = "1"
INHIBIT_SYSROOT_STRIP = "1"

