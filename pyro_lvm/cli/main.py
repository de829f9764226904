"""The parser of ``pyro-lvm`` and what happens when it goes wrong."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import pyro
import torch
from jsonargparse import ArgumentError, ArgumentParser

from pyro_lvm import __version__
from pyro_lvm.cli.compare import compare
from pyro_lvm.cli.configs import CommandConfig, CompareConfig, FitConfig
from pyro_lvm.cli.diagnose import DiagnoseConfig, diagnose
from pyro_lvm.cli.fit import fit
from pyro_lvm.cli.impute import ImputeConfig, impute_table
from pyro_lvm.cli.listing import show
from pyro_lvm.cli.spikes import SpikesConfig, infer_spikes
from pyro_lvm.errors import PyroLVMError, explain

__all__ = ["main"]

_COMMANDS: dict[str, tuple[Callable[[Any], None], type[CommandConfig | DiagnoseConfig]]] = {
    "fit": (fit, FitConfig),
    "compare": (compare, CompareConfig),
    "diagnose": (diagnose, DiagnoseConfig),
    "impute": (impute_table, ImputeConfig),
    "spikes": (infer_spikes, SpikesConfig),
}
_OF_RECORDINGS = (["--model", "calcium"], ["--model=calcium"])
"""With these words ``fit`` is the command ``spikes``."""
_FIRST = {"impute": "--table", "diagnose": "--run"}
"""What a first argument without a name is."""
_STOPPED = {
    "diagnose": "interrupted; what was written before is whole",
    "list": "interrupted",
}
"""What is said after Ctrl-C, where there is nothing to resume."""
_FLAGS = {"resume": "go on with an earlier run in it", "overwrite": "delete an earlier run in it"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``pyro-lvm`` with ``arguments``, by default those of the process.

    Returns:
        0 when all went well, 2 for wrong arguments or unusable input, 130 after Ctrl-C.
    """
    given = _named(sys.argv[1:] if arguments is None else arguments)
    try:
        command, settings = _parse(given)
        if command == "list":
            show()
            return 0
        run, config_type = _COMMANDS[command]
        config = config_type(**settings)
        torch.set_num_threads(config.num_threads)
        with pyro.settings.context(module_local_params=True):
            run(config)
    except PyroLVMError as error:
        print(f"pyro-lvm: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"pyro-lvm: {_wrong_file(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        goes_on = "interrupted; the same command with --resume goes on"
        print(f"pyro-lvm: {_STOPPED.get(given[0], goes_on)}", file=sys.stderr)
        return 130
    return 0


def _named(given: Sequence[str]) -> list[str]:
    """The arguments, with ``fit --model calcium`` replaced by the command that it is.

    A first argument without a name gets the one that it has.
    """
    if len(given) > 1 and given[0] in _FIRST and not given[1].startswith("-"):
        return [given[0], _FIRST[given[0]], *given[1:]]
    for words in _OF_RECORDINGS:
        for at, after in enumerate(range(len(words), len(given) + 1)):
            if given[0] == "fit" and list(given[at:after]) == words:
                return ["spikes", *given[1:at], *given[after:]]
    return list(given)


def _parse(given: list[str]) -> tuple[str, dict[str, Any]]:
    parser = _parser()
    try:
        config = parser.instantiate(parser.parse_args(given))
    except ArgumentError as error:
        raise PyroLVMError(_wrong_arguments(given, str(error))) from error
    settings = vars(config[config.command])
    return config.command, {name: value for name, value in settings.items() if name != "config"}


def _wrong_arguments(given: Sequence[str], found: str) -> str:
    command = next((f" {word}" for word in given if word in _COMMANDS), "")
    usage = f"pyro-lvm{command} --help"
    return explain("arguments", f"those of `{usage}`", " ".join(found.split()), f"Run {usage}.")


def _wrong_file(error: OSError) -> str:
    where = f"file {error.filename}" if error.filename else "a file"
    found = error.strerror or str(error)
    hint = "Check its path, its permissions and the room on its disk."
    return explain(where, "one that can be read or written", found, hint)


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="pyro-lvm",
        description="Latent variable models on Pyro: train one, compare objectives, fill holes in "
        "tables, infer spikes.",
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"pyro-lvm {__version__}")
    commands = parser.add_subcommands(dest="command", required=True)
    for name, (_, config) in _COMMANDS.items():
        commands.add_subcommand(name, _command(config), help=_summary(config))
    listing = ArgumentParser(description=_summary(show), exit_on_error=False)
    commands.add_subcommand("list", listing, help=_summary(show))
    return parser


def _command(config: type[CommandConfig | DiagnoseConfig]) -> ArgumentParser:
    text = inspect.cleandoc(config.__doc__ or "").partition("\n\nArgs:")[0]
    parser = ArgumentParser(description=text, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--config", action="config", help="YAML file with these settings")
    flags = _FLAGS if issubclass(config, CommandConfig) else {}
    parser.add_class_arguments(config, as_group=False, skip=set(flags))
    for flag, meaning in flags.items():
        parser.add_argument(f"--{flag}", action="store_true", help=meaning)
    if config is CompareConfig:  # the parser can show plain types only
        parser.set_defaults(objectives=[asdict(o) for o in CompareConfig().objectives])
    return parser


def _summary(documented: object) -> str:
    return (inspect.getdoc(documented) or "").partition("\n")[0]
