"""Authorities and X.509-SVIDs of a test, written as those write them who renew them: beside, then renamed."""
import datetime
import os

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NOW = lambda: datetime.datetime.now(datetime.timezone.utc)  # noqa: E731
#: Clocks may differ by so much.
SKEW = datetime.timedelta(seconds=30)


def replace(path, content):
    fresh = path.with_name(f".{path.name}.fresh")
    fresh.write_bytes(content)
    fresh.chmod(0o644)
    os.replace(fresh, path)


def pem(certificate):
    return certificate.public_bytes(serialization.Encoding.PEM)


class Authority:
    """A root of one trust domain."""

    def __init__(self, domain, life=datetime.timedelta(days=1)):
        self.domain, self.key, self.revoked, self.number = domain, ec.generate_private_key(ec.SECP256R1()), [], 0
        name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, f"{domain} {x509.random_serial_number():x}"[:60])])
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        self.certificate = (
            x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(self.key.public_key())
            .serial_number(x509.random_serial_number()).not_valid_before(NOW() - SKEW).not_valid_after(NOW() + life)
            .add_extension(x509.BasicConstraints(True, 0), True).add_extension(usage, True)
            .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"spiffe://{domain}")]), False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), False)
            .sign(self.key, hashes.SHA256())
        )

    def issue(self, path, life=datetime.timedelta(hours=1)):
        """Certificate and key for `spiffe://DOMAIN/PATH`."""
        key = ec.generate_private_key(ec.SECP256R1())
        usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
        both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        certificate = (
            x509.CertificateBuilder().subject_name(x509.Name([])).issuer_name(self.certificate.subject)
            .public_key(key.public_key()).serial_number(x509.random_serial_number())
            .not_valid_before(NOW() - SKEW).not_valid_after(NOW() + life)
            .add_extension(x509.BasicConstraints(False, None), True).add_extension(usage, True)
            .add_extension(x509.ExtendedKeyUsage(both), False)
            .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"spiffe://{self.domain}/{path}")]), True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), False)
            .sign(self.key, hashes.SHA256())
        )
        return certificate, key

    def revocations(self, *certificates):
        """A revocation list with these and all before."""
        self.revoked += [certificate.serial_number for certificate in certificates]
        self.number += 1
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.certificate.subject)
        builder = builder.last_update(NOW() - SKEW).next_update(NOW() + datetime.timedelta(days=1))
        builder = builder.add_extension(x509.CRLNumber(self.number), False)
        builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), False)
        for serial in self.revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(NOW() - SKEW).build()
            builder = builder.add_revoked_certificate(entry)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


class Files:
    """The files of one workload's identity."""

    def __init__(self, folder, path):
        self.folder, self.path, self.certificate = folder, path, None
        folder.mkdir()
        folder.chmod(0o755)

    def show(self, authority, **life):
        """A fresh certificate with a fresh key. The two are replaced one after the other, as most tools do."""
        self.certificate, key = authority.issue(self.path, **life)
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        replace(self.folder / "tls.key", key.private_bytes(*form))
        replace(self.folder / "tls.crt", pem(self.certificate))

    def believe(self, *authorities):
        replace(self.folder / "ca.crt", b"".join(pem(authority.certificate) for authority in authorities))

    def revoke(self, lists):
        replace(self.folder / "revoked.crl", lists)
