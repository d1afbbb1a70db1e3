################################################################################
#
# ocpp-tunnel-bin
#
################################################################################

# Puts ocpp-tunnel into an image of Buildroot, from the tarball of its static program. Not tried with Buildroot.
# cross/package fills in the version, and the tarballs' hashes in ocpp-tunnel-bin.hash. Put the tarballs into
# $(BR2_DL_DIR)/ocpp-tunnel-bin, or name where you serve them in OCPP_TUNNEL_BIN_SITE.

OCPP_TUNNEL_BIN_VERSION = @VERSION@
ifeq ($(BR2_aarch64),y)
OCPP_TUNNEL_BIN_TRIPLE = aarch64-unknown-linux-musl
else ifeq ($(BR2_x86_64),y)
OCPP_TUNNEL_BIN_TRIPLE = x86_64-unknown-linux-musl
else
OCPP_TUNNEL_BIN_TRIPLE = armv7-unknown-linux-musleabihf
endif
OCPP_TUNNEL_BIN_SOURCE = ocpp-tunnel-$(OCPP_TUNNEL_BIN_VERSION)-$(OCPP_TUNNEL_BIN_TRIPLE).tar.gz
OCPP_TUNNEL_BIN_SITE = https://github.com/ocpp-tunnel/ocpp-tunnel/releases/download/v$(OCPP_TUNNEL_BIN_VERSION)
OCPP_TUNNEL_BIN_LICENSE = MIT or Apache-2.0
OCPP_TUNNEL_BIN_LICENSE_FILES = doc/LICENSE-MIT doc/LICENSE-APACHE

define OCPP_TUNNEL_BIN_INSTALL_TARGET_CMDS
	DESTDIR=$(TARGET_DIR) $(@D)/install.sh --init none
endef

define OCPP_TUNNEL_BIN_INSTALL_INIT_SYSV
	$(INSTALL) -D -m 0755 $(@D)/init/busybox/S90ocpp-tunnel $(TARGET_DIR)/etc/init.d/S90ocpp-tunnel
endef

define OCPP_TUNNEL_BIN_INSTALL_INIT_OPENRC
	$(INSTALL) -D -m 0755 $(@D)/init/openrc/ocpp-tunnel $(TARGET_DIR)/etc/init.d/ocpp-tunnel
endef

define OCPP_TUNNEL_BIN_INSTALL_INIT_SYSTEMD
	$(INSTALL) -D -m 0644 $(@D)/init/systemd/ocpp-tunnel.service \
		$(TARGET_DIR)/usr/lib/systemd/system/ocpp-tunnel.service
endef

define OCPP_TUNNEL_BIN_USERS
	ocpp-tunnel -1 ocpp-tunnel -1 * /var/lib/ocpp-tunnel - - SSH reverse tunnels
endef

define OCPP_TUNNEL_BIN_PERMISSIONS
	/var/lib/ocpp-tunnel d 750 ocpp-tunnel ocpp-tunnel - - - - -
endef

$(eval $(generic-package))
