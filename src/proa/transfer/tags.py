"""The names in a repository of a registry: list them, delete one (distribution-spec, "Listing Tags", "Deleting")."""

from __future__ import annotations

import re
import secrets
from urllib.parse import parse_qsl, quote, urlsplit

from proa.errors import Invalid, NotFound, ProaError, Unavailable, Unsupported
from proa.oci import Descriptor, Manifest, digest_of, encode, media_types, strict_loads
from proa.transfer.failures import registry_failure
from proa.transfer.remote import Remote

PAGE = 1000
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_NEXT = re.compile(r'<([^>]*)>\s*;(?:[^,]*;)?\s*rel\s*=\s*"?next"?')


def list_tags(remote: Remote) -> list[str]:
    """Every tag of the repository, sorted. Raises NotFound, Unauthorized, Denied, Unavailable."""
    reference = remote.reference.familiar_repository
    what = f"cannot list the tags of {reference}"
    found: dict[str, None] = {}
    last = ""
    while True:
        page = f"?n={PAGE}" + (f"&last={quote(last, safe='')}" if last else "")
        reply = remote.ask("GET", f"/tags/list{page}", bound="listing_bytes")
        if reply.status != 200:
            raise registry_failure(reply, what, reference)
        value = strict_loads(reply.body, len(reply.body), "tag list")
        tags = (value.get("tags") or []) if isinstance(value, dict) else None
        if not isinstance(tags, list) or not all(isinstance(tag, str) and _TAG.fullmatch(tag) for tag in tags):
            raise Unavailable(f"{what}: the registry's answer is no list of tags", code="registry-failed")
        known = len(found)
        found.update(dict.fromkeys(tags))
        link = _NEXT.search(reply.headers.get("link", ""))
        if link is None or not tags:
            return sorted(found)
        # Only the cursor is taken from the link: where it leads is not the registry's to say.
        last = dict(parse_qsl(urlsplit(link[1]).query)).get("last") or tags[-1]
        if len(found) > remote.limits.listing_names:
            remote.limits.exceeded("listing_names", f"{what}: it has {len(found)} and more", reference)
        if len(found) == known:
            raise Unavailable(f"{what}: the registry's pages do not end", code="registry-failed")


def delete_name(remote: Remote) -> str:
    """Delete a tag, or with a digest in the reference the manifest and all its tags; returns what was deleted.

    A registry that deletes no tags (Debian's) is given a manifest of nothing under the tag, which is then deleted by
    its digest: other tags of the same image stay. Raises NotFound, Denied, Unsupported (switched off), Unavailable.
    """
    reference = remote.reference
    what = f"cannot delete {reference.familiar}"
    if reference.digest:
        _delete(remote, reference.digest, what)
        return reference.digest
    tag = reference.tag or ""
    remote.resolve()  # a tag that is not there is to be told as such
    try:
        _delete(remote, tag, what)
    except NotFound:
        raise
    except (Unsupported, Invalid) as refusal:
        _replace_and_delete(remote, what, refusal)
    return tag


def _delete(remote: Remote, name: str, what: str) -> None:
    reply = remote.ask("DELETE", f"/manifests/{name}", action="push,delete")
    if reply.status not in (200, 202, 204):
        raise registry_failure(reply, what, remote.reference.familiar)


def _replace_and_delete(remote: Remote, what: str, refusal: ProaError) -> None:
    """Point the tag at an image of nothing, then delete that image.

    First without the tag: were deleting switched off altogether, the tag would be left at nothing.
    """
    config = b'{"architecture":"","os":"","author":"%s","rootfs":{"type":"layers","diff_ids":[]}}'
    blob = config % secrets.token_hex(8).encode()
    descriptor = Descriptor(media_type=media_types.OCI_CONFIG, digest=digest_of(blob), size=len(blob))
    manifest = Manifest(schema_version=2, media_type=media_types.OCI_MANIFEST, config=descriptor, layers=[])
    raw = encode(manifest)
    nothing = Descriptor(media_type=media_types.OCI_MANIFEST, digest=digest_of(raw), size=len(raw))
    remote.write_bytes(descriptor, blob)
    for give in (remote.put, remote.tag):
        give(nothing, raw)
        try:
            _delete(remote, nothing.digest, what)
        except (Unsupported, Invalid):
            raise refusal from None
