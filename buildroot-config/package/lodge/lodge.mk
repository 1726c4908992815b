################################################################################
#
# lodge
#
################################################################################

# The source is the tree around this one, not a release: the image is of what is checked out.
LODGE_VERSION = local
LODGE_SITE = $(BR2_EXTERNAL_LODGE_PATH)/..
LODGE_SITE_METHOD = local
LODGE_OVERRIDE_SRCDIR_RSYNC_EXCLUSIONS = --exclude /target --exclude /build
LODGE_LICENSE = Apache-2.0 or MIT
LODGE_DEPENDENCIES = host-rustc

# Not cargo-package: that one expects vendored dependencies in a downloaded archive, and builds offline. The overflow
# checks of the workspace's release profile are kept; PKG_CARGO_ENV would turn them off.
LODGE_CARGO_ENV = \
	$(TARGET_MAKE_ENV) \
	$(TARGET_CONFIGURE_OPTS) \
	$(PKG_CARGO_ENV) \
	CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS=true \
	CARGO_PROFILE_RELEASE_LTO=thin \
	CARGO_TARGET_$(call UPPERCASE,$(RUSTC_TARGET_NAME))_RUSTFLAGS="-C target-feature=+crt-static --remap-path-prefix=$(@D)=/lodge --remap-path-prefix=$(BR_CARGO_HOME)=/cargo"

define LODGE_BUILD_CMDS
	cd $(@D) && $(LODGE_CARGO_ENV) cargo build --release --locked -p lodge
endef

define LODGE_INSTALL_TARGET_CMDS
	$(INSTALL) -D -m 0755 $(@D)/target/$(RUSTC_TARGET_NAME)/release/lodge $(TARGET_DIR)/lodge
endef

$(eval $(generic-package))
