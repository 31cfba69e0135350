"""The commands of `mag` by name, imported when they run.

`mag noun:verb` and `mag noun verb` are one command; the table below is what `--help` shows, so that help costs no
import of what a command needs.
"""

from __future__ import annotations

from importlib import import_module
from typing import NamedTuple

import click

from magmobo.cli.context import session


class Entry(NamedTuple):
    """Where a command lives and what help says about it in a line."""

    module: str
    attribute: str
    summary: str


COMMANDS: dict[str, Entry] = {
    "up": Entry("magmobo.cli.up", "up", "Start a node, on a database of yours or with one inside."),
    "down": Entry("magmobo.cli.operate", "down", "Stop the node and wait until it is gone."),
    "status": Entry("magmobo.cli.operate", "status", "How the node is, and its addresses."),
    "doctor": Entry("magmobo.cli.database", "doctor", "Check the data folder and what a database allows."),
    "logs": Entry("magmobo.cli.logs", "logs", "Show the log of the node."),
    "detach": Entry("magmobo.cli.database", "detach", "Remove every trace of MagMoBo from a database."),
    "explain": Entry("magmobo.cli.reference", "explain", "Cause and next step of an error code."),
    "runbook": Entry("magmobo.cli.reference", "runbook", "What to do, step by step, when something is wrong."),
    "version": Entry("magmobo.cli.reference", "version", "Version of this program."),
    "magds:psql": Entry("magmobo.cli.embedded", "psql", "Open psql on the embedded database."),
    "magds:dsn": Entry("magmobo.cli.embedded", "dsn", "Connection string of the embedded database."),
    "kernel:status": Entry("magmobo.cli.operate", "kernel_status", "State of the node and its components."),
    "kernel:blame": Entry("magmobo.cli.kernel", "blame", "Where the boot spent its time."),
    "kernel:events": Entry("magmobo.cli.kernel", "events", "What happened in the node, and what happens now."),
    "kernel:reset": Entry("magmobo.cli.kernel", "reset", "Unboot and boot the running node in place."),
    "kernel:commands": Entry("magmobo.cli.kernel", "commands", "Every command that the node answers."),
    "kernel:call": Entry("magmobo.cli.call", "call", "Send any of them, also those of your components."),
    "component:list": Entry("magmobo.cli.operate", "component_list", "The components, a line each."),
    "component:show": Entry("magmobo.cli.component", "show", "One component in detail."),
    "component:restart": Entry("magmobo.cli.component", "restart", "Restart one component; no other is touched."),
    "component:stop": Entry("magmobo.cli.component", "stop", "Stop one component until it is started again."),
    "component:start": Entry("magmobo.cli.component", "start", "Start a component that does not run."),
    "component:disable": Entry("magmobo.cli.component", "disable", "Keep a component from starting, for good."),
    "component:enable": Entry("magmobo.cli.component", "enable", "Let a disabled component start again."),
    "component:register": Entry("magmobo.cli.component", "register", "Add a component to the running node."),
    "component:unregister": Entry("magmobo.cli.component", "unregister", "Take a component off the running node."),
    "component:graph": Entry("magmobo.cli.component", "graph", "Who needs whom."),
    "config:show": Entry("magmobo.cli.config", "show", "The settings that count, and who set them."),
    "config:validate": Entry("magmobo.cli.configcheck", "validate", "Check the settings files, for any environment."),
    "config:diff": Entry("magmobo.cli.config", "diff", "What a reload would change; or two environments compared."),
    "config:reload": Entry("magmobo.cli.config", "reload", "Read the settings again and apply them."),
    "config:rollback": Entry("magmobo.cli.config", "rollback", "Go back to an older version of the settings."),
    "config:history": Entry("magmobo.cli.config", "history", "Which settings counted when, and who changed them."),
    "config:set": Entry("magmobo.cli.config", "set_", "Set one key, for a time or for good."),
    "config:unset": Entry("magmobo.cli.config", "unset", "Take back what config:set set."),
    "config:schema": Entry("magmobo.cli.configcheck", "schema", "JSON Schema of every setting, for editors."),
    "vault:list": Entry("magmobo.cli.vault", "list_", "What the vault holds, without the secrets."),
    "vault:set": Entry("magmobo.cli.vault", "set_", "Store a secret, from a file, a pipe or the keyboard."),
    "vault:rotate": Entry("magmobo.cli.vault", "rotate", "Give a secret a new version; settings take it at once."),
    "vault:remove": Entry("magmobo.cli.vault", "remove", "Forget a secret that no setting takes."),
    "vault:import": Entry("magmobo.cli.vault", "import_", "Store the secrets of a .env, age or SOPS file."),
    "vault:rekey": Entry("magmobo.cli.vault", "rekey", "Encrypt the vault under a new key."),
    "extension:dev": Entry("magmobo.cli.extension_dev", "dev", "Run a folder on a node, again after every change."),
    "extension:list": Entry("magmobo.cli.extension", "list_", "The extensions, a line each."),
    "extension:show": Entry("magmobo.cli.extension", "show", "What one may do, takes part in, reads and writes."),
    "extension:install": Entry("magmobo.cli.extension_admit", "install", "Bring a package to the node and install it."),
    "extension:approve": Entry("magmobo.cli.extension_admit", "approve", "Grant what an extension asks for."),
    "extension:grant": Entry("magmobo.cli.extension_admit", "grant", "Grant one capability, perhaps less than asked."),
    "extension:revoke": Entry("magmobo.cli.extension_admit", "revoke", "Take a capability back, at once."),
    "extension:enable": Entry("magmobo.cli.extension", "enable", "Start an extension."),
    "extension:disable": Entry("magmobo.cli.extension", "disable", "Drain and stop an extension."),
    "extension:kill": Entry("magmobo.cli.extension", "kill", "Kill switch: end one extension or all, at once."),
    "extension:upgrade": Entry("magmobo.cli.extension_admit", "upgrade", "Upgrade an extension without a pause."),
    "extension:rollback": Entry("magmobo.cli.extension", "rollback", "Bring an extension back to the version before."),
    "extension:uninstall": Entry(
        "magmobo.cli.extension", "uninstall", "Remove an extension, with its data or without."
    ),
    "extension:configure": Entry("magmobo.cli.extension", "configure", "Set settings of an extension."),
    "extension:logs": Entry("magmobo.cli.extension", "logs", "What an extension logged."),
    "extension:events": Entry(
        "magmobo.cli.extension", "events", "Events that an extension could not take, and replay."
    ),
    "extension:run": Entry("magmobo.cli.extension", "run", "Run a command of an extension."),
    "extension:trust": Entry("magmobo.cli.extension_admit", "trust", "Whose packages may be installed."),
    "extension:doctor": Entry("magmobo.cli.extension", "doctor", "What the sandbox can do on this machine."),
    "extension:new": Entry("magmobo.cli.extension_offline", "new", "Write a new extension to begin with."),
    "extension:validate": Entry(
        "magmobo.cli.extension_offline", "validate", "Check an extension, every mistake at once."
    ),
    "extension:test": Entry("magmobo.cli.extension_offline", "test", "Run an extension's tests, without a node."),
    "extension:pack": Entry("magmobo.cli.extension_offline", "pack", "Make the package of an extension."),
    "extension:keygen": Entry("magmobo.cli.extension_offline", "keygen", "Make a pair of keys to sign packages with."),
    "extension:sign": Entry("magmobo.cli.extension_offline", "sign", "Sign a package."),
    "audit:tail": Entry("magmobo.cli.audit", "tail", "The last records of the audit log."),
    "audit:verify": Entry("magmobo.cli.audit", "verify", "Whether anybody touched the audit log."),
    "audit:export": Entry("magmobo.cli.audit", "export", "The audit log as JSON Lines."),
    "diagnostics:dump": Entry("magmobo.cli.diagnostics", "dump", "One archive for whoever helps you, no secrets."),
}


class NounVerbGroup(click.Group):
    """Finds `noun:verb` also when it is written as two words."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        command = getattr(import_module(entry.module), entry.attribute)
        assert isinstance(command, click.Command)  # noqa: S101 - the table above is ours
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        verbs = _verbs(args[0])
        if not verbs:
            return super().resolve_command(ctx, args)
        if len(args) > 1 and args[1] in verbs:
            return super().resolve_command(ctx, [f"{args[0]}:{args[1]}", *args[2:]])
        choice = f"`mag {args[0]}` needs a verb: {', '.join(verbs)}"
        if args[1:] and args[1] in ("-h", "--help"):
            click.echo(choice)
            ctx.exit(0)
        raise click.UsageError(choice, ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in COMMANDS.items()])


def _verbs(noun: str) -> list[str]:
    return [name.partition(":")[2] for name in COMMANDS if name.startswith(f"{noun}:")]


@click.group(cls=NounVerbGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--role",
    envvar="MAG_ROLE",
    type=click.Choice(["viewer", "developer", "operator", "admin"]),
    help="Ask the node as somebody who may do less (also MAG_ROLE).",
)
@click.option("--breakglass", metavar="WHY", help="Do more than the role holds; WHY is audited.")
@click.version_option(package_name="magmobo", prog_name="mag")
def mag(role: str | None, breakglass: str | None) -> None:
    """A self-hosted backend over any Postgres: REST, gap-free realtime and a console, in one process tree."""
    who = session()
    who.role, who.justification = role or "", breakglass or ""
