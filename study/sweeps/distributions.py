"""Parameters of a sweep in W&B's vocabulary: their values, and how they are drawn.

    python -c "from study.sweeps.distributions import read; print(read('lr', {'min': 0.001, 'max': 0.1}).value(0.5))"

Every distribution has a quantile function from a number between 0 and 1 to a value, as in W&B's own engine (the package
`sweeps`, params.py). A random search draws this number, a Bayesian search chooses it.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from study.system.errors import Mistakes, Place, nearest

RANGE = {"min": None, "max": None}
NORMAL = {"mu": 0.0, "sigma": 1.0}
BETA = {"a": 1.0, "b": 1.0}
STEP = {"q": 1.0}

PLAIN = (str, int, float, type(None))
"""Types of the values of options; an option may also have a list of them."""

LARGEST = 1e300
"""Largest absolute value of a key of a distribution, and of a draw."""

DISTRIBUTIONS: dict[str, dict[str, Any]] = {
    "constant": {"value": None},
    "categorical": {"values": None},
    "categorical_w_probabilities": {"values": None, "probabilities": None},
    "int_uniform": RANGE,
    "uniform": RANGE,
    "log_uniform": RANGE,
    "log_uniform_values": RANGE,
    "inv_log_uniform": RANGE,
    "inv_log_uniform_values": RANGE,
    "normal": NORMAL,
    "log_normal": NORMAL,
    "beta": BETA,
    "q_uniform": RANGE | STEP,
    "q_log_uniform": RANGE | STEP,
    "q_log_uniform_values": RANGE | STEP,
    "q_normal": NORMAL | STEP,
    "q_log_normal": NORMAL | STEP,
    "q_beta": BETA | STEP,
}
"""The keys of each distribution with their defaults; None marks required keys."""

NEEDED = "`value: …`, `values: […]` or `min: …` and `max: …`"

LARGEST_GRID = 10_000
"""Largest number of values of one parameter in a grid."""


@dataclass(frozen=True)
class Parameter:
    """One parameter: a distribution and its keys."""

    distribution: str
    keys: Mapping[str, Any]

    @property
    def choices(self) -> list[Any] | None:
        """List all values; None if the distribution draws numbers."""
        if self.distribution == "constant":
            return [self.keys["value"]]
        return self.keys.get("values")

    @property
    def grid(self) -> list[Any] | None:
        """List the values of a grid; None if the distribution cannot be used in a grid."""
        low, high, step = (self.keys.get(key) for key in ("min", "max", "q"))
        match self.distribution:
            case "constant" | "categorical":
                return self.choices
            case "int_uniform" if high - low < LARGEST_GRID:
                return list(range(low, high + 1))
            case "q_uniform" if (high - low) / step <= LARGEST_GRID:
                distance = (low + step) - low  # as numpy.arange, which W&B uses, rounds it
                return [low + index * distance for index in range(math.ceil((high - low) / step))]
        return None

    @property
    def varies(self) -> bool:
        """Return whether there is more than one value."""
        return self.choices is None or len(self.choices) > 1

    def value(self, quantile: float) -> Any:
        """Return the value at a quantile from 0 to 1."""
        # A choice by its cumulative probability
        if self.choices is not None:
            shares = self.keys.get("probabilities") or [1 / len(self.choices)] * len(self.choices)
            for choice, below in zip(self.choices, _cumulated(shares), strict=True):
                if quantile < below:
                    return choice
            return [choice for choice, share in zip(self.choices, shares, strict=True) if share][-1]

        # A whole number
        if self.distribution == "int_uniform":
            low = self.keys["min"]
            high = self.keys["max"]
            return min(high, low + int(quantile * (high - low + 1)))

        # Any other number, perhaps rounded to a multiple of a step
        number = self._continuous(quantile)
        step = self.keys.get("q")
        return _tidy(number) if step is None else _tidy(round(number / step) * step, step)

    def quantile(self, value: Any) -> float | None:
        """Return the quantile of a value, from 0 to 1, or None if the distribution does not have the value."""
        # Read the value
        try:
            value = float(value)
        except (TypeError, ValueError):
            return None

        # Find its quantile; for a rounded value, the middle of the quantiles that are rounded to it
        if self.distribution == "int_uniform":
            low = self.keys["min"]
            high = self.keys["max"]
            quantile = (value - low + 0.5) / (high - low + 1)
        elif self.keys.get("q") is None:
            quantile = self._share_below(value)
        else:
            half = self.keys["q"] / 2
            quantile = (self._share_below(value - half) + self._share_below(value + half)) / 2

        # Check that this quantile leads back to the value
        quantile = min(max(quantile, 0.0), 1.0)
        return quantile if math.isclose(self.value(quantile), value, rel_tol=1e-4, abs_tol=1e-12) else None

    @property
    def _scale(self) -> tuple[float, float]:
        """Return the ends of a uniform distribution; for a log distribution, the natural logarithms of its ends."""
        low = self.keys["min"]
        high = self.keys["max"]
        if self.distribution.endswith("log_uniform_values"):
            return math.log(low), math.log(high)
        return (-high, -low) if self.distribution == "inv_log_uniform" else (low, high)

    def _continuous(self, quantile: float) -> float:
        """Return the value at a quantile, without rounding."""
        if "min" in self.keys:
            low, high = self._scale
            number = low + quantile * (high - low)
        elif "mu" in self.keys:
            inner = min(max(quantile, 1e-12), 1 - 1e-12)
            number = self.keys["mu"] + self.keys["sigma"] * NormalDist().inv_cdf(inner)
        else:
            from scipy.stats import beta

            # scipy's result is NaN for some smaller quantiles, which are never drawn
            number = float(beta.ppf(quantile if quantile > 1e-50 else 0.0, self.keys["a"], self.keys["b"]))
        return math.exp(min(number, math.log(LARGEST))) if "log" in self.distribution else number

    def _share_below(self, value: float) -> float:
        """Return the cumulative distribution function at a value, without rounding."""
        # Log distributions are distributions of the logarithm
        if "log" in self.distribution:
            if value <= 0:
                return 0.0
            value = math.log(value)

        # Uniform, normal or beta
        if "min" in self.keys:
            low, high = self._scale
            return (value - low) / (high - low)
        if "mu" in self.keys:
            mu = self.keys["mu"]
            sigma = self.keys["sigma"]
            return NormalDist(mu, sigma).cdf(value) if sigma else float(value >= mu)
        from scipy.stats import beta

        return float(beta.cdf(value, self.keys["a"], self.keys["b"]))


def of_choices(choices: list[Any], **keys: Any) -> Parameter:
    """Return a parameter with these values, and with `probabilities` if given."""
    distribution = "categorical_w_probabilities" if keys else "categorical"
    return Parameter(distribution, {"values": choices, **keys})


def read(name: str, content: Any) -> Parameter:
    """Read one parameter of a sweep file; raise Mistakes with the places of what is wrong in it."""
    # Find its distribution
    if not isinstance(content, Mapping) or not content:
        raise Mistakes([((), f"parameter {name} needs {NEEDED}, not {content!r}")])
    distribution = content.get("distribution") or _implied(name, content)
    if not isinstance(distribution, str) or distribution not in DISTRIBUTIONS:
        hint = nearest(str(distribution), DISTRIBUTIONS)
        raise Mistakes([(("distribution",), f"parameter {name}: unknown distribution {distribution!r}; {hint}")])

    # Check its keys
    known = DISTRIBUTIONS[distribution]
    wrong: list[tuple[Place, str]] = [
        ((key,), f"has no key {key!r}; {nearest(str(key), known)}")
        for key in content
        if key not in known and key != "distribution"
    ]
    wrong += [((), f"needs {key!r}") for key, default in known.items() if default is None and key not in content]
    if wrong:
        raise Mistakes([(place, f"parameter {name}: distribution {distribution} {text}") for place, text in wrong])

    # Fill in the defaults, and check the values; YAML 1.1 reads numbers such as 1e-5 as texts
    given = {key: content[key] for key in known if key in content}
    given = {key: value if key in ("value", "values") else _number(value) for key, value in given.items()}
    parameter = Parameter(distribution, known | given)
    mistakes = [(place, f"parameter {name}: {text}") for place, text in _mistakes(parameter)]
    if mistakes:
        raise Mistakes(mistakes)
    return parameter


def _implied(name: str, content: Mapping[str, Any]) -> str:
    """Return the distribution of a parameter that names none, by its keys; raise Mistakes if they fit none."""
    if "value" in content:
        return "constant"
    if "values" in content:
        return "categorical_w_probabilities" if "probabilities" in content else "categorical"
    if "min" in content or "max" in content:
        are_whole = {isinstance(content[key], int) for key in ("min", "max") if key in content}
        if len(are_whole) == 2:
            low, high = content["min"], content["max"]
            text = (
                f"parameter {name}: W&B takes min {low} and max {high} together only with a `distribution`; "
                "add `distribution: uniform`, or write both as whole numbers or both with a decimal point"
            )
            raise Mistakes([(("min",), text)])
        return "int_uniform" if are_whole == {True} and len(content) == 2 else "uniform"
    raise Mistakes([((), f"parameter {name} needs {NEEDED}, not {dict(content)!r}")])


def _mistakes(parameter: Parameter) -> Iterator[tuple[Place, str]]:
    """Yield the places of wrong values among the keys of a distribution, each with what is wrong."""
    keys = parameter.keys
    distribution = parameter.distribution

    # A list of values
    if parameter.choices is not None:
        yield from _mistakes_of_choices(parameter.choices, keys.get("probabilities"))
        return

    # Numbers, and the order of min and max
    kind = int if distribution == "int_uniform" else int | float
    noun = "a whole number" if distribution == "int_uniform" else "a number"
    wrong = [
        key
        for key, value in keys.items()
        if isinstance(value, bool) or not isinstance(value, kind) or not abs(value) <= LARGEST
    ]
    yield from (((key,), f"{key} must be {noun}, not {keys[key]!r}") for key in wrong)
    if wrong:
        return
    if "min" in keys and not keys["min"] < keys["max"]:
        yield ("min",), f"min must be less than max, not {keys['min']} and {keys['max']}"
    if distribution.endswith("log_uniform_values") and keys["min"] <= 0:
        yield ("min",), f"min of {distribution} must be greater than 0, not {keys['min']}"

    # Values that were meant as such but are read as exponents
    has_exponents = distribution in ("log_uniform", "inv_log_uniform", "q_log_uniform")
    if has_exponents and (abs(keys["max"]) > 300 or 0 < keys["min"] < keys["max"] <= 1):
        text = f"min and max of {distribution} are exponents of e; {distribution}_values takes the values themselves"
        yield ("distribution",), text

    # Keys that must be positive
    yield from (((key,), f"{key} must be greater than 0, not {keys[key]}") for key in "qab" if keys.get(key, 1) <= 0)
    if keys.get("sigma", 0) < 0:
        yield ("sigma",), f"sigma must be at least 0, not {keys['sigma']}"


def _mistakes_of_choices(values: Any, shares: Any) -> Iterator[tuple[Place, str]]:
    """Yield the places where `values` is no list of option values, or where their probabilities do not fit."""
    if not isinstance(values, list) or not values:
        yield ("values",), f"values must be a list that is not empty, not {values!r}"
        return
    for index, value in enumerate(values):
        if not all(isinstance(item, PLAIN) for item in (value if isinstance(value, list) else [value])):
            yield ("values", index), f"a value must be a text, a number, true or false, not {value!r}"
    if shares is None:
        return
    fits = isinstance(shares, list) and all(isinstance(share, int | float) and 0 <= share <= 1 for share in shares)
    if not fits or len(shares) != len(values) or not math.isclose(sum(shares), 1, abs_tol=1e-5):
        yield ("probabilities",), f"probabilities must be one per value and sum to 1, not {shares!r}"


def _number(value: Any) -> Any:
    """Convert a text that is a finite number, and those of a list; return anything else as it is."""
    if isinstance(value, list):
        return [_number(item) for item in value]
    try:
        return float(value) if isinstance(value, str) and math.isfinite(float(value)) else value
    except ValueError:
        return value


def _cumulated(shares: list[float]) -> list[float]:
    return [math.fsum(shares[: index + 1]) for index in range(len(shares))]


def _tidy(number: float, step: float | None = None) -> float | int:
    """Round a draw to six significant digits; return a multiple of a whole step as a whole number."""
    if isinstance(step, int):
        return round(number)
    return float(f"{number:.6g}" if step is None else f"{number:.12g}")
