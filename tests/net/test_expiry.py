"""When certificates end."""

from __future__ import annotations

import ssl
import time

import pytest

from preforksmtp.net.expiry import expiry, not_after
from tests.certificates import make_certificate
from tests.program.conftest import need


def test_the_end_of_a_certificate(tmp_path):
    need("openssl")
    certificate = make_certificate(tmp_path)
    ends = expiry(str(certificate.certfile))
    assert ends is not None
    found = ssl._ssl._test_decode_cert(str(certificate.certfile))["notAfter"]
    assert ends == ssl.cert_time_to_seconds(found)
    assert ends > time.time()


@pytest.mark.parametrize("content", [b"", b"no certificate", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_what_is_no_certificate(tmp_path, content):
    file = tmp_path / "cert.pem"
    file.write_bytes(content)
    assert expiry(str(file)) is None
    assert expiry(str(tmp_path / "missing")) is None


def _tlv(tag, content):
    return bytes([tag, len(content)]) + content


@pytest.mark.parametrize(
    "tag, when, year",
    [(0x17, b"491231235959Z", 2049), (0x17, b"500101000000Z", 1950), (0x18, b"21060207062815Z", 2106)],
)
@pytest.mark.parametrize("version", [b"", b"\xa0\x03\x02\x01\x02"])
def test_both_forms_of_a_time(tag, when, year, version):
    validity = _tlv(0x30, _tlv(0x17, b"200101000000Z") + _tlv(tag, when))
    signed = version + _tlv(0x02, b"\1") + _tlv(0x30, b"") + _tlv(0x30, b"") + validity
    assert time.gmtime(not_after(_tlv(0x30, _tlv(0x30, signed)))).tm_year == year
