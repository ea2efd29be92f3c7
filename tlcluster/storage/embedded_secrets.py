"""The secrets of an embedded store: its S3 keys, and what its parts prove themselves with.

SeaweedFS is a group of servers. S3 asks for keys, but the servers behind it have ports of their
own: HTTP, which asks for signed tokens if the signing keys are set, and gRPC, which asks for a
certificate if there is one. Without both, every account of the machine could list and delete
objects. The files lie in the private folder of the store and go with it.
"""

import datetime
import json
import secrets
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

PROFILE = "tlcluster"
"""Name of the profile in the credentials file."""

S3_CONFIG = "s3.json"
CREDENTIALS = "credentials"

_HTTP = ("jwt.signing", "jwt.signing.read", "jwt.filer_signing", "jwt.filer_signing.read")
_GRPC = ("master", "volume", "filer", "s3", "admin", "worker", "client", "msg_broker", "msg_agent")
_DAY = datetime.timedelta(days=1)


def write_secrets(private: Path, bucket: str) -> None:
    """Write the configuration of the servers and the credentials of their one client.

    Args:
        private: the working folder of the servers; only this account may look into it.
        bucket: the one that the client may read and write.
    """
    access, secret = secrets.token_hex(10), secrets.token_hex(20)
    identity = {
        "name": bucket,
        "credentials": [{"accessKey": access, "secretKey": secret}],
        "actions": ["List", f"Read:{bucket}", f"Write:{bucket}"],
    }
    _write(private / S3_CONFIG, json.dumps({"identities": [identity]}))
    _write(
        private / CREDENTIALS,
        f"[{PROFILE}]\naws_access_key_id = {access}\naws_secret_access_key = {secret}\n",
    )
    certificate, key = private / "certificate.pem", private / "key.pem"
    _write(certificate, "")
    _write(key, "")
    certificate_pem, key_pem = _certificate()
    certificate.write_bytes(certificate_pem)
    key.write_bytes(key_pem)
    tables = {name: {"key": secrets.token_hex(20)} for name in _HTTP}
    tables["grpc"] = {"ca": str(certificate)}
    tables |= {f"grpc.{name}": {"cert": str(certificate), "key": str(key)} for name in _GRPC}
    _write(private / "security.toml", "".join(_table(*table) for table in tables.items()))


def _table(name: str, values: dict[str, str]) -> str:
    # JSON's strings are TOML's basic strings, whatever is in the path.
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    return "\n".join([f"[{name}]", *lines, ""])


def _certificate() -> tuple[bytes, bytes]:
    """A certificate that only vouches for itself, and its private key; both PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "tlcluster")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # A clock that is set back while the store runs does no harm; a store lives for a run.
        .not_valid_before(now - _DAY)
        .not_valid_after(now + 365 * _DAY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM), key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _write(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    path.touch(0o600, exist_ok=False)
    path.write_text(text)
