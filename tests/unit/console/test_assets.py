"""The console's files: complete, from nowhere else, and the vendored ones exactly as their makers published them."""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path

import magmobo.console
from magmobo.console.assets import load_assets

STATIC = Path(magmobo.console.__file__).parent / "static"
ROOT = Path(__file__).parents[3]
NOTICE = ROOT / "NOTICE"


def test_every_file_of_the_page_is_served() -> None:
    assets = load_assets()
    files = {str(path.relative_to(STATIC)) for path in STATIC.rglob("*") if path.is_file()}
    assert {path for path in files if not Path(path).name.startswith("LICENSE")} == set(assets)
    page = assets["index.html"].body.decode()
    for path in re.findall(r'(?:src|href)="static/([^"]+)"', page):
        assert path in assets
    for name, asset in assets.items():
        if name.endswith(".js") and not name.startswith("vendor/"):
            for imported in re.findall(r'from "\./([^"]+)"', asset.body.decode()):
                assert imported in assets


def test_the_page_names_no_other_host_and_runs_no_inline_code() -> None:
    for name, asset in load_assets().items():
        if name.startswith("vendor/"):
            continue
        text = asset.body.decode()
        assert not re.findall(
            r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}", text.replace("http://www.w3.org/2000/svg", "")
        ), name
        assert "innerHTML" not in text.replace("never innerHTML", "")
    page = load_assets()["index.html"].body.decode()
    assert not re.search(r"<script(?![^>]*src=)|\son\w+=|\sstyle=|<style", page)


def test_the_vendored_client_is_the_published_one_and_named_in_the_notice() -> None:
    digest = sha256((STATIC / "vendor" / "pusher.min.js").read_bytes()).hexdigest()
    assert digest == "91640c608080a550d7a7407f943fa8429e9f6d7d567d0bb810f5f6e73b06972a"
    notice = NOTICE.read_text()
    assert "pusher-js 8.6.0" in notice
    assert digest in notice
    assert "MIT" in notice
    assert "Permission is hereby granted" in (STATIC / "vendor" / "LICENSE.pusher-js").read_text()


def test_the_page_resumes_with_the_same_file_that_applications_use() -> None:
    assert load_assets()["vendor/mag-resume.js"].body == (ROOT / "clients" / "js" / "mag-resume.js").read_bytes()
