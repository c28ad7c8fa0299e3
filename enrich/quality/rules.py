"""The rules: each with its name, what it looks for, and what follows by default; and a category's own set of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from importlib import metadata, util
from typing import Any

from enrich.errors import ConfigError
from enrich.hints import did_you_mean
from enrich.product import Product
from enrich.quality import facts, form
from enrich.quality.limits import Limits
from enrich.quality.reading import Reading
from enrich.quality.verdict import Failure, Severity, Verdict

FLAG, AGAIN, RETRY, OFF = Severity.FLAG, Severity.AGAIN, Severity.RETRY, Severity.OFF
# When rules judge otherwise than they did, this rises, and published texts are judged again.
_EDITION = 5
# What is wrong with a text that is longer shows in its beginning.
_LONGEST_READ = 20_000

Check = Callable[[Reading, Limits], str | None]


@dataclass(frozen=True)
class Rule:
    """One thing to look for: `check` returns what is wrong in words, or None."""

    name: str
    severity: Severity
    check: Check
    needs: str = ""  # the module that it can't do without
    across: bool = False  # looks at all texts together, once they are there: see `enrich.quality.duplicates`

    @property
    def about(self) -> str:
        """What it looks for, in a line."""
        return (self.check.__doc__ or "").strip().splitlines()[0].removeprefix("Find ").rstrip(".")

    @property
    def available(self) -> bool:
        """Whether what it needs is installed."""
        return not self.needs or util.find_spec(self.needs) is not None


def _near_duplicate(_: Reading, __: Limits) -> None:
    """Find nearly the words of another product's text."""


NEAR_DUPLICATE = "near_duplicate"

RULES = {
    rule.name: rule
    for rule in (
        Rule("too_short", RETRY, form.too_short),
        Rule("too_long", RETRY, form.too_long),
        Rule("no_sentence_end", RETRY, form.no_sentence_end),
        Rule("repeated_sentence", FLAG, form.repeated_sentence),
        Rule("repeated_phrase", RETRY, form.repeated_phrase),
        Rule("doubled_word", RETRY, form.doubled_word),
        Rule("placeholder", RETRY, form.placeholder),
        Rule("prompt_leak", RETRY, form.prompt_leak),
        Rule("foreign_script", RETRY, form.foreign_script),
        Rule("foreign_language", RETRY, form.foreign_language),
        Rule("claim", RETRY, form.claim),
        Rule("banned_word", RETRY, form.banned_word),
        Rule("profanity", RETRY, form.profanity, needs="badwords"),
        Rule("link", RETRY, form.link),
        Rule("contact", RETRY, form.contact),
        Rule("price", RETRY, form.price),
        Rule("markup", RETRY, form.markup),
        Rule("emoji", RETRY, form.emoji),
        Rule("shouting", RETRY, form.shouting),
        Rule("stock_phrase", FLAG, form.stock_phrase),
        Rule("product_not_named", AGAIN, facts.product_not_named),
        Rule("contradicted_number", RETRY, facts.contradicted_number),
        Rule("contradicted_count", RETRY, facts.contradicted_count),
        Rule("contradicted_model", RETRY, facts.contradicted_model),
        Rule("contradicted_material", RETRY, facts.contradicted_material),
        Rule("contradicted_color", RETRY, facts.contradicted_color),
        Rule("other_brand", FLAG, facts.other_brand),
        Rule("unstated_number", FLAG, facts.unstated_number),
        Rule("unstated_material", FLAG, facts.unstated_material),
        Rule("unstated_color", FLAG, facts.unstated_color),
        Rule(NEAR_DUPLICATE, FLAG, _near_duplicate, across=True),
    )
}
UNSTATED = ("unstated_number", "unstated_material", "unstated_color", "other_brand")

EMPTY = "empty"
_OF_THE_WHOLE = {"too_short", "too_long", "product_not_named"}

_NUMBERS = {field.name for field in fields(Limits) if field.type == "int"}
_TEXTS = {"language", "banned_words"}
_ALL = "all"
Setting = str | int


class Rulebook:
    """The rules that hold for the products of one category."""

    def __init__(
        self,
        claims: tuple[str, ...] = (),
        settings: Mapping[str, Setting] | None = None,
        *,
        strict_facts: bool = False,
        where: str = "rules: ",
    ) -> None:
        """Take limits and severities by name over the defaults. `where` they stand begins an error's message.

        Raises ConfigError for a name that there is not (with the nearest that there is) or a value that can't be.
        """
        severities = {rule.name: rule.severity for rule in RULES.values()}
        if strict_facts:
            severities |= dict.fromkeys(UNSTATED, RETRY)
        try:
            self._set(severities, Limits(claims=claims), settings or {})
        except ConfigError as error:
            raise ConfigError(f"{where}{error}") from error

    def _set(self, severities: dict[str, Severity], limits: Limits, settings: Mapping[str, Setting]) -> None:
        for name, value in settings.items():
            if name == _ALL:
                severity = _severity(name, value)
                severities = {name: min(severity, FLAG) if RULES[name].across else severity for name in severities}
            elif name in severities:
                severities[name] = _severity(name, value)
            else:
                limits = _limited(limits, name, value)
        for what in ("words", "sentences", "characters"):
            least, most = getattr(limits, f"min_{what}"), getattr(limits, f"max_{what}")
            if least > most:
                raise ConfigError(f"min_{what} = {least} is more than max_{what} = {most}")
        for name, severity in severities.items():
            if RULES[name].across and severity > FLAG and name in settings:
                raise ConfigError(
                    f"{name} = {settings[name]!r} can be off or flag: it is told when all texts are there"
                )
            if severity and not RULES[name].available and name in settings:
                raise ConfigError(f"{name} needs the extra `quality`: pip install 'enrich[quality]'")
        self._told = severities
        self.limits = limits
        self.severities = {name: severity if RULES[name].available else OFF for name, severity in severities.items()}
        active = [(RULES[name], severity) for name, severity in self.severities.items() if severity]
        self._active = [(rule, severity) for rule, severity in active if not rule.across]
        self.digest = self._digest()

    def over(self, settings: Mapping[str, Setting]) -> Rulebook:
        """Return another rulebook with these settings over this one's. Raises ConfigError as the first does."""
        book = Rulebook.__new__(Rulebook)
        try:
            book._set(dict(self._told), self.limits, settings)
        except ConfigError as error:
            raise ConfigError(f"rules: {error}") from error
        return book

    def as_values(self) -> dict[str, Any]:
        """Return it in plain values, for JSON."""
        return {"severities": self._told, "limits": asdict(self.limits)}

    @classmethod
    def of_values(cls, values: Mapping[str, Any]) -> Rulebook:
        """Return the rulebook whose `as_values` these are."""
        severities = {name: Severity(severity) for name, severity in values["severities"].items()}
        limits: dict[str, Any] = values["limits"]
        limits = {name: tuple(one) if isinstance(one, list) else one for name, one in limits.items()}
        book = cls.__new__(cls)
        book._set(severities, Limits(**limits), {})
        return book

    def _digest(self) -> str:
        """Hash all that a verdict depends on, save for the text and its row, to 8 hex digits."""
        needs = {rule.needs: metadata.version("badwords-py") for rule, _ in self._active if rule.needs}
        told = {
            "edition": _EDITION,
            "severities": {rule.name: int(severity) for rule, severity in self._active},
            "limits": {field.name: getattr(self.limits, field.name) for field in fields(Limits)},
            "packages": needs,
        }
        return hashlib.blake2b(json.dumps(told, sort_keys=True).encode(), digest_size=4).hexdigest()

    @property
    def asks_nothing(self) -> bool:
        """Whether no rule is on, so that all texts pass that are not empty."""
        return not self._active

    def judge(self, text: str, product: Product) -> Verdict:
        """Hold a text against every rule."""
        if not text.strip():
            return Verdict((Failure(EMPTY, RETRY, "has no text"),))
        return self._held(text, product, whole=True)

    def judge_sentence(self, sentence: str, product: Product) -> Verdict:
        """Hold one sentence of a text against the rules that do not ask for the whole of it."""
        return self._held(sentence, product, whole=False)

    def _held(self, text: str, product: Product, *, whole: bool) -> Verdict:
        reading = Reading(text[:_LONGEST_READ], product)
        failures = []
        for rule, severity in self._active:
            if not whole and rule.name in _OF_THE_WHOLE:
                continue
            reason = rule.check(reading, self.limits)
            if reason is not None:
                failures.append(Failure(rule.name, severity, reason))
        return Verdict(tuple(failures))


def _severity(name: str, value: Setting) -> Severity:
    try:
        return Severity[str(value).upper()]
    except KeyError:
        raise ConfigError(f"{name} = {value!r} should be off, flag, again, retry or quarantine") from None


def _limited(limits: Limits, name: str, value: Setting) -> Limits:
    if name in _NUMBERS:
        try:
            number = int(value)
        except ValueError:
            number = -1
        if number < 0:
            raise ConfigError(f"{name} = {value!r} should be a whole number, 0 or more")
        return replace(limits, **{name: number})  # type: ignore[arg-type]
    if name == "language":
        return replace(limits, language=str(value))
    if name == "banned_words":
        return replace(limits, banned=tuple(word.strip() for word in str(value).split("|") if word.strip()))
    known = [_ALL, *RULES, *sorted(_NUMBERS | _TEXTS)]
    hint = did_you_mean(name, known, f"there are {', '.join(known)}")
    raise ConfigError(f"unknown rule or limit {name!r}; {hint}")
