"""net/certificates.py: the watch over the files that contexts are made of."""

from __future__ import annotations

import logging
import os
import shutil
import ssl
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from preforksmtp.net.certificates import CertificateWatch
from preforksmtp.net.tls import ServerContext, TLSError, server_context

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")

LOG = logging.getLogger("test.certificates")


@dataclass(frozen=True)
class Settings:
    certfile: str | None = None
    keyfile: str | None = None
    keyfile_password_file: str | None = None
    ca_certs: str | None = None
    cert_reqs: str = "none"
    ciphers: str | None = None
    tls_min_version: str = "1.2"
    sni: Mapping[str, tuple[str, str | None]] = field(default_factory=dict)


CLEAR = Settings()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three certificates with their keys."""
    folder = tmp_path_factory.mktemp("made")
    for name in ("one", "two", "three"):
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
             "-days", "2", "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem"],
            check=True, capture_output=True, cwd=folder,
        )  # fmt: skip
    return folder


class Site:
    """A folder in which certificates are in use: cert.pem and its key.pem."""

    def __init__(self, made: Path, folder: Path) -> None:
        self.made = made
        self.folder = folder
        self.settings = Settings(certfile=str(folder / "cert.pem"), keyfile=str(folder / "key.pem"))
        self.put("one")

    def put(self, name: str) -> None:
        """New files in the place of the old, as certbot does it."""
        self.put_one(f"{name}.pem", "cert.pem")
        self.put_one(f"{name}.key", "key.pem")

    def put_one(self, source: str, target: str) -> None:
        new = self.folder / f"{target}.new"
        new.write_bytes((self.made / source).read_bytes())
        os.replace(new, self.folder / target)

    def der(self, name: str) -> bytes:
        return ssl.PEM_cert_to_DER_cert((self.made / f"{name}.pem").read_text())


@pytest.fixture
def site(made: Path, tmp_path: Path) -> Site:
    return Site(made, tmp_path)


Watch = CertificateWatch[list[ServerContext]]


def watching(*settings: Settings, build: Callable[[], list[ServerContext]] | None = None) -> Watch:
    return CertificateWatch(settings, build or (lambda: [server_context(one) for one in settings if one.certfile]), LOG)


def served(watch: Watch) -> list[bytes]:
    """The certificate of each listener."""
    return [context.certificate for context in watch.contexts]


def looks(watch: Watch, count: int = 4) -> list[bool]:
    return [watch.changed() for _ in range(count)]


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


def test_nothing_changes(site: Site) -> None:
    watch = watching(site.settings, CLEAR)
    assert looks(watch) == [False] * 4
    assert served(watch) == [site.der("one")]


def test_a_change_is_reported_once_it_has_rested(site: Site) -> None:
    watch = watching(site.settings, CLEAR)
    old = watch.contexts
    site.put("two")
    assert looks(watch) == [False, True, False, False]
    assert watch.contexts is not old
    assert served(watch) == [site.der("two")]
    site.put("three")
    assert looks(watch) == [False, True, False, False]
    assert served(watch) == [site.der("three")]


def test_while_files_change_with_every_look_nothing_is_believed(site: Site) -> None:
    watch = watching(site.settings)
    for name in ("two", "three", "two", "three"):
        site.put(name)
        assert not watch.changed()
    assert watch.changed()
    assert served(watch) == [site.der("three")]


def test_half_of_it_is_complained_about_once(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """The certificate is new, its key is still the old one's."""
    watch = watching(site.settings)
    site.put_one("two.pem", "cert.pem")
    assert looks(watch) == [False] * 4
    (line,) = errors(caplog)
    key, cert = site.settings.keyfile, site.settings.certfile
    assert line == (
        "TLS certificates have changed, but do not load; the old ones stay in use: "
        f"keyfile {key} does not belong to the certificate of certfile {cert}"
    )
    assert served(watch) == [site.der("one")]
    site.put_one("two.key", "key.pem")
    assert looks(watch) == [False, True, False, False]
    assert served(watch) == [site.der("two")]
    assert len(errors(caplog)) == 1


def test_each_different_fault_is_one_complaint(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    watch = watching(site.settings)
    cert = site.folder / "cert.pem"
    whole = cert.read_bytes()
    for content in (whole[:100], b"", whole[:50]):  # truncated, and truncated otherwise: the same fault
        cert.write_bytes(content)
        assert looks(watch, 3) == [False] * 3
    cert.unlink()
    assert looks(watch, 3) == [False] * 3
    assert [line.partition("in use: ")[2].replace(str(cert), "@") for line in errors(caplog)] == [
        "certfile @ has no certificate in PEM format (-----BEGIN CERTIFICATE-----)",
        "certfile @ does not exist",
    ]
    cert.write_bytes(whole)
    assert looks(watch, 3) == [False] * 3, "the same as is being served"
    cert.unlink()
    assert looks(watch, 3) == [False] * 3
    assert len(errors(caplog)) == 3, "it was well in between"


def test_written_anew_with_the_same_content(site: Site) -> None:
    watch = watching(site.settings)
    old = watch.contexts
    site.put("one")
    os.utime(site.folder / "cert.pem")
    assert looks(watch) == [False] * 4
    assert watch.contexts is old


def test_a_change_while_the_new_ones_are_read(site: Site) -> None:
    """Built from files that change meanwhile: not believed, the next looks decide."""
    changes: Iterator[Callable[[], None]] = iter([lambda: None, lambda: site.put("three")])

    def build() -> list[ServerContext]:
        context = server_context(site.settings)
        next(changes, lambda: None)()
        return [context]

    watch = watching(site.settings, build=build)
    site.put("two")
    assert looks(watch, 2) == [False, False]
    assert served(watch) == [site.der("one")]
    assert looks(watch, 3) == [False, True, False]
    assert served(watch) == [site.der("three")]


@pytest.mark.parametrize("which", ["sni certificate", "sni key", "ca_certs", "folder of ca_certs", "password"])
def test_every_file_is_watched(site: Site, which: str) -> None:
    site.put_one("two.pem", "name.pem")
    site.put_one("two.key", "name.key")
    site.put_one("three.pem", "ca.pem")
    (site.folder / "cas").mkdir()
    (site.folder / "password").write_text("secret\n")
    at = {name: str(site.folder / name) for name in ("name.pem", "name.key", "ca.pem", "cas", "password")}
    settings = replace(
        site.settings,
        sni={"mx.example.org": (at["name.pem"], at["name.key"])},
        ca_certs=at["cas"] if which == "folder of ca_certs" else at["ca.pem"],
        keyfile_password_file=at["password"],
    )
    watch = watching(settings)
    assert looks(watch) == [False] * 4
    if which.startswith("sni"):
        # The other half first: it is complained about, and waited for.
        halves = (("three.pem", "name.pem"), ("three.key", "name.key"))
        for source, target in halves if which == "sni key" else halves[::-1]:
            assert looks(watch, 3) == [False] * 3
            site.put_one(source, target)
    elif which == "password":
        Path(at["password"]).write_text("another\n")
    elif which == "ca_certs":
        site.put_one("one.pem", "ca.pem")
    else:
        shutil.copy(site.made / "one.pem", site.folder / "cas" / "new.0")
    assert looks(watch) == [False, True, False, False]


def test_symbolic_links_are_followed(site: Site) -> None:
    """As Kubernetes mounts a secret, and certbot keeps live/."""
    for name in ("one", "two"):
        (site.folder / name).mkdir()
        shutil.copy(site.made / f"{name}.pem", site.folder / name / "tls.crt")
        shutil.copy(site.made / f"{name}.key", site.folder / name / "tls.key")
    current = site.folder / "current"
    current.symlink_to("one")
    watch = watching(Settings(certfile=str(current / "tls.crt"), keyfile=str(current / "tls.key")))
    (site.folder / "new").symlink_to("two")
    os.replace(site.folder / "new", current)
    assert looks(watch) == [False, True, False, False]
    assert served(watch) == [site.der("two")]


def test_what_cannot_be_built_at_first_is_an_error(site: Site) -> None:
    (site.folder / "key.pem").unlink()
    with pytest.raises(TLSError, match=r"^keyfile .*key\.pem does not exist$"):
        watching(site.settings)


def test_what_a_function_of_the_user_raises_is_one_line(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    faults: list[Exception] = []

    def build() -> list[ServerContext]:
        if faults:
            raise faults.pop()
        return [server_context(site.settings)]

    watch = watching(site.settings, build=build)
    faults += [RuntimeError("no luck\ntoday")]
    site.put("two")
    assert looks(watch) == [False] * 4
    assert [line.partition("in use: ")[2] for line in errors(caplog)] == ["no luck today"]
    site.put("three")
    assert looks(watch) == [False, True, False, False]
