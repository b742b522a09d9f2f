require moonlet-crates.inc
require moonlet-common.inc

LIC_FILES_CHKSUM = "file://LICENSE;md5=3b83ef96387f14655fc854ddc3c6bd57"

inherit cargo externalsrc

EXTERNALSRC = "${MOONLET_SOURCE}"
EXTERNALSRC_BUILD = "${WORKDIR}/build"

# What a device may be built without: the features of Cargo.toml.
PACKAGECONFIG ??= "airgap boards client-certs doctor embedded-roots htpasswd proxy pull-through raw-flash serve-tls sha512 status tls12 verify"
PACKAGECONFIG[airgap] = "--features=airgap"
PACKAGECONFIG[boards] = "--features=boards"
PACKAGECONFIG[client-certs] = "--features=client-certs"
PACKAGECONFIG[doctor] = "--features=doctor"
PACKAGECONFIG[embedded-roots] = "--features=embedded-roots"
PACKAGECONFIG[htpasswd] = "--features=htpasswd"
PACKAGECONFIG[proxy] = "--features=proxy"
PACKAGECONFIG[pull-through] = "--features=pull-through"
PACKAGECONFIG[raw-flash] = "--features=raw-flash"
PACKAGECONFIG[serve-tls] = "--features=serve-tls"
PACKAGECONFIG[sha512] = "--features=sha512"
PACKAGECONFIG[status] = "--features=status"
PACKAGECONFIG[tls12] = "--features=tls12"
PACKAGECONFIG[verify] = "--features=verify"
CARGO_BUILD_FLAGS:append = " --bin moonlet --no-default-features ${PACKAGECONFIG_CONFARGS}"

do_install() {
    install_moonlet ${B}/target/${CARGO_TARGET_SUBDIR}/moonlet
}
