"""The lab's targets: a file each, which defines `TARGET`. Nothing else needs to know of it."""
