"""The mesh as REST: routes, transcoding and documents all derived from the contracts' descriptors."""
