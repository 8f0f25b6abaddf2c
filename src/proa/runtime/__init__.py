"""Turn an OCI config.json into an isolated process."""
