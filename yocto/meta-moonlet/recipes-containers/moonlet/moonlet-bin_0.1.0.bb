require moonlet-common.inc

LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/Apache-2.0;md5=89aea4e17d99a7cacdbeed46a0096b10"

PROVIDES = "moonlet"

# What scripts/cross printed, such as .../target/armv7-unknown-linux-musleabihf/release/moonlet.
MOONLET_BINARY ?= ""

python () {
    if not d.getVar('MOONLET_BINARY'):
        raise bb.parse.SkipRecipe('MOONLET_BINARY is not set: expected the path of a binary of scripts/cross')
}

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install[file-checksums] += "${MOONLET_BINARY}:True"
do_install() {
    install_moonlet ${MOONLET_BINARY}
}

RPROVIDES:${PN} = "moonlet"
RCONFLICTS:${PN} = "moonlet"
# Static, so that it runs on any C library, and stripped when it was linked.
INSANE_SKIP:${PN} += "already-stripped"
