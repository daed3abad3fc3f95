"""Options of the command line, made from the configuration dataclasses, and their values from files and arguments."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import json
import re
import shlex
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

import yaml

from rsir.cli.commands import COMMANDS, listed
from rsir.cli.parsing import Parser, unknown_option
from rsir.config import RecursionConfig, flat, from_dict, to_dict
from rsir.errors import ConfigError
from rsir.files import local

__all__ = ["OPTIONS", "Option", "configuration", "dump", "parser", "read_file", "split_arguments"]

DESCRIPTION = """\
A recommender that improves itself: train it, let it generate sequences of items, keep those that stay true to
their users, train its successor on them as well, and again.

  rsir                                        on embedded data, in some minutes
  rsir --data FILE                            on your own: text, CSV, JSON lines, Parquet, RecBole .inter
  rsir --out DIR --resume                     resume a run that was cut short
  rsir --out DIR --resume --rounds 4          add rounds to a finished one
  torchrun --nproc-per-node 2 -m rsir.recurse ...           one run by two processes

commands (rsir COMMAND --help lists the options of each):
""" + listed()

_SHORT = {"data.path": "data", "data.items": "items", "model.name": "model"}
_FEATURED = {
    "what to run": ("data.path", "model.name", "rounds", "seed"),
    "how it improves itself (all settings: --help-all)": ("generation.m", "generation.p", "fidelity.tau"),
}
"""What the short help shows."""


@dataclass(frozen=True)
class Option:
    """One setting: its dotted name, type, default and what the documentation says of it."""

    name: str
    hint: Any
    default: Any
    text: str

    @property
    def flags(self) -> list[str]:
        """As typed on the command line, the short form first."""
        return [f"--{name}" for name in (_SHORT.get(self.name), self.name) if name is not None]

    @property
    def placeholder(self) -> str:
        """What stands for the value in the help."""
        kinds = typing.get_args(self.hint) if _is_union(self.hint) else (self.hint,)
        kind = kinds[0]
        if typing.get_origin(kind) is Literal:
            return "{" + ",".join(typing.get_args(kind)) + "}"
        if any(typing.get_origin(other) is list for other in kinds):
            return "N[,N...]"
        if self.name in ("data.path", "data.items"):
            return "FILE"
        return {bool: "{true,false}", int: "N", float: "X"}.get(
            kind, "COLUMN" if self.name.startswith("data") else "NAME"
        )

    @property
    def help(self) -> str:
        shown = str(self.default).lower() if self.default is None or self.hint is bool else self.default
        return f"{self.text} [{shown}]".replace("%", "%%")

    def value(self, text: Any) -> Any:
        """The value that a text stands for; what does not fit the type is handed back as it came."""
        if isinstance(text, list):
            return [_scalar(self.hint, item, in_list=True) for item in text]
        return _scalar(self.hint, text) if isinstance(text, str) else text


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (types.UnionType, typing.Union)


def _scalar(hint: Any, text: Any, in_list: bool = False) -> Any:
    kinds = typing.get_args(hint) if _is_union(hint) else (hint,)
    if in_list:
        kinds = tuple(typing.get_args(kind)[0] for kind in kinds if typing.get_origin(kind) is list)
    if not isinstance(text, str):
        return text
    if type(None) in kinds and text.strip().lower() in ("", "none", "null", "~"):
        return None
    if any(typing.get_origin(kind) is list for kind in kinds) and ("," in text or text.startswith("[")):
        return [_scalar(hint, item.strip(), in_list=True) for item in text.strip("[]").split(",")]
    readers: dict[type, Callable[[str], Any]] = {
        bool: lambda value: {"true": True, "false": False}[value.lower()],
        int: int,
        float: float,
    }
    for kind, reader in readers.items():
        if kind in kinds:
            try:
                return reader(text)
            except (ValueError, KeyError):
                continue
    return text


def _options(kind: type, where: str = "") -> Iterator[Option]:
    texts, hints = _documented(kind), typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        name, hint = where + field.name, hints[field.name]
        if dataclasses.is_dataclass(hint):
            yield from _options(typing.cast(type, hint), name + ".")
        else:
            yield Option(name, hint, field.default, texts.get(field.name, ""))


def _documented(kind: type) -> dict[str, str]:
    """Descriptions of a dataclass's fields, from the section Attributes of its docstring."""
    section = inspect.cleandoc(kind.__doc__ or "").partition("Attributes\n----------\n")[2]
    found = re.findall(r"^(\w+).*\n((?:[ \t]+.*\n?)+)", section, re.MULTILINE)
    return {name: " ".join(text.split()).rstrip(".") for name, text in found}


OPTIONS = {option.name: option for option in _options(RecursionConfig)}
"""Every setting of a run by its dotted name."""


class _HelpAll(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        _build(everything=True).print_help()
        parser.exit()


def _build(everything: bool) -> Parser:
    result = Parser(
        "",
        DESCRIPTION,
        usage="rsir [run] [--data FILE] [--rounds N] [--seed N] [--out DIR [--resume]] [--NAME VALUE ...]",
        epilog="What stands in [brackets] is the default. All settings as a file: rsir --print-config > settings.yaml",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        add_help=False,
    )
    featured = {title: [OPTIONS[name] for name in names] for title, names in _FEATURED.items()}
    for title, options in (_by_section() if everything else featured).items():
        group = result.add_argument_group(title)
        for option in options:
            _add(group, option, option.flags if everything else option.flags[:1], option.help)
    if not everything:
        listed = {option.name for options in featured.values() for option in options}
        for option in OPTIONS.values():
            flags = option.flags[1:] if option.name in listed else option.flags
            if flags:
                _add(result, option, flags, argparse.SUPPRESS)
    run = result.add_argument_group("where and how")
    run.add_argument("--out", metavar="DIR", help="Folder of the run, or s3://bucket/run [runs/NAME-000, -001, ...]")
    run.add_argument("--resume", action="store_true", help="Resume the run in --out, with its own settings")
    run.add_argument("--gpu", action="store_true", help="Compute on a CUDA device")
    run.add_argument("--threads", metavar="N", type=int, help="CPU threads [all cores]")
    memory = "Most memory a process may take, as in 4GiB [all there is]"
    run.add_argument("--memory", metavar="SIZE", help=memory if everything else argparse.SUPPRESS)
    engine: dict[str, tuple[str, dict[str, Any]]] = {
        "--engine": ("What starts the processes of the run [here: this is the one]", {"choices": ("here", "ray")}),
        "--workers": ("Processes of --engine ray, a CPU (or GPU) each [2]", {"metavar": "N", "type": int}),
        "--address": ("Ray's cluster, or auto [one on this machine, for the time]", {"metavar": "ADDRESS"}),
    }
    for name, (says, details) in engine.items():
        run.add_argument(name, help=says if everything else argparse.SUPPRESS, **details)
    run.add_argument("--profile", action="store_true", help="Trace some steps of each round into the run's folder")
    run.add_argument("--track", metavar="NAME[,NAME]", help="Report rounds to tensorboard, wandb, mlflow")
    registering = "Python file that registers backbones or policies; may be given often"  # taken off in cli/main.py
    run.add_argument("--plugins", metavar="FILE.py", help=registering if everything else argparse.SUPPRESS)
    run.add_argument("--config", metavar="FILE", help="Settings from a .yaml or .json file; options given here win")
    run.add_argument("--print-config", action="store_true", help="Print every setting as YAML and end")
    run.add_argument("--version", action="store_true", help="Print the version and end")
    run.add_argument("-h", "--help", action="help", help="Print the options most used and end")
    run.add_argument("--help-all", action=_HelpAll, nargs=0, help="Print all options and end")
    return result


def _add(group: argparse._ActionsContainer, option: Option, flags: list[str], text: str) -> None:
    bare: dict[str, Any] = {"nargs": "?", "const": "true"} if option.hint is bool else {}
    group.add_argument(*flags, dest=option.name, metavar=option.placeholder, help=text, **bare)


def _by_section() -> dict[str, list[Option]]:
    sections: dict[str, list[Option]] = {}
    for option in OPTIONS.values():
        section = option.name.rpartition(".")[0]
        sections.setdefault(f"{section} settings" if section else "rounds", []).append(option)
    return sections


def parser() -> Parser:
    """The parser; its errors are ConfigErrors."""
    return _build(everything=False)


def split_arguments(arguments: list[str] | None) -> tuple[argparse.Namespace, dict[str, str]]:
    """What the command line says about running, and the settings it gives, as text by dotted name.

    Raises
    ------
    ConfigError
        An unknown option (the message names the nearest known one), or one without its value.
    """
    made = parser()
    known, unknown = made.parse_known_args(sys.argv[1:] if arguments is None else arguments)
    if unknown:
        raise ConfigError(_unexpected(unknown, arguments or [], made.flags))
    given = {name: value for name, value in vars(known).items() if name in OPTIONS}
    rest = {name: value for name, value in vars(known).items() if name not in OPTIONS}
    return argparse.Namespace(**{**_HOW, **rest}), given


_HOW: dict[str, Any] = {
    **dict.fromkeys(("resume", "gpu", "profile", "print_config", "version"), False),
    **dict.fromkeys(("out", "threads", "memory", "track", "config", "address", "workers")),
    "engine": "here",
}
"""Options that are no settings of the run, and what they are where they are not given."""


def _unexpected(unknown: list[str], arguments: list[str], flags: list[str]) -> str:
    """What to say of words that are no options of a run."""
    command = next((word for word in unknown if word in COMMANDS), None)
    if command is not None:
        others = " ".join(shlex.quote(word) for word in arguments if word != command)
        return f"{command}: the command comes first: rsir {command} {others}"
    name = unknown[0].partition("=")[0]
    if not name.startswith("-"):
        return f"{name!r}: unexpected; options begin with --, as in --data {name}"
    if name[2:] in COMMANDS:
        return f"{name}: unknown option; did you mean rsir {name[2:]}?"
    return unknown_option(name, flags, "--help-all")


def read_file(path: str) -> dict[str, Any]:
    """Settings in a YAML or JSON file by dotted name, as they stand there.

    Raises
    ------
    ConfigError
        Names the file and the option that is unknown, or says why the file cannot be read.
    """
    file = local(path, ConfigError)
    suffix = file.suffix.lower()
    if suffix not in (".yaml", ".yml", ".json"):
        raise ConfigError(f"{path}: expected a settings file that ends in .yaml, .yml or .json")
    try:
        text = file.read_text(encoding="utf-8")
        # every scalar as text, read by the option's own type: no yes/no/off surprises, and nothing is constructed
        values = json.loads(text) if suffix == ".json" else yaml.load(text, Loader=yaml.BaseLoader)
    except FileNotFoundError as cause:
        raise ConfigError(f"{path}: no such file") from cause
    except OSError as cause:
        raise ConfigError(f"{path}: cannot be read: {cause.strerror}") from cause
    except (ValueError, RecursionError, yaml.YAMLError) as cause:
        kind = "JSON" if suffix == ".json" else "YAML"
        raise ConfigError(f"{path}: is not {kind}: {' '.join(str(cause).split())}") from cause
    if values in (None, ""):
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected settings by name, as rsir --print-config shows them")
    settings = {}
    for key, value in values.items():
        section = {f"{key}.{name}": item for name, item in value.items()} if isinstance(value, dict) else {key: value}
        settings.update(section)
    sections = {name.rpartition(".")[0] for name in OPTIONS}
    for name in settings:
        if name in sections:
            raise ConfigError(f"{path}: {name}: expected settings by name below it, as rsir --print-config shows them")
        if name not in OPTIONS:
            raise ConfigError(f"{path}: {unknown_option(str(name), list(OPTIONS), '--help-all')}")
    return settings


def configuration(base: RecursionConfig, path: str | None, given: Mapping[str, str]) -> RecursionConfig:
    """`base`, with what the file at `path` says, with what the command line says; ConfigError if that is no good."""
    empty = [name for name, text in given.items() if not text.strip()]
    if empty:
        raise ConfigError(f"{empty[0]}: expected a value, got an empty text")
    settings = {} if path is None else read_file(path)
    backbone = str({**settings, **given}.get("model.name", base.model.name))
    values = flat(base.for_backbone(backbone))
    for texts in (settings, given):
        values.update({name: OPTIONS[name].value(text) for name, text in texts.items()})
    nested: dict[str, Any] = {}
    for name, value in values.items():
        section, _, option = name.rpartition(".")
        (nested.setdefault(section, {}) if section else nested)[option] = value
    try:
        return from_dict(RecursionConfig, nested)
    except ConfigError as cause:
        name = str(cause).partition(":")[0]
        if name in settings and name not in given:
            raise ConfigError(f"{path}: {cause}") from cause
        raise


def dump(config: RecursionConfig) -> str:
    """All settings as YAML that :func:`read_file` reads back."""
    return yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True)
