"""Recipe files: they change the study's experiments and add others.

A recipe is a TOML file. The built-in profiles are such files in the package:

    profile = "quick"              # what the file builds on; default "paper"
    view_seed = 524                # of the augmented views; default: each seed has its own
    [every]                        # all experiments
    epochs = 20
    [experiments.finetuned]        # changes a known one
    learning_rate = 3e-4
    [experiments.wide]             # a new one
    like = "frozen"                # what it starts from; default "frozen"
    dense_units = 2048

`docs/recipes.md` describes the schema.
"""

import os
import re
import stat
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from pydantic import ValidationError

from tlcluster.cli import nearest
from tlcluster.errors import UserError
from tlcluster.experiments import EXPERIMENTS, RECIPE, Experiment, differences
from tlcluster.paths import expanded
from tlcluster.records import FEATURES, REPORT
from tlcluster.seeds import SEED_LIMIT

PROFILES: Mapping[str, Path] = MappingProxyType(
    {path.stem: path for path in sorted((Path(__file__).parent / "profiles").glob("*.toml"))}
)
"""Built-in profile → its recipe file."""

MOST_BYTES = 1_000_000
MOST_EXPERIMENTS = 100

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
"""The name is a folder of the run and stands before the dot in `--set wide.epochs=3`."""

_RESERVED = frozenset({REPORT, FEATURES})
"""Other folders that a run or an output location has."""

_ABOUT = {"like": 100, "title": 40, "summary": 200}
"""Keys of an experiment that are not fields of the recipe → their most characters."""

DEFAULT_LIKE = "frozen"
"""What a new experiment starts from."""

DEFAULT_PROFILE = "paper"
"""What a file builds on."""


def is_file(profile: str) -> bool:
    """True for the path of a recipe file, False for the name of a profile."""
    return profile.endswith(".toml") or "/" in profile


def profile_name(profile: str) -> str:
    """What a run with this profile is called after: the profile, or its file without `.toml`."""
    if not is_file(profile):
        return profile
    stem = Path(profile).name.removesuffix(".toml")
    return re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-_")[:40] or "recipe"


class Profile(NamedTuple):
    """What a profile says."""

    text: str | None
    """Content of the recipe file; None for a built-in profile."""
    experiments: dict[str, Experiment]
    """In the order of the report."""
    view_seed: int | None = None
    """Seed of the augmented views; None: each seed of a run has its own."""


def load_profile(profile: str) -> Profile:
    """The content of a profile.

    Raises:
        UserError: there is no such profile, or its file cannot be used.
    """
    if is_file(profile):
        text = _read(profile, "--profile", f"a profile: {', '.join(PROFILES)}")
        return _from_table(_parsed(text, profile), profile)._replace(text=text)
    if profile not in PROFILES:
        raise UserError(
            f"--profile {profile}: no such profile; {nearest(profile, PROFILES)}, or a file whose "
            "name ends in .toml"
        )
    path = PROFILES[profile]
    return _from_table(_parsed(path.read_text(encoding="utf-8"), path.name), path.name)


def read_toml(path: str, flag: str) -> dict[str, Any]:
    """The content of a TOML file.

    Args:
        path: of the file.
        flag: the flag that named it, for error messages.

    Raises:
        UserError: it is no plain file, too large, no TOML, or cannot be read.
    """
    return _parsed(_read(path, flag, f"leave {flag} out"), path)


def _read(path: str, flag: str, otherwise: str) -> str:
    """The text of a TOML file.

    Raises:
        UserError: it is no plain file, too large, no text, or cannot be read.
    """
    try:
        # O_NONBLOCK: opening a pipe without a writer would otherwise wait for ever.
        descriptor = os.open(expanded(path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        plain = stat.S_ISREG(os.fstat(descriptor).st_mode)
        if plain:
            with os.fdopen(descriptor, "rb") as file:
                content = file.read(MOST_BYTES + 1)
        else:
            os.close(descriptor)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UserError(
            f"{flag} {path}: {(reason or 'cannot be read').lower()}; name a TOML file that can be "
            f"read, or {otherwise}"
        ) from None
    if not plain:
        raise UserError(f"{flag} {path}: is not a plain file; name a TOML file")
    if len(content) > MOST_BYTES:
        raise UserError(
            f"{flag} {path}: has more than {MOST_BYTES:,} bytes; name a small TOML file"
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}: line {line} is not UTF-8; save the file as UTF-8") from None


def _parsed(text: str, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise UserError(
            f"{where}: nested too deeply; a recipe has tables of keys and values"
        ) from None
    except ValueError as error:
        found = re.fullmatch(r"(.*) \(at line (\d+), column (\d+)\)", str(error), re.DOTALL)
        if found:
            message, line, column = found.groups()
        else:
            message = str(error).removesuffix(" (at end of document)")
            if not isinstance(error, tomllib.TOMLDecodeError):
                # int() of a number with thousands of digits; it does not say where.
                raise UserError(f"{where}: a number has too many digits") from None
            line = str(text.count("\n") + 1)
            column = str(len(text) - text.rfind("\n"))
        raise UserError(
            f"{where}: line {line}, column {column}: {message[0].lower()}{message[1:]}; the file "
            "is not TOML"
        ) from None


def _from_table(table: Mapping[str, Any], where: str) -> Profile:
    """What a recipe file says, the known experiments before its own.

    Args:
        table: the parsed file.
        where: the file, as error messages name it.

    Raises:
        UserError: a key or a value is not allowed.
    """
    check_keys(table, ("profile", "view_seed", "every", "experiments"), f"{where}: ")
    _, experiments, view_seed = Profile(None, dict(EXPERIMENTS))
    if "profile" in table:
        base = table["profile"]
        if not isinstance(base, str) or base not in PROFILES:
            raise UserError(
                f"{where}: profile = {_literal(base)}: a file builds on a built-in profile; "
                f"{nearest(str(base)[:100], PROFILES)}"
            )
        _, experiments, view_seed = load_profile(base)
    if "view_seed" in table:
        view_seed = table["view_seed"]
        if type(view_seed) is not int or not 0 <= view_seed < SEED_LIMIT:
            raise UserError(
                f"{where}: view_seed = {_literal(view_seed)}: give a whole number from 0 to "
                f"{SEED_LIMIT - 1}"
            )
    every = table_at(table, "every", f"{where}: ")
    check_keys(every, RECIPE, f"{where}: every.")
    entries = table_at(table, "experiments", f"{where}: ")
    if len(entries) > MOST_EXPERIMENTS:
        raise UserError(
            f"{where}: has {len(entries)} experiments; a file has at most {MOST_EXPERIMENTS}"
        )
    for name, experiment in experiments.items():
        experiments[name] = changed(experiment, every, f"{where}: every.", strict=True)
    for name in [name for name in entries if name in experiments]:
        at, entry = _entry(entries, name, where)
        if "like" in entry:
            raise UserError(f"{at}like: only a new experiment has it, and {name} is a known one")
        experiments[name] = changed(experiments[name], entry, at, strict=True)
    added = [name for name in entries if name not in experiments]
    _check_names(added, experiments, where)
    numbers = {name: len(experiments) + place for place, name in enumerate(added, 1)}
    made: dict[str, Experiment] = {}

    def make(name: str, before: tuple[str, ...]) -> Experiment:
        if name in experiments or name in made:
            return experiments.get(name) or made[name]
        at, entry = _entry(entries, name, where)
        like = entry.pop("like", DEFAULT_LIKE)
        if like not in (*experiments, *added):
            allowed = nearest(like, (*experiments, *(one for one in added if one != name)))
            raise UserError(f"{at}like = {_literal(like)}: no such experiment; {allowed}")
        if like in (*before, name):
            circle = " → ".join((*before, name, like))
            raise UserError(f"{at}like = {_literal(like)}: a circle, {circle}; start from another")
        start = make(like, (*before, name))
        about = {"name": name, "title": f"Model {numbers[name]}", "summary": ""}
        new = changed(start, {**about, **entry}, at, strict=True)
        if "summary" not in entry:
            summary = ", ".join([f"like {like}", *differences(new, start)])
            new = new.model_copy(update={"summary": summary})
        made[name] = new
        return new

    for name in added:
        make(name, ())
    return Profile(None, {**experiments, **{name: made[name] for name in added}}, view_seed)


def _entry(entries: Mapping[str, Any], name: str, where: str) -> tuple[str, dict[str, Any]]:
    """The beginning of an error message about an experiment's keys, and its checked table."""
    table = table_at(entries, name, f"{where}: experiments.")
    at = f"{where}: experiments.{name}."
    check_keys(table, (*_ABOUT, *RECIPE), at)
    for key, most in _ABOUT.items():
        value = table.get(key, "text")
        if not (isinstance(value, str) and value.isprintable() and 0 < len(value) <= most):
            raise UserError(
                f"{at}{key} = {_literal(value)}: give one line of text, 1 to {most} characters"
            )
    return at, dict(table)


def _check_names(added: Collection[str], known: Collection[str], where: str) -> None:
    taken = {name.lower(): name for name in known}
    for name in added:
        at = f"{where}: experiments.{_literal(name)}"
        if not _NAME.fullmatch(name):
            raise UserError(
                f"{at}: the name of an experiment is 1 to 100 letters, digits, dashes and "
                "underscores and begins with a letter or digit"
            )
        if name.lower() in _RESERVED:
            raise UserError(f"{at}: a run has a folder of this name; choose another name")
        if name.lower() in taken:
            raise UserError(
                f"{at}: differs from {taken[name.lower()]} in upper and lower case only; some "
                "file systems do not tell them apart: choose another name"
            )
        taken[name.lower()] = name


def table_at(parent: Mapping[str, Any], key: str, at: str) -> Mapping[str, Any]:
    """The table under a key, empty if there is none. Raises UserError if it is no table."""
    table = parent.get(key, {})
    if not isinstance(table, dict):
        raise UserError(f"{at}{key} = {_literal(table)}: give a table of keys and values")
    return table


def check_keys(table: Mapping[str, Any], allowed: Collection[str], at: str) -> None:
    """Raises UserError for a key that is not allowed; `at` is where the table stands."""
    for key in table:
        if key not in allowed:
            raise UserError(f"{at}{key}: no such key; {nearest(key, allowed)}")


def _literal(value: object) -> str:
    """A value about as the file has it, for an error message."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    try:
        return str(value)
    except ValueError:
        return "a number of thousands of digits"


def changed(
    experiment: Experiment, fields: Mapping[str, Any], at: str, *, strict: bool
) -> Experiment:
    """An experiment with other fields.

    Args:
        experiment: stays as it is.
        fields: field → its new value.
        at: what an error message begins with, up to the name of the field.
        strict: refuse a value of another type, as in a file; on the command line all are text.

    Raises:
        UserError: a value is not allowed.
    """
    values = {**experiment.model_dump(), **fields}
    try:
        return Experiment.model_validate(values, strict=strict)
    except ValidationError as error:
        first = error.errors()[0]
        message = first["msg"].removeprefix("Value error, ")
        field = str(first["loc"][0]) if first["loc"] else next(iter(fields))
        # A change of one field can make the value of another wrong.
        value = f" = {_literal(values.get(field))}" if strict else f"={values.get(field)}"
        raise UserError(f"{at}{field}{value}: {message[0].lower()}{message[1:]}") from None
