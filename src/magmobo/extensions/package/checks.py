"""What a well-formed manifest must also be: names that exist, capabilities for what is used, languages that parse.

Boundary: one manifest and the catalogues of the contracts; other extensions and the node's version are
`requirements.py`'s. Each check yields problems and never stops another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from magmobo.contracts.errors import MagError
from magmobo.contracts.events import declared_events
from magmobo.contracts.extensions import EXTENSION_CAPABILITIES, PLANNED_CAPABILITIES
from magmobo.contracts.hooks import HOOK_POINTS, HookSpec, Phase
from magmobo.extensions.package.errors import Problem, VersionInvalid
from magmobo.extensions.package.manifest import CapabilityRequest, EventBinding, HookBinding, Manifest
from magmobo.extensions.package.schemas import schema_problems
from magmobo.extensions.package.scopes import (
    KINDS,
    REQUIRED_SCOPES,
    SCOPE_KINDS,
    parse_table,
    scope_problem,
    topic_words,
    topics_meet,
)
from magmobo.extensions.package.settings import default_problems
from magmobo.extensions.package.shapes import did_you_mean
from magmobo.extensions.package.upgrades import effective_requests
from magmobo.extensions.package.versions import parse_range, parse_version

_ROWS = "database.change"
_AUDITED = ("auth", "security")


def semantic_problems(manifest: Manifest) -> Iterator[Problem]:
    """Everything that its shape alone does not say."""
    yield from _versions(manifest)
    yield from _capabilities(manifest)
    yield from _hooks(manifest)
    yield from _events(manifest)
    yield from _endpoints(manifest)
    yield from _jobs(manifest)
    yield from _same_names("commands", [one.name for one in manifest.commands])
    yield from _settings(manifest)


def known_topics() -> frozenset[str]:
    """Topics of every event that is declared, also those of components that are loaded."""
    return frozenset(event.topic for event in declared_events())


def _versions(manifest: Manifest) -> Iterator[Problem]:
    yield from _parsed(parse_version, manifest.version, "$.version")
    yield from _parsed(parse_range, manifest.requires.magmobo, "$.requires.magmobo")
    for name, text in manifest.requires.extensions.items():
        yield from _parsed(parse_range, text, f"$.requires.extensions.{name}")
        if name in manifest.requires.conflicts:
            yield Problem("$.requires.conflicts", f"{name} is required and refused")
    if manifest.id in manifest.requires.extensions or manifest.id in manifest.requires.conflicts:
        yield Problem("$.requires", "an extension cannot require or refuse itself")


def _parsed(parse: Callable[[str], object], text: str, path: str) -> Iterator[Problem]:
    try:
        parse(text)
    except VersionInvalid as error:
        yield Problem(path, str(error))


def _capabilities(manifest: Manifest) -> Iterator[Problem]:
    yield from _same_names("capabilities", [one.name for one in manifest.capabilities])
    for place, request in enumerate(manifest.capabilities):
        path = f"$.capabilities[{place}]"
        if request.name not in EXTENSION_CAPABILITIES:
            hint = did_you_mean(request.name, EXTENSION_CAPABILITIES)
            yield Problem(f"{path}.name", f"there is no capability {request.name}{hint}")
            continue
        if request.name in PLANNED_CAPABILITIES and not request.optional:
            why = PLANNED_CAPABILITIES[request.name]
            yield Problem(f"{path}.name", f"{why}; make it optional, with a fallback, or leave it out")
        if request.optional and not request.fallback:
            yield Problem(f"{path}.fallback", "an optional capability says how the extension does without it")
        yield from _scopes(request, path)


def _scopes(request: CapabilityRequest, path: str) -> Iterator[Problem]:
    allowed = SCOPE_KINDS.get(request.name, ())
    for kind in KINDS:
        scopes: Sequence[str] = getattr(request, kind)
        if scopes and kind not in allowed:
            yield Problem(f"{path}.{kind}", f"{request.name} has no {kind}")
        elif not scopes and kind in allowed and request.name in REQUIRED_SCOPES:
            yield Problem(f"{path}.{kind}", f"name the {kind} that {request.name} is for")
        for place, scope in enumerate(scopes):
            problem = scope_problem(kind, scope)
            if problem is not None:
                yield Problem(f"{path}.{kind}[{place}]", problem)


def _hooks(manifest: Manifest) -> Iterator[Problem]:
    yield from _same_names("hooks", [one.point for one in manifest.hooks])
    has = effective_requests(manifest)
    for place, binding in enumerate(manifest.hooks):
        path = f"$.hooks[{place}]"
        spec = HOOK_POINTS.get(binding.point)
        if spec is None:
            hint = did_you_mean(binding.point, HOOK_POINTS)
            yield Problem(f"{path}.point", f"there is no hook point {binding.point[:60]!r}{hint}")
            continue
        if spec.planned:
            yield Problem(f"{path}.point", f"{binding.point} cannot be used yet: {spec.planned}")
        if spec.capability not in has:
            yield Problem(f"{path}.point", f"{binding.point} needs the capability {spec.capability}")
        yield from _hook_terms(binding, spec, path)


def _hook_terms(binding: HookBinding, spec: HookSpec, path: str) -> Iterator[Problem]:
    limit_ms = round(spec.timeout_s * 1000)
    if binding.timeout_ms is not None and binding.timeout_ms > limit_ms:
        yield Problem(f"{path}.timeout_ms", f"{spec.name} waits at most {limit_ms} ms")
    if binding.on_error is None:
        return
    if spec.on_error == "deny" and binding.on_error != "deny":
        yield Problem(f"{path}.on_error", f"{spec.name} fails closed: on_error is deny")
    elif binding.on_error == "deny" and spec.phase in (Phase.AFTER, Phase.GATHER):
        yield Problem(f"{path}.on_error", f"{spec.name} is told and cannot deny")
    elif binding.on_error == "fallback" and spec.phase is not Phase.REPLACE:
        yield Problem(f"{path}.on_error", f"{spec.name} has nothing to fall back to")


def _events(manifest: Manifest) -> Iterator[Problem]:
    yield from _same_names("events", [one.name for one in manifest.events])
    has = effective_requests(manifest)
    topics = known_topics()
    for place, binding in enumerate(manifest.events):
        path = f"$.events[{place}]"
        try:
            words = topic_words(binding.topic)
        except ValueError as error:
            yield Problem(f"{path}.topic", str(error))
            continue
        if not any(topics_meet(words, topic) for topic in topics):
            yield Problem(
                f"{path}.topic", f"no event has the topic {binding.topic}{did_you_mean(binding.topic, topics)}"
            )
        if words[0] in _AUDITED and "auth.audit_access" not in has:
            yield Problem(f"{path}.topic", f"{binding.topic} needs the capability auth.audit_access")
        yield from _rows(binding, manifest, path)
        yield from _filter(binding, path)


def _rows(binding: EventBinding, manifest: Manifest, path: str) -> Iterator[Problem]:
    if binding.topic != _ROWS:
        if binding.tables:
            yield Problem(f"{path}.tables", f"only {_ROWS} is about tables")
        return
    if not binding.tables:
        yield Problem(f"{path}.tables", f"{_ROWS} names the tables it is about")
    readable = set()
    for request in effective_requests(manifest).get("database.read", ()):
        for text in request.tables:
            if scope_problem("tables", text) is None:
                readable.add(parse_table(text).table)
    for place, text in enumerate(binding.tables):
        problem = scope_problem("tables", text)
        if problem is None and "(" in text:
            problem = "name the table alone; columns are those of database.read"
        if problem is None and text not in readable:
            problem = f"{text} is not among the tables of database.read"
        if problem is not None:
            yield Problem(f"{path}.tables[{place}]", problem)


def _filter(binding: EventBinding, path: str) -> Iterator[Problem]:
    if not binding.where:
        return
    from magmobo.extensions.languages.filters import compile_filter  # re2: only for those that have one

    try:
        compile_filter(binding.where)
    except MagError as error:
        yield Problem(f"{path}.where", str(error))


def _endpoints(manifest: Manifest) -> Iterator[Problem]:
    if manifest.endpoints and "api.register_endpoint" not in effective_requests(manifest):
        yield Problem("$.endpoints", "endpoints need the capability api.register_endpoint")
    yield from _same_names("endpoints", [f"{one.method} {one.path}" for one in manifest.endpoints])
    for place, one in enumerate(manifest.endpoints):
        if "//" in one.path or {".", ".."} & set(one.path.split("/")):
            yield Problem(f"$.endpoints[{place}].path", "no part of a path is empty, . or ..")


def _jobs(manifest: Manifest) -> Iterator[Problem]:
    yield from _same_names("jobs", [one.name for one in manifest.jobs])
    has = effective_requests(manifest)
    for place, job in enumerate(manifest.jobs):
        path = f"$.jobs[{place}]"
        needed = "system.cron_schedule" if job.cron else "system.background_jobs"
        if needed not in has:
            yield Problem(path, f"the job {job.name} needs the capability {needed}")
        if job.cron:
            yield from _cron(job.cron, f"{path}.cron")


def _cron(text: str, path: str) -> Iterator[Problem]:
    from magmobo.extensions.languages.cron import check_cron  # cronsim: only for those that have one

    try:
        check_cron(text)
    except MagError as error:
        yield Problem(path, str(error))


def _settings(manifest: Manifest) -> Iterator[Problem]:
    problems = list(schema_problems(manifest.settings, "$.settings"))
    yield from problems or default_problems(manifest.settings)


def _same_names(where: str, names: Sequence[str]) -> Iterator[Problem]:
    for place, name in enumerate(names):
        if name in names[:place]:
            yield Problem(f"$.{where}[{place}]", f"{name[:100]!r} is there already")
