"""Move images between registries, archives, layouts and the store.

Everything is one verb, `copy(source, sink, descriptor)`, over the ends in `proa.transfer.ends`: `Remote` (a registry),
`Layout` (a directory), `Stored` (the content store). What the engine calls is built on it: pull, push, load, save,
import_tar. Names are imported when they are first used, so that reading an image loads no HTTP.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from proa.transfer.copying import copy as copy
    from proa.transfer.credentials import Credentials as Credentials
    from proa.transfer.credentials import credentials_from_header as credentials_from_header
    from proa.transfer.credentials import credentials_from_mapping as credentials_from_mapping
    from proa.transfer.ends import Sink as Sink
    from proa.transfer.ends import Source as Source
    from proa.transfer.importing import import_tar as import_tar
    from proa.transfer.layout import Layout as Layout
    from proa.transfer.loading import load as load
    from proa.transfer.loading import save as save
    from proa.transfer.login import check_login as check_login
    from proa.transfer.progress import Progress as Progress
    from proa.transfer.progress import ProgressEvent as ProgressEvent
    from proa.transfer.proxies import Proxies as Proxies
    from proa.transfer.pulling import fetch_image as fetch_image
    from proa.transfer.pulling import pull as pull
    from proa.transfer.pushing import push as push
    from proa.transfer.registries import Registries as Registries
    from proa.transfer.remote import Remote as Remote
    from proa.transfer.stored import Stored as Stored
    from proa.transfer.stored_image import StoredImage as StoredImage
    from proa.transfer.stored_image import assign as assign
    from proa.transfer.stored_image import image_manifests as image_manifests
    from proa.transfer.stored_image import make_image as make_image
    from proa.transfer.stored_image import origin_digest as origin_digest
    from proa.transfer.stored_image import parent_id as parent_id
    from proa.transfer.stored_image import read_image as read_image
    from proa.transfer.tags import delete_name as delete_name
    from proa.transfer.tags import list_tags as list_tags

_MODULES = {
    "copy": "copying",
    "Credentials": "credentials",
    "credentials_from_header": "credentials",
    "credentials_from_mapping": "credentials",
    "Source": "ends",
    "Sink": "ends",
    "import_tar": "importing",
    "Layout": "layout",
    "load": "loading",
    "save": "loading",
    "check_login": "login",
    "Progress": "progress",
    "ProgressEvent": "progress",
    "fetch_image": "pulling",
    "pull": "pulling",
    "push": "pushing",
    "Proxies": "proxies",
    "Registries": "registries",
    "Remote": "remote",
    "Stored": "stored",
    "StoredImage": "stored_image",
    "assign": "stored_image",
    "image_manifests": "stored_image",
    "make_image": "stored_image",
    "origin_digest": "stored_image",
    "parent_id": "stored_image",
    "read_image": "stored_image",
    "delete_name": "tags",
    "list_tags": "tags",
}

__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value
