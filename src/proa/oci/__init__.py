"""Types for the OCI specifications: digests, references, descriptors, manifests, indexes, configs and platforms.

Bytes are truth, parsed structs are a view of them, and `children` is the one function that knows the graph.
"""

from proa.oci import media_types
from proa.oci.digest import Digest, Verifier, digest_algorithm, digest_hex, digest_of, parse_digest
from proa.oci.documents import (
    CONFIG_LIMIT,
    MANIFEST_LIMIT,
    MAX_BLOB,
    MAX_LAYERS,
    MAX_MANIFESTS,
    Descriptor,
    Healthcheck,
    History,
    ImageConfig,
    Index,
    Manifest,
    RootFS,
    RunConfig,
    chain_id,
    chain_ids,
    check_config,
    children,
    encode,
    is_platform_image,
    parse_config,
    parse_index,
    parse_manifest,
    select_platform,
)
from proa.oci.platform import Platform, host_platform, nearest, parse_platform
from proa.oci.reference import Reference, parse_reference
from proa.oci.short_names import DOCKER_NAMES, ShortNames
from proa.oci.strict_json import strict_loads

__all__ = [
    "CONFIG_LIMIT",
    "DOCKER_NAMES",
    "Descriptor",
    "Digest",
    "Healthcheck",
    "History",
    "ImageConfig",
    "Index",
    "MANIFEST_LIMIT",
    "MAX_BLOB",
    "MAX_LAYERS",
    "MAX_MANIFESTS",
    "Manifest",
    "Platform",
    "Reference",
    "RootFS",
    "RunConfig",
    "ShortNames",
    "Verifier",
    "chain_id",
    "chain_ids",
    "check_config",
    "children",
    "digest_algorithm",
    "digest_hex",
    "digest_of",
    "encode",
    "host_platform",
    "is_platform_image",
    "media_types",
    "nearest",
    "parse_config",
    "parse_digest",
    "parse_index",
    "parse_manifest",
    "parse_platform",
    "parse_reference",
    "select_platform",
    "strict_loads",
]
