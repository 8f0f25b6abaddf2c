"""Keep content, images and snapshots on disk so that what was acknowledged survives anything.

`Storage.open(root)` is the way in. The seams are the protocols ContentStore, ImageStore and Snapshotter; how one image
goes through them is told in their modules, where things are on disk in `proa.storage.paths`.
"""

from proa.storage.collect import Collected
from proa.storage.content import BlobInfo, ContentStore, Ingest, IngestStatus, read_blob, write_blob
from proa.storage.deletion import remove_tree
from proa.storage.images import FileImageStore, Image, ImageStore
from proa.storage.index import Index
from proa.storage.leases import Lease, LeaseRecord, Leases
from proa.storage.limits import Limits
from proa.storage.local_content import LocalContentStore
from proa.storage.locks import KeyedLocks, RootLock, lock_root
from proa.storage.overlay import OverlaySnapshotter
from proa.storage.paths import Paths, make_private, spread_children
from proa.storage.records import Records, delete_record, read_record, write_record
from proa.storage.snapshots import Mount, SnapshotInfo, Snapshotter, Usage, lower_dirs, upper_dir
from proa.storage.store import Storage
from proa.storage.unpack import unpack_image

__all__ = [
    "Storage",
    "Limits",
    "lock_root",
    "RootLock",
    "ContentStore",
    "Ingest",
    "IngestStatus",
    "BlobInfo",
    "LocalContentStore",
    "read_blob",
    "write_blob",
    "ImageStore",
    "FileImageStore",
    "Image",
    "Snapshotter",
    "OverlaySnapshotter",
    "Mount",
    "SnapshotInfo",
    "Usage",
    "upper_dir",
    "lower_dirs",
    "unpack_image",
    "Leases",
    "Lease",
    "LeaseRecord",
    "Collected",
    "Index",
    "Records",
    "write_record",
    "read_record",
    "delete_record",
    "KeyedLocks",
    "Paths",
    "make_private",
    "spread_children",
    "remove_tree",
]
