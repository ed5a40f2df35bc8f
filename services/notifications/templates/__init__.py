"""The templates of messages, and how they are filled in.

A template is a folder: template.toml names its variables, and a folder for each language holds subject.txt, body.txt
and body.html in the language of Jinja. Variables are data and never template; in body.html they are escaped.
"""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import FileSystemLoader, StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from mesh.errors import Problem, Reason, Violation
from services.notifications.model import Content

DEFAULT_LOCALE = "en"
_FOLDER = Path(__file__).parent
_NAME = re.compile(r"[a-z][a-z0-9_]{1,59}")
_SUBJECT_LENGTH_MAX = 200
_VARIABLE_LENGTH_MAX = 2_000
# Characters that change how the text around them is shown: overrides and isolates of direction.
_DIRECTION_CHARACTERS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
# Control characters, surrogates, and separators of lines and paragraphs.
_LINE_BREAKING_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})


@dataclass(frozen=True, slots=True)
class Template:
    """A template's variables and languages."""

    name: str
    required: frozenset[str]
    optional: frozenset[str]
    locales: frozenset[str]


@dataclass(frozen=True, slots=True)
class Rendered:
    """A filled-in template; `locale` is the language it is in."""

    locale: str
    content: Content


@cache
def find_template(name: str) -> Template | None:
    """The template of that name, or None."""
    folder = _FOLDER / name
    if not _NAME.fullmatch(name) or not (folder / "template.toml").is_file():
        return None
    facts = tomllib.loads((folder / "template.toml").read_text(encoding="utf-8"))
    locales = frozenset(path.name for path in folder.iterdir() if path.is_dir())
    return Template(name, frozenset(facts["required"]), frozenset(facts["optional"]), locales)


def template_names() -> list[str]:
    """Names of all templates, sorted."""
    return sorted(path.parent.name for path in _FOLDER.glob("*/template.toml"))


def render(name: str, locale: str, variables: Mapping[str, str]) -> Rendered:
    """Fills in a template.

    Args:
        name: the template.
        locale: language wanted, a BCP 47 tag; English is used when there is no other.
        variables: single lines: what would break a line becomes a space.

    Raises:
        Problem: RESOURCE_NOT_FOUND, there is no such template; FIELD_INVALID, variables are missing, unknown or long.
    """
    template = find_template(name)
    if template is None:
        known = ", ".join(template_names())
        raise Problem(Reason.RESOURCE_NOT_FOUND, f"template {name} does not exist; there are: {known}", template=name)
    values = {key: single_line(value) for key, value in variables.items()}
    _check(template, values)
    values = dict.fromkeys(template.optional, "") | values
    chosen = _choose_locale(template, locale)
    texts = {
        part: _environment().get_template(f"{name}/{chosen}/{part}").render(values)
        for part in ("subject.txt", "body.txt", "body.html")
    }
    subject = single_line(texts["subject.txt"])[:_SUBJECT_LENGTH_MAX]
    return Rendered(chosen, Content(subject, texts["body.txt"], texts["body.html"]))


def single_line(text: str) -> str:
    """The text as one line without control characters: it can't end a header, nor fake a line of a body."""
    kept = "".join(
        " " if unicodedata.category(character) in _LINE_BREAKING_CATEGORIES else character
        for character in text
        if character not in _DIRECTION_CHARACTERS
    )
    return " ".join(kept.split())


def _check(template: Template, values: Mapping[str, str]) -> None:
    names = sorted(template.required | template.optional)
    violations = [
        Violation(f"variables.{name}", f"is missing: {template.name} needs it")
        for name in sorted(template.required)
        if not values.get(name)
    ]
    for name, value in sorted(values.items()):
        if name not in names:
            # What was sent in place of a name can be personal: only a plain name comes back.
            field = f"variables.{name}" if _NAME.fullmatch(name) else "variables"
            violations.append(Violation(field, f"is not known: {template.name} takes {', '.join(names)}"))
        elif len(value) > _VARIABLE_LENGTH_MAX:
            violations.append(Violation(f"variables.{name}", f"is longer than {_VARIABLE_LENGTH_MAX} characters"))
    if violations:
        raise Problem(Reason.FIELD_INVALID, violations=violations)


def _choose_locale(template: Template, locale: str) -> str:
    """The language itself, or the same without region, or English."""
    known = {name.lower(): name for name in template.locales}
    parts = locale.replace("_", "-").lower().split("-")
    for length in range(len(parts), 0, -1):
        if found := known.get("-".join(parts[:length])):
            return found
    return DEFAULT_LOCALE


@cache
def _environment() -> ImmutableSandboxedEnvironment:
    return ImmutableSandboxedEnvironment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=lambda name: name is None or name.endswith(".html"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        auto_reload=False,
    )
