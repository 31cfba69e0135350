"""Extensions as lines for people: a list, one of them, what it asks for, and what an upgrade would change.

Boundary: no I/O. What an author wrote (names, reasons) is shown in one line each and can draw nothing on a terminal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from magmobo.cli.output import as_typed, printable, styled
from magmobo.cli.plans import table
from magmobo.cli.statuses import coloured, counted
from magmobo.contracts.extensions import (
    EXTENSION_CAPABILITIES,
    BindingInfo,
    DeadLetters,
    ExtensionDetail,
    ExtensionInfo,
    ExtensionPage,
    GrantInfo,
    LimitInfo,
    LogLine,
    SandboxReport,
    TrustedKeys,
    UpgradeInfo,
    WaitInfo,
    Widening,
)

_RISKS = {"low": "dim", "medium": "cyan", "high": "yellow", "critical": "red"}
_GRANT_STATES = {"granted": "granted", "pending": "waits for approval", "revoked": "revoked", "refused": "not had"}
_TIERS = {
    "S3": "system calls, files, network, processes and memory, each behind two walls",
    "S2": "without namespaces: it can see that files exist, and fill its own folder",
    "S1": "without Landlock: files are kept from it by one wall",
    "S0": "no sandbox on this system",
}


def page_lines(page: ExtensionPage) -> Iterator[str]:
    """Every extension, and what this machine's sandbox is."""
    if page.stopped:
        yield styled("the kill switch is on: no extension runs (`mag extension:kill --release`)", "red")
    yield f"sandbox {printable(page.tier)}: {_TIERS.get(page.tier, 'unknown')}"
    if not page.extensions:
        yield "no extension is installed; `mag extension:new NAME` begins one, `mag extension:install FILE` brings one"
        return
    rows = [
        [
            printable(one.id), printable(one.version), state_of(one), printable(one.health), printable(one.risk),
            printable(one.tier), printable(signer_of(one)), printable(one.detail),
        ]
        for one in page.extensions
    ]  # fmt: skip
    yield from table([["id", "version", "state", "health", "risk", "tier", "signer", ""], *rows])


def removed_lines(extension_id: str, *, with_data: bool, dry_run: bool) -> Iterator[str]:
    """That it is gone, or would be, and what of its data."""
    name, done = printable(extension_id), "would be removed" if dry_run else "removed"
    if with_data:
        yield f"{name} {done}, with its data"
        return
    yield f"{name} {done}; its data waits for a package of the same signer"
    if not dry_run:
        yield as_typed(f"next: `mag extension:uninstall {name} --delete-data` removes that, too")


def signer_of(info: ExtensionInfo) -> str:
    """Whose key signed it, as this node's admins call it."""
    return f"{info.signer_name} ({info.signer[:8]}…)" if info.signer_name else info.signer


def state_of(info: ExtensionInfo) -> str:
    """Its state, and an upgrade that waits."""
    waits = f" ({printable(info.pending_version)} waits)" if info.pending_version else ""
    return f"{printable(info.state)}{waits}"


def detail_lines(detail: ExtensionDetail) -> Iterator[str]:
    """One extension: what it is, what it may do, what it does."""
    info = detail.info
    yield f"{printable(info.id)} {printable(info.version)}  {printable(info.name)}"
    if detail.description:
        yield _row("about", detail.description)
    yield _row("author", f"{detail.author or 'unknown'}, signed by {signer_of(info)}")
    since = f", since {info.since}" if info.since else ""
    state = f"{_row('state', state_of(info))}  {coloured(printable(info.health))}{since}"
    yield f"{state}  {printable(info.detail)}".rstrip()
    if info.tier:
        yield _row("sandbox", f"{info.tier}, {counted(info.restarts, 'restart')}")
    yield from _grant_lines(detail)
    yield from _table_lines(detail.reads, detail.writes)
    for binding in detail.bindings:
        yield _row(binding.kind, f"{binding.name}  {binding.detail}".strip())
    if detail.settings:
        yield _row("settings", ", ".join(f"{key} = {value}" for key, value in detail.settings.items()))
    if detail.backlog or detail.dead:
        yield _row("events", f"{detail.backlog} wait, {detail.dead} could not be taken")
    for limit in detail.limits:
        if text := _limit_text(limit):
            yield _row("used", text)
    for wait in detail.waits:
        yield _row("waits", wait_text(wait))
        if step := _way_on(info.id, wait, detail.grants):
            yield as_typed(_row("", f"`{step}` lets it go on at once"))
    if detail.figures:
        yield _row("figures", ", ".join(f"{name} {_number(value)}" for name, value in detail.figures.items()))
    if len(detail.versions) > 1:
        yield _row("versions", ", ".join(detail.versions))
    if detail.upgrade:
        yield from upgrade_lines(detail.upgrade)
    if step := next_step(info, detail.grants):
        yield as_typed(_row("next", f"`{step}`"))


def ask_lines(detail: ExtensionDetail) -> Iterator[str]:
    """What it asks for, the riskiest first, and what that comes to; of an upgrade, what it changes."""
    yield from _grant_lines(detail)
    if detail.upgrade:
        yield from upgrade_lines(detail.upgrade)
    else:
        yield from _table_lines(detail.reads, detail.writes)


def upgrade_lines(upgrade: UpgradeInfo) -> Iterator[str]:
    """What an upgrade changes: what is more after a plus, what is less after a minus."""
    risk = f"up to {upgrade.risk} risk" if upgrade.risk else "asks for nothing more"
    yield _row("upgrade", f"to {upgrade.version}, {risk}")
    more = [*upgrade.added, *map(_widening_text, upgrade.widened), *map(_binding_text, upgrade.bindings_added)]
    less = [*upgrade.removed, *map(_binding_text, upgrade.bindings_removed)]
    yield from (_row("", f"{mark} {text}") for mark, texts in (("+", more), ("-", less)) for text in texts)
    yield from _table_lines(upgrade.reads, upgrade.writes, "would read", "would write")


def _widening_text(more: Widening) -> str:
    kind, what = ("", f"{more.what} a minute") if more.kind == "rate_per_minute" else (f"{more.kind} ", more.what)
    return f"{more.capability}  {kind}{what}"


def _binding_text(binding: BindingInfo) -> str:
    return f"{binding.kind} {binding.name}  {binding.detail}".strip()


def _grant_lines(detail: ExtensionDetail) -> Iterator[str]:
    order = list(_RISKS)
    for grant in sorted(detail.grants, key=lambda grant: -order.index(grant.risk) if grant.risk in order else 0):
        yield _grant_line(grant)


def _table_lines(
    reads: Sequence[str], writes: Sequence[str], read_label: str = "reads", write_label: str = "writes"
) -> Iterator[str]:
    for label, names in ((read_label, reads), (write_label, writes)):
        if names:
            yield _row(label, ", ".join(names))


def _grant_line(grant: GrantInfo) -> str:
    known = EXTENSION_CAPABILITIES.get(grant.capability)
    risk = styled(f"{printable(grant.risk):<9}", _RISKS.get(grant.risk, "dim"))
    scope = "; ".join(", ".join(names) for names in grant.scope.values() if names and list(names) != ["**"])
    about = [
        scope or (known.summary if known else ""),
        f'"{grant.reason}"' if grant.reason else "",
        _GRANT_STATES.get(grant.state, grant.state) + (", new" if grant.new else ""),
        f"{grant.rate_per_minute} a minute",
        f"{grant.budget_per_day} a day" if grant.budget_per_day else "",
        f"at {grant.hours} UTC" if grant.hours else "",
        f"until {grant.expires_at}" if grant.expires_at else "",
        "it runs without" if grant.optional else "",
    ]
    return f"    {risk} {printable(grant.capability):<28} {printable('; '.join(text for text in about if text))}"


def _limit_text(limit: LimitInfo) -> str:
    """What is used up of a capability; empty when nothing is to be said."""
    found = []
    if limit.budget_per_day is not None:
        spent = f"{limit.spent_today} of {limit.budget_per_day} calls of today on all nodes"
        found.append(f"{spent} (each tells every second), anew at {limit.renews_at}")
    if limit.refused:
        found.append(f"{limit.rate_per_minute} a minute, {limit.refused} refused here since the node started")
    if limit.limited:
        found.append("calls wait for the next day" if limit.limited == "budget" else "calls wait for the rate")
    return f"{limit.capability}  {'; '.join(found)}" if found else ""


def wait_text(wait: WaitInfo) -> str:
    """What does not go on for now, why, until when, and what is behind it."""
    names = " or ".join(wait.capabilities)
    why = (
        f"the budget of {names} is used up" if wait.kind == "budget" else f"a rate{names and f' of {names}'} is used up"
    )
    what = "event" if wait.handler.startswith("event:") else "job"
    return f"{wait.handler} until {wait.until}: {why}; {counted(wait.behind, what)} behind it, none is lost"


def _way_on(extension_id: str, wait: WaitInfo, grants: Sequence[GrantInfo]) -> str:
    """What ends a wait for a budget, as a command: the grant that it comes from is raised."""
    if wait.kind != "budget":
        return ""
    for grant in grants:
        known = EXTENSION_CAPABILITIES.get(grant.capability)
        had = (grant.capability, *(known.implies if known else ()))
        if grant.state == "granted" and grant.budget_per_day and any(name in had for name in wait.capabilities):
            return f"mag extension:grant {extension_id} {grant.capability} --budget N"
    return ""


def next_step(info: ExtensionInfo, grants: Sequence[GrantInfo]) -> str:
    """What an operator would do now, as a command; empty when nothing waits."""
    if info.pending_version or any(grant.state == "pending" and not grant.optional for grant in grants):
        return f"mag extension:approve {info.id}"
    if info.state in ("installed", "disabled", "error"):
        return f"mag extension:enable {info.id}"
    return ""


def report_lines(report: SandboxReport) -> Iterator[str]:
    """The sandbox of this machine, a line for each thing it wants."""
    yield f"sandbox {printable(report.tier)}: {_TIERS.get(report.tier, 'unknown')}"
    for line in report.lines:
        mark = styled("ok     ", "green") if line.ok else styled("missing", "yellow")
        yield f"  {mark}  {printable(line.name):<20} {printable(line.detail)}"
        if line.remedy and not line.ok:
            yield f"           {'':<20} {printable(line.remedy)}"


def key_lines(keys: TrustedKeys) -> Iterator[str]:
    """Trusted keys."""
    if not keys.keys:
        yield "no key is trusted, so no package can be installed; `mag extension:trust --add FILE` trusts one"
        return
    rows = [
        [printable(key.key_id), printable(key.name), printable(key.public), printable(key.added_at)]
        for key in keys.keys
    ]
    yield from table([["key", "name", "public", "since"], *rows])


def letter_lines(extension_id: str, letters: DeadLetters, done: Sequence[str] = ()) -> Iterator[str]:
    """What was done about events that could not be taken, what waits, and those that are left."""
    yield from done
    for wait in letters.waits:
        yield f"waits: {printable(wait_text(wait))}"
    if letters.waits:
        yield as_typed(f"`mag extension:show {printable(extension_id)}` says what is used up, and what lets it go on")
    if not letters.letters:
        if not done and not letters.waits:
            yield "every event was taken"
        return
    rows = [
        [str(one.seq), printable(one.at), printable(one.topic), f"tried {one.tries} times", printable(one.error)]
        for one in letters.letters
    ]
    yield from table([["event", "at", "topic", "", "why"], *rows])


def log_line(line: LogLine) -> str:
    """What an extension said at one time; values of several lines, such as traces, stand below it."""
    short = {key: str(value) for key, value in line.fields.items() if "\n" not in str(value).strip()}
    long = [str(value).strip() for key, value in line.fields.items() if key not in short]
    below = "".join(f"\n    {printable(text)}" for value in long for text in value.split("\n"))
    return f"{printable(line.at)}  {printable(line.level):<8} {printable(line.message)}{_fields(short)}{below}"


def _fields(fields: Mapping[str, str]) -> str:
    return "".join(f"  {printable(str(key))}={printable(value.strip())}" for key, value in fields.items())


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else f"{value:g}"


def _row(label: str, text: str) -> str:
    return f"  {label:<12}{printable(text)}"
