"""Move images between registries, archives, layouts and the store."""
