"""How TLS is spoken to an engine on TCP: which authority signs, which certificate is shown.

As the docker command has it: DOCKER_TLS_VERIFY (or DOCKER_TLS, which trusts anybody) asks for it, and ca.pem, cert.pem
and key.pem are in DOCKER_CERT_PATH, else in DOCKER_CONFIG, else in ~/.docker.
"""

from __future__ import annotations

from posix import stat

from proa.client.endpoint import variable

__all__ = ["Tls", "config_dir", "of_docker", "settle"]


class Tls:
    """What one side of mutual TLS needs.

    ca:     file of the authorities that sign the engine's certificate; empty for those of the system
    certificate, key: files of what is shown to the engine; empty to show nothing
    verify: whether the engine's certificate must be signed by `ca`, for the host that was asked for
    """

    __slots__ = ("ca", "certificate", "key", "verify")

    def __init__(self, *, ca: str = "", certificate: str = "", key: str = "", verify: bool = True) -> None:
        self.ca = ca
        self.certificate = certificate
        self.key = key
        self.verify = verify

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tls) and all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    __hash__ = None  # type: ignore[assignment]  # it may be changed


def config_dir() -> str:
    """Where Docker keeps its configuration."""
    return variable("DOCKER_CONFIG") or f"{variable('HOME')}/.docker"


def of_docker(*, ca: str = "", certificate: str = "", key: str = "", verify: bool = True) -> Tls:
    """With Docker's files for what is not given; a certificate and key that are not there are not shown."""
    place = variable("DOCKER_CERT_PATH") or config_dir()
    return Tls(
        ca=ca or (f"{place}/ca.pem" if verify else ""),
        certificate=certificate or _if_any(f"{place}/cert.pem"),
        key=key or _if_any(f"{place}/key.pem"),
        verify=verify,
    )


def settle(asked: Tls | bool | None) -> Tls | None:
    """What was asked for; None is what the environment says."""
    if asked is None:
        verify = bool(variable("DOCKER_TLS_VERIFY"))
        return of_docker(verify=verify) if verify or variable("DOCKER_TLS") else None
    if isinstance(asked, bool):
        return of_docker() if asked else None
    return asked


def _if_any(path: str) -> str:
    try:
        stat(path)
    except OSError:
        return ""
    return path
