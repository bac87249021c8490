"""Certificates of the comparison, P-256, made by openssl where they are missing."""
import subprocess

DAYS = "2"


def _openssl(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


def authority(folder, name="ca", subject="/O=Comparison", extensions=()):
    """`NAME.pem` and `NAME.key`."""
    if not (folder / f"{name}.pem").exists():
        added = [part for extension in extensions for part in ("-addext", extension)]
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", folder / f"{name}.key"]
        _openssl("req", "-x509", *key, "-subj", subject, "-days", DAYS, *added, "-out", folder / f"{name}.pem")


def issue(folder, name, subject, extensions):
    """`NAME.pem` and `NAME.key`, of the authority `ca`."""
    if (folder / f"{name}.pem").exists():
        return
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", folder / f"{name}.key"]
    _openssl("req", *key, "-subj", subject, "-out", folder / f"{name}.csr")
    (folder / f"{name}.ext").write_text("\n".join(extensions) + "\n")
    signed = ["-CA", folder / "ca.pem", "-CAkey", folder / "ca.key", "-CAcreateserial", "-days", DAYS]
    _openssl("x509", "-req", "-in", folder / f"{name}.csr", *signed, "-extfile", folder / f"{name}.ext", "-out", folder / f"{name}.pem")
    (folder / f"{name}.key").chmod(0o644)


def server(folder, host):
    authority(folder)
    issue(folder, "server", "/O=Comparison", [f"subjectAltName=DNS:{host}", "extendedKeyUsage=serverAuth"])


def workload(folder, name, spiffe_id):
    """An X.509-SVID, whose authority's certificate names the trust domain."""
    domain = spiffe_id.split("/")[2]
    authority(folder, extensions=[f"subjectAltName=URI:spiffe://{domain}", "keyUsage=critical,keyCertSign,cRLSign"])
    issue(folder, name, "/O=Comparison", [
        f"subjectAltName=critical,URI:{spiffe_id}", "keyUsage=critical,digitalSignature",
        "extendedKeyUsage=serverAuth,clientAuth", "basicConstraints=critical,CA:FALSE",
    ])
