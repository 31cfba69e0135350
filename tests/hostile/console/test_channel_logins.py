"""Socket ids made to be signed as something else, or to break the signing."""

from __future__ import annotations

import msgspec
import pytest

from magmobo.console.app import ChannelLogin


@pytest.mark.parametrize(
    "socket_id",
    ["1.1\n", "\n1.1", "1.1:private-x", "1.1.1", "١.١", "1", "", "1.", "-1.1", "1.1 ", "1e5.1", "1" * 21 + ".1"],
)
def test_only_ascii_digits_around_one_dot_are_a_socket_id(socket_id: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"socket_id": socket_id, "channel_name": "private-db.public.t"}, ChannelLogin)


def test_what_the_server_hands_out_is_one() -> None:
    msgspec.convert({"socket_id": "123.456", "channel_name": "private-db.public.t"}, ChannelLogin)
