"""Types for the OCI specifications: digests, references, descriptors, manifests, indexes, configs and platforms."""
