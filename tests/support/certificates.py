"""An authority and what it signs, for TLS in tests."""

from __future__ import annotations

import subprocess
from pathlib import Path


def make_pairs(directory: Path) -> None:
    """ca.pem, servercert.pem and serverkey.pem (for 127.0.0.1 and localhost), and a client's cert.pem and key.pem."""
    _pair(directory, "ca", None)
    _pair(directory, "server", directory)
    _pair(directory, "", directory)
    (directory / "ca.pem").write_bytes((directory / "cacert.pem").read_bytes())


def _pair(directory: Path, name: str, authority: Path | None) -> None:
    key, certificate = directory / f"{name}key.pem", directory / f"{name}cert.pem"
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    words += ["-subj", f"/CN={name or 'client'}", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    words += ["-keyout", str(key), "-out", str(certificate)]
    if authority is not None:
        words += ["-CA", str(authority / "cacert.pem"), "-CAkey", str(authority / "cakey.pem")]
        words += ["-addext", "basicConstraints=critical,CA:FALSE"]
    subprocess.run(words, check=True, capture_output=True)
