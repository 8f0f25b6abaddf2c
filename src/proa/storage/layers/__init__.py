"""Turn layer archives into directories and directories into layer archives."""
