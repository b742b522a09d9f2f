SUMMARY = "Moonlet and what it wants around it"
DESCRIPTION = "Moonlet, certificates to trust registries by, and the time zone data that local time needs."
SECTION = "net"

inherit packagegroup

RDEPENDS:${PN} = "ca-certificates \
                  moonlet \
                  tzdata-core"
