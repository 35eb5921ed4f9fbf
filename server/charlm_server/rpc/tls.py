"""TLS of the port: certificates from files, reloaded when they change."""

import logging
import ssl
from typing import Any

import grpc

from charlm_server.config.settings import TlsFiles
from charlm_server.errors.base import ServeError

logger = logging.getLogger(__name__)


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Credentials that reload their files. Raises ServeError if the files are unusable."""
    try:
        certificates = _Certificates(files)
    except (OSError, ssl.SSLError) as error:
        names = ", ".join(map(str, files.paths))
        raise ServeError(
            f"The certificates are unusable ({error}): {names}. Give --tls-cert PEM files, and as "
            "--tls-key the key that belongs to the certificate."
        ) from error
    changed: Any = certificates.changed  # gRPC allows it to return None; its types do not
    return grpc.dynamic_ssl_server_credentials(
        certificates.read(), changed, files.client_ca is not None
    )


class _Certificates:
    """Called at each handshake on a thread of gRPC: it may read files, and must not raise."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._version = self._present_version()
        self._check()

    def read(self) -> grpc.ServerCertificateConfiguration:
        files = self._files
        return grpc.ssl_server_certificate_configuration(
            [(files.key.read_bytes(), files.cert.read_bytes())],
            root_certificates=files.client_ca.read_bytes() if files.client_ca else None,
        )

    def changed(self) -> grpc.ServerCertificateConfiguration | None:
        """The new certificates; None to keep the old, also while the new ones are unusable."""
        try:
            version = self._present_version()
            if version == self._version:
                return None
            self._check()
            found = self.read()
        except (OSError, ssl.SSLError) as error:
            logger.error("the new certificates are unusable; the old ones stay in use: %s", error)
            return None
        self._version = version
        logger.warning("the certificates were reloaded")
        return found

    def _present_version(self) -> list[tuple[int, int]]:
        stats = [path.stat() for path in self._files.paths]
        return [(stat.st_mtime_ns, stat.st_ino) for stat in stats]

    def _check(self) -> None:
        """Raise unless the key belongs to the certificate; gRPC would fail only at a handshake."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._files.cert, self._files.key, password="")
        if self._files.client_ca:
            context.load_verify_locations(self._files.client_ca)
