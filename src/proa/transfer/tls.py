"""TLS to a registry: whose certificates are trusted, and what this client shows of itself."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from proa.errors import Unavailable


class Tls(NamedTuple):
    """What is trusted besides the system's authorities, and with which certificate a host knows this client.

    pairs:  (certificate, key) files; without a key, the certificate's file has it
    verify: False for a host whose certificate nobody can check; asked for by an administrator
    """

    authorities: tuple[Path, ...] = ()
    pairs: tuple[tuple[Path, Path | None], ...] = ()
    verify: bool = True

    def joined(self, other: Tls) -> Tls:
        """Both."""
        return Tls((*self.authorities, *other.authorities), (*self.pairs, *other.pairs), self.verify and other.verify)

    def context(self) -> ssl.SSLContext:
        """A context for one host. Raises Unavailable for a file that cannot be used."""
        context = ssl.create_default_context()
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        for file in self.authorities:
            with _named(file):
                context.load_verify_locations(cafile=str(file))
        for certificate, key in self.pairs:
            with _named(certificate):
                context.load_cert_chain(str(certificate), str(key) if key else None, _no_password)
        return context


class _named:  # noqa: N801 - used as a context manager
    def __init__(self, file: Path) -> None:
        self._file = file

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, tb: object) -> None:
        if isinstance(error, OSError):  # ssl.SSLError is one
            why = error.strerror or str(error)
            raise Unavailable(
                f"cannot use certificate {self._file}: {why}", code="certificate-unreadable", subject=str(self._file)
            ) from None


def _no_password() -> str:
    # OpenSSL would ask on the terminal.
    raise PermissionError(1, "its key has a passphrase")


def docker_certificates(folders: Iterable[Path], names: Iterable[str]) -> Tls:
    """What Docker's layout has for a host called any of `names`: *.crt are authorities, *.cert with *.key pairs.

    Raises Unavailable for a certificate without its key.
    """
    authorities: list[Path] = []
    pairs: list[tuple[Path, Path | None]] = []
    safe = [name for name in names if re.fullmatch(r"[A-Za-z0-9\[\].:_-]+", name) and not name.startswith(".")]
    for folder in (folder / name for folder in folders for name in dict.fromkeys(safe)):
        try:
            entries = sorted(os.listdir(folder))
        except OSError:
            continue
        for entry in entries:
            if entry.endswith(".crt"):
                authorities.append(folder / entry)
            elif entry.endswith(".cert"):
                key = folder / f"{entry[:-5]}.key"
                if not key.exists():
                    raise Unavailable(
                        f"cannot use certificate {folder / entry}: there is no {key.name} beside it",
                        code="certificate-unreadable",
                        subject=str(folder / entry),
                    )
                pairs.append((folder / entry, key))
    return Tls(tuple(authorities), tuple(pairs))
