"""Which addresses requests of extensions may reach: those of the public internet, and networks that an admin named.

Boundary: addresses in, yes or no out; no I/O. Invariant: what is not known to be public is not; an address that carries
another one inside (mapped, NAT64, 6to4, Teredo) is never public. Source: IANA's special-purpose address registries.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address, ip_network

_SPECIAL_V4 = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24",
        "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
    )
)  # fmt: skip
_UNICAST_V6 = IPv6Network("2000::/3")
_SPECIAL_V6 = tuple(
    IPv6Network(text) for text in ("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20")
)


class Networks:
    """The public internet and these networks (CIDR). Raises: ValueError for a text that is no network."""

    def __init__(self, allowed: Sequence[str] = ()) -> None:
        self._allowed = tuple(ip_network(text) for text in allowed)

    def may_reach(self, address: str) -> bool:
        """Whether a request may go to this address, as a resolver spells it.

        >>> Networks().may_reach("169.254.169.254"), Networks().may_reach("::ffff:8.8.8.8")
        (False, False)
        """
        try:
            found = ip_address(address)
        except ValueError:
            return False
        if any(found in network for network in self._allowed if network.version == found.version):
            return True
        if isinstance(found, IPv4Address):
            return not any(found in network for network in _SPECIAL_V4)
        return found in _UNICAST_V6 and not any(found in network for network in _SPECIAL_V6)
