require moonlet-common.inc

# The source that has the licence is not fetched for a binary.
# nooelint: oelint.var.licenseremotefile
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/Apache-2.0;md5=89aea4e17d99a7cacdbeed46a0096b10"

PROVIDES = "moonlet"

# What scripts/cross printed, such as .../target/armv7-unknown-linux-musleabihf/release/moonlet.
MOONLET_BINARY ?= ""

# Without it every build of the layer would have to name a binary.
# nooelint: oelint.task.noanonpython
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
# nooelint: oelint.vars.insaneskip
INSANE_SKIP:${PN} += "already-stripped"
