"""Which addresses are the public internet, and which URLs are plainly URLs of named hosts."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from magmobo.extensions.api.addresses import Networks
from magmobo.extensions.api.errors import UrlRefused
from magmobo.extensions.api.targets import Target, follow, is_granted, parse

PUBLIC = ["8.8.8.8", "1.1.1.1", "93.184.216.34", "172.32.0.1", "100.128.0.1", "2606:4700::1", "2a00:1450:4001::2004"]
SPECIAL = [
    "127.0.0.1", "127.255.255.255", "0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1",
    "169.254.169.254", "100.64.0.1", "192.0.0.170", "198.18.0.1", "224.0.0.1", "239.255.255.250", "255.255.255.255",
    "240.0.0.1", "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1", "::ffff:127.0.0.1",
    "::ffff:8.8.8.8", "::7f00:1", "64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::1", "2002:7f00:1::1", "2001::1",
    "2001:0:7f00:1::1", "2001:db8::1", "100::1", "5f00::1", "3fff::1", "localhost", "", "127.1", "0x7f.0.0.1",
]  # fmt: skip


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_may_be_reached(address: str) -> None:
    assert Networks().may_reach(address)


@pytest.mark.parametrize("address", SPECIAL)
def test_special_addresses_may_not(address: str) -> None:
    assert not Networks().may_reach(address)


@given(st.ip_addresses())
@example(ip_address("192.0.0.9"))
def test_nothing_is_public_that_the_standard_library_calls_private(address: object) -> None:
    found = ip_address(str(address))
    if not found.is_global or found.is_multicast:
        assert not Networks().may_reach(str(found))


def test_an_admin_names_more_networks() -> None:
    networks = Networks(["10.1.0.0/16", "fd00::/8"])
    assert networks.may_reach("10.1.2.3")
    assert networks.may_reach("fd00::1")
    assert not networks.may_reach("10.2.0.1")
    assert not networks.may_reach("::ffff:10.1.2.3")
    with pytest.raises(ValueError, match="not"):
        Networks(["10.1.0.0/33"])


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://api.example.com", Target("https", "api.example.com", 443, "/")),
        ("HTTP://API.example.COM:80/A?b=C", Target("http", "api.example.com", 80, "/A?b=C")),
        ("https://a.b:8443?x=1#part", Target("https", "a.b", 8443, "/?x=1")),
        ("https://xn--bcher-kva.example/%C3%BC;p=(1)", Target("https", "xn--bcher-kva.example", 443, "/%C3%BC;p=(1)")),
        ("http://service/", Target("http", "service", 80, "/")),
    ],
)
def test_a_url_is_taken_apart(url: str, target: Target) -> None:
    assert parse(url) == target
    assert parse(target.url) == target


@pytest.mark.parametrize(
    "url",
    [
        "", "api.example.com", "//a.b/", "ftp://a.b/", "file:///etc/passwd", "gopher://a.b/", "https:///x", "https:a.b",
        "http://user@a.b/", "http://a.b:80@c.d/", "http://a.b\\@c.d/", "http://a.b\\.c.d/", "http://a.b /", " http://a.b/",
        "http://a.b/ x", "http://a.b/\r\nHost: c", "http://a.b/\n", "http://a.b\x00/", "http://a.b/é", "http://ⓐ.b/",
        "http://a。b/", "http://a..b/", "http://.a/", "http://a./", "http://-a.b/", "http://a_b.c/", "http://a.b:/",
        "http://a.b:0/", "http://a.b:65536/", "http://a.b:8080x/", "http://127.0.0.1/", "http://127.1/", "http://0/",
        "http://2130706433/", "http://0x7f000001/", "http://0x7f.0x0.0x0.0x1/", "http://0177.0.0.1/", "http://0x/",
        "http://[::1]/", "http://[::ffff:127.0.0.1]/", "http://a.b.1/", "http://%31%32%37.0.0.1/", "http://a%2eb/",
        "http://" + "a" * 64 + ".b/", "http://a.b/" + "x" * 8_192, "javascript:alert(1)", "http://a.b/{x}", "http://a.b/\t",
    ],
)  # fmt: skip
def test_what_is_not_plainly_a_url_is_refused(url: str) -> None:
    with pytest.raises(UrlRefused):
        parse(url)


@given(st.text(max_size=60) | st.from_regex(r"https?://[a-z0-9.:@\\/\[\]%-]{1,40}"))
def test_any_text_is_a_target_or_an_error_of_ours(text: str) -> None:
    try:
        target = parse(text)
    except UrlRefused:
        return
    assert parse(target.url) == target
    assert target.url.isascii()
    assert not set(target.host) & set("@\\/:[]% \r\n")


@pytest.mark.parametrize(
    ("hosts", "url", "granted"),
    [
        (["api.example.com"], "https://api.example.com/", True),
        (["api.example.com"], "http://API.example.com/", True),
        (["api.example.com"], "https://api.example.com:8443/", False),
        (["api.example.com"], "http://api.example.com:443/", False),
        (["api.example.com"], "https://example.com/", False),
        (["api.example.com"], "https://x.api.example.com/", False),
        (["api.example.com"], "https://api.example.com.evil.test/", False),
        (["api.example.com:8443"], "https://api.example.com:8443/", True),
        (["api.example.com:8443"], "https://api.example.com/", False),
        (["*.example.com"], "https://a.example.com/", True),
        (["*.example.com"], "https://a.b.example.com/", True),
        (["*.example.com"], "https://example.com/", False),
        (["*.example.com"], "https://evilexample.com/", False),
        (["*"], "https://a.example.com/", False),
        (["*.com", "not a host", "b.test"], "https://b.test/", True),
        ([], "https://a.example.com/", False),
    ],
)
def test_hosts_mean_what_a_manifest_says(hosts: list[str], url: str, granted: bool) -> None:
    assert is_granted(parse(url), hosts) is granted


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("/b?c", "https://a.test/b?c"),
        ("c", "https://a.test/x/c"),
        ("../c", "https://a.test/c"),
        ("//b.test/c", "https://b.test/c"),
        ("https://b.test:8443", "https://b.test:8443/"),
    ],
)
def test_redirects_lead_somewhere(location: str, url: str) -> None:
    assert follow(parse("https://a.test/x/y"), location).url == url


@pytest.mark.parametrize(
    "location",
    [
        "http://a.test/",
        "file:///etc/passwd",
        "//u@b.test/",
        "https://[",
        "https://127.0.0.1/",
        "/\\b.test",
        "http:///a",
    ],
)
def test_redirects_to_nowhere_are_refused(location: str) -> None:
    with pytest.raises(UrlRefused):
        follow(parse("https://a.test/x/y"), location)
