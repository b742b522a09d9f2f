SUMMARY = "A small image with Moonlet and a data partition for its store"
DESCRIPTION = "An example to begin with: core-image-minimal, Moonlet, and a root file system that \
               may be read-only because the store has a partition of its own."
SECTION = "images"
LICENSE = "MIT"

inherit core-image

IMAGE_INSTALL += "packagegroup-core-boot packagegroup-moonlet"
IMAGE_FSTYPES += "wic"
WKS_FILE = "moonlet-data.wks"
# scarthgap looks in wic/ of a layer only.
WKS_SEARCH_PATH .= ":${THISDIR}/../../files/wic"
