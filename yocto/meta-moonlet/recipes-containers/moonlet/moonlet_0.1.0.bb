require moonlet-crates.inc
require moonlet-common.inc

LIC_FILES_CHKSUM = "file://LICENSE;md5=3b83ef96387f14655fc854ddc3c6bd57"

inherit cargo externalsrc

EXTERNALSRC = "${MOONLET_SOURCE}"
EXTERNALSRC_BUILD = "${WORKDIR}/build"
CARGO_BUILD_FLAGS:append = " --bin moonlet"

do_install() {
    install_moonlet ${B}/target/${CARGO_TARGET_SUBDIR}/moonlet
}
