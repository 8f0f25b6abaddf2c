"""Keep content, images and snapshots on disk so that what was acknowledged survives anything."""
