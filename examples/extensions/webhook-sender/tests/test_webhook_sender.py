import base64
import hashlib
import hmac
import json

import pytest

from magx import ApiError, HttpResponse
from magx.testing import HandlerFailed

SECRET = "a secret of at least 24 letters"
CHANGE = {
    "schema": "public",
    "table": "flights",
    "op": "insert",
    "record": {"id": 1, "origin": "JFK"},
    "old_record": None,
    "commit_time": "2013-01-01T05:15:00Z",
    "position": "0/16B3748",
}
pytestmark = pytest.mark.magx_settings(url="https://hooks.example.com/flights", secret=SECRET)


def sent(kernel):
    return [args for method, args in kernel.calls if method == "http.request"]


def test_a_change_is_posted_with_a_signature_that_holds(magx_kernel):
    magx_kernel.answer("http.request", HttpResponse(status=204))
    magx_kernel.emit("database.change", CHANGE)
    (post,) = sent(magx_kernel)
    assert (post["method"], post["url"]) == ("POST", "https://hooks.example.com/flights")
    assert json.loads(post["body"])["data"]["record"] == {"id": 1, "origin": "JFK"}
    headers = post["headers"]
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + post["body"]
    expected = base64.b64encode(hmac.new(SECRET.encode(), signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"


def test_a_second_try_carries_the_same_id(magx_kernel):
    magx_kernel.answer("http.request", HttpResponse(status=204))
    for tries in (1, 2):
        magx_kernel.event("changes", CHANGE, event_id="same", tries=tries)
    assert [post["headers"]["webhook-id"] for post in sent(magx_kernel)] == ["same", "same"]


@pytest.mark.parametrize(
    "answer", [HttpResponse(status=503), HttpResponse(status=404), ApiError("MAG-EXT-280", "no route")]
)
def test_what_is_not_taken_is_delivered_again(magx_kernel, answer):
    magx_kernel.answer("http.request", answer)
    with pytest.raises(HandlerFailed):
        magx_kernel.emit("database.change", CHANGE)


def test_a_receiver_that_is_gone_gets_no_more(magx_kernel):
    magx_kernel.answer("http.request", HttpResponse(status=410))
    magx_kernel.emit("database.change", CHANGE)
    assert ("events.subscribe", {"subscription": "changes", "active": False}) in magx_kernel.calls


@pytest.mark.magx_settings(url="https://elsewhere.example.org/", secret=SECRET)
def test_another_host_is_refused_by_the_node(magx_kernel):
    magx_kernel.answer("http.request", HttpResponse(status=204))
    with pytest.raises(HandlerFailed, match=r"elsewhere\.example\.org is not among the hosts"):
        magx_kernel.emit("database.change", CHANGE)


def test_without_a_secret_it_is_unhealthy(magx_kernel):
    assert magx_kernel.health()["status"] == "healthy"
    magx_kernel.configure(secret="")
    assert magx_kernel.health() == {"status": "unhealthy", "detail": "secret is set"}
