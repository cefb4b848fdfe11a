"""The command ``crdtstore``: one root, to which each installed package brings its own commands.

The question: how does one command serve packages that do not know each other, and of which some may be missing? By
entry points (group ``crdtstore.commands``), each naming a list of click commands. They are imported only when asked
for, the package that is named like the command first, so ``crdtstore get`` pays for nothing but the client; and a
package that cannot be imported is named only to those who want something from it.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable
from typing import Any, TypeVar

import click

from crdtstore.errors import (
    AccessError,
    Compacted,
    CrdtStoreError,
    HoldEnded,
    InsufficientRights,
    NotReplicated,
    OutcomeUnknown,
    PreconditionFailed,
    Unavailable,
    UsageError,
    problem,
)

__all__ = ["Commands", "common_options", "exit_code", "main"]

GROUP = "crdtstore.commands"

_EXIT_CODES: tuple[tuple[tuple[type[CrdtStoreError], ...], int], ...] = (
    ((NotReplicated,), 0),
    ((UsageError,), 2),
    ((AccessError, PreconditionFailed, InsufficientRights, HoldEnded, Compacted), 3),
    ((Unavailable,), 4),
    ((OutcomeUnknown,), 5),
)


def exit_code(error: CrdtStoreError) -> int:
    """What the shell is told: 2 wrong use, 3 refused, 4 try again, 5 outcome unknown, 1 anything else."""
    return next((code for kinds, code in _EXIT_CODES if isinstance(error, kinds)), 1)


class Commands(click.Group):
    """A group whose commands come from entry points."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._loaded: dict[str, list[click.Command]] = {}
        self._failed: dict[str, str] = {}

    def _load(self, entry: importlib.metadata.EntryPoint) -> list[click.Command]:
        if entry.name not in self._loaded:
            try:
                self._loaded[entry.name] = list(entry.load())
            except (ImportError, AttributeError) as error:
                self._loaded[entry.name] = []
                self._failed[entry.name] = str(error)
        return self._loaded[entry.name]

    def list_commands(self, ctx: click.Context) -> list[str]:
        found = {command.name for entry in _entries() for command in self._load(entry)}
        return sorted(name for name in found if name)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for entry in sorted(_entries(), key=lambda entry: (entry.name != cmd_name, entry.name != "client")):
            for command in self._load(entry):
                if command.name == cmd_name:
                    return command
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            if self._failed:
                missing = "; ".join(f"{name}: {why}" for name, why in sorted(self._failed.items()))
                raise click.UsageError(f"{error.message} Some commands could not be loaded ({missing}).", ctx) from None
            raise

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except CrdtStoreError as error:
            if ctx.ensure_object(dict).get("as_json"):
                click.echo(json.dumps(problem(error), ensure_ascii=False))
            click.echo(f"error: {error}", err=True)
            for note in getattr(error, "__notes__", []):
                click.echo(note, err=True)
            ctx.exit(exit_code(error))


def _entries() -> list[importlib.metadata.EntryPoint]:
    return list(importlib.metadata.entry_points(group=GROUP))


def _remember(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
    """Options may stand before the verb or after it; what stands after it counts."""
    settings = ctx.ensure_object(dict)
    if value not in {None, False}:
        settings[parameter.name] = value


_Command = TypeVar("_Command", bound=Callable[..., Any])


def common_options(command: _Command) -> _Command:
    """The options that all commands talking to a store share; their values are in ``ctx.obj``."""
    options: list[tuple[tuple[str, ...], dict[str, Any]]] = [
        (("--url", "urls"), {"help": "Nodes to talk to, comma separated; otherwise $CRDTSTORE_URL."}),
        (("--region",), {"help": "Talk to this region only."}),
        (
            ("--auth-file",),
            {"type": click.Path(exists=True, dir_okay=False), "help": "File that holds the credential."},
        ),
        (("--reason",), {"help": "Why: recorded with the write."}),
        (
            ("--regions",),
            {"type": click.IntRange(min=0), "help": "Wait until so many other regions have the write durably (0)."},
        ),
        (("--token",), {"help": "Continue this session: what it has seen is seen."}),
        (("--timeout",), {"type": click.FloatRange(min=0, min_open=True), "help": "Seconds for all attempts (5)."}),
        (("--json", "as_json"), {"is_flag": True, "help": "One JSON document on stdout, all else on stderr."}),
    ]
    for names, attributes in reversed(options):
        command = click.option(*names, expose_value=False, callback=_remember, **attributes)(command)
    return command


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="crdtstore")
@common_options
def main() -> None:
    """A store that takes writes in every region while the regions cannot hear each other.

    ADDRESS is domain/collection/key. Exit codes: 0 done, 1 a check failed, 2 wrong use, 3 refused, 4 unavailable,
    5 outcome unknown.
    """


if __name__ == "__main__":
    main()
