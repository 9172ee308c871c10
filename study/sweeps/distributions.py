"""One parameter of a sweep in W&B's vocabulary: the values it can take, and how they are drawn.

    python -c "from study.sweeps.distributions import read; print(read('lr', {'min': 0.001, 'max': 0.1}).value(0.5))"

Every distribution is a quantile function, which turns a number from 0 to 1 into a value, as in W&B's own engine (the
package `sweeps`, params.py): a random search draws that number, a Bayesian one chooses it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from study.system.errors import UserError, nearest

RANGE, NORMAL, BETA, STEP = {"min": None, "max": None}, {"mu": 0.0, "sigma": 1.0}, {"a": 1.0, "b": 1.0}, {"q": 1.0}

LARGEST = 1e300
"""No number of a distribution, or drawn from it, is larger."""

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
"""The keys of each with their defaults, None for those that must be given."""

LARGEST_GRID = 10_000
"""Values of one parameter."""


@dataclass(frozen=True)
class Parameter:
    """One parameter: a distribution and its keys."""

    distribution: str
    keys: Mapping[str, Any]

    @property
    def choices(self) -> list[Any] | None:
        """List all values, None where the distribution draws numbers."""
        if self.distribution == "constant":
            return [self.keys["value"]]
        return self.keys.get("values")

    @property
    def grid(self) -> list[Any] | None:
        """List the values that a grid takes, None where a grid cannot be made of the distribution."""
        low, high, step = (self.keys.get(key) for key in ("min", "max", "q"))
        match self.distribution:
            case "constant" | "categorical":
                return self.choices
            case "int_uniform" if high - low < LARGEST_GRID:
                return list(range(low, high + 1))
            case "q_uniform" if (high - low) / step <= LARGEST_GRID:
                return [_tidy(low + place * step, step) for place in range(math.ceil((high - low) / step - 1e-9))]
        return None

    @property
    def varies(self) -> bool:
        """Tell whether there is more than one value."""
        return self.choices is None or len(self.choices) > 1

    def value(self, quantile: float) -> Any:
        """Return the value below which this share, 0 to 1, of the draws lies."""
        if self.choices is not None:
            shares = self.keys.get("probabilities") or [1 / len(self.choices)] * len(self.choices)
            for choice, below in zip(self.choices, _cumulated(shares), strict=True):
                if quantile < below:
                    return choice
            return [choice for choice, share in zip(self.choices, shares, strict=True) if share][-1]
        if self.distribution == "int_uniform":
            low, high = self.keys["min"], self.keys["max"]
            return min(high, low + int(quantile * (high - low + 1)))
        number = self._continuous(quantile)
        step = self.keys.get("q")
        return _tidy(number) if step is None else _tidy(round(number / step) * step, step)

    def quantile(self, value: Any) -> float | None:
        """Return a number from 0 to 1 that leads to a value, None where the distribution never has that value."""
        try:
            value = float(value)
        except (TypeError, ValueError):
            return None
        if self.distribution == "int_uniform":
            low, high = self.keys["min"], self.keys["max"]
            found = (value - low + 0.5) / (high - low + 1)
        elif self.keys.get("q") is None:
            found = self._share_below(value)
        else:  # the middle of the draws that are rounded to it
            half = self.keys["q"] / 2
            found = (self._share_below(value - half) + self._share_below(value + half)) / 2
        found = min(max(found, 0.0), 1.0)
        return found if math.isclose(self.value(found), value, rel_tol=1e-4, abs_tol=1e-12) else None

    @property
    def _scale(self) -> tuple[float, float]:
        """Return the ends of a uniform distribution, for those named log on the scale of the natural logarithm."""
        low, high = self.keys["min"], self.keys["max"]
        if self.distribution.endswith("log_uniform_values"):
            return math.log(low), math.log(high)
        return (-high, -low) if self.distribution == "inv_log_uniform" else (low, high)

    def _continuous(self, quantile: float) -> float:
        if "min" in self.keys:
            low, high = self._scale
            number = low + quantile * (high - low)
        elif "mu" in self.keys:
            inner = min(max(quantile, 1e-12), 1 - 1e-12)
            number = self.keys["mu"] + self.keys["sigma"] * NormalDist().inv_cdf(inner)
        else:
            from scipy.stats import beta

            # scipy's is NaN for some quantiles that are smaller still, which no draw is
            number = float(beta.ppf(quantile if quantile > 1e-50 else 0.0, self.keys["a"], self.keys["b"]))
        return math.exp(min(number, math.log(LARGEST))) if "log" in self.distribution else number

    def _share_below(self, value: float) -> float:
        if "log" in self.distribution:
            if value <= 0:
                return 0.0
            value = math.log(value)
        if "min" in self.keys:
            low, high = self._scale
            return (value - low) / (high - low)
        if "mu" in self.keys:
            mu, sigma = self.keys["mu"], self.keys["sigma"]
            return NormalDist(mu, sigma).cdf(value) if sigma else float(value >= mu)
        from scipy.stats import beta

        return float(beta.cdf(value, self.keys["a"], self.keys["b"]))


def of_choices(choices: list[Any], **keys: Any) -> Parameter:
    """Make a parameter of these values, with their probabilities if there are any."""
    distribution = "categorical_w_probabilities" if keys else "categorical"
    return Parameter(distribution, {"values": choices, **keys})


def read(name: str, given: Any) -> Parameter:
    """Read what a sweep file says of one parameter; a UserError says what in it is wrong."""
    if not isinstance(given, Mapping) or not given:
        raise UserError(f"parameter {name} needs `value: …`, `values: […]` or `min: …` and `max: …`, not {given!r}")
    if "parameters" in given:
        raise UserError(f"parameter {name} is nested; the options of a run are flat: name each of them by itself")
    distribution = given.get("distribution") or _implied(name, given)
    if not isinstance(distribution, str) or distribution not in DISTRIBUTIONS:
        raise UserError(
            f"parameter {name}: unknown distribution {distribution!r}; {nearest(str(distribution), DISTRIBUTIONS)}"
        )
    known = DISTRIBUTIONS[distribution]
    for key in given:
        if key not in known and key != "distribution":
            raise UserError(f"parameter {name}: distribution {distribution} has no key {key!r}; {nearest(key, known)}")
    for key, default in known.items():
        if default is None and key not in given:
            raise UserError(f"parameter {name}: distribution {distribution} needs {key!r}")
    parameter = Parameter(distribution, known | {key: given[key] for key in known if key in given})
    _check(name, parameter)
    return parameter


def _implied(name: str, given: Mapping[str, Any]) -> str:
    """Name the distribution that is meant where none is named."""
    if "value" in given:
        return "constant"
    if "values" in given:
        return "categorical_w_probabilities" if "probabilities" in given else "categorical"
    if "min" in given or "max" in given:
        whole = all(isinstance(given.get(key), int) for key in ("min", "max"))
        return "int_uniform" if whole else "uniform"
    raise UserError(f"parameter {name} needs `value: …`, `values: […]` or `min: …` and `max: …`, not {dict(given)!r}")


def _check(name: str, parameter: Parameter) -> None:
    """Raise UserError where the keys of a distribution have values that it cannot have."""
    keys, distribution = parameter.keys, parameter.distribution
    if parameter.choices is not None:
        _check_choices(name, parameter.choices, keys.get("probabilities"))
        return
    for key, value in keys.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= LARGEST:
            hint = f"; YAML takes it for text: write {float(value)}" if _is_number(value) else ""
            raise UserError(f"parameter {name}: {key} must be a number, not {value!r}{hint}")
    if distribution == "int_uniform" and not all(isinstance(keys[key], int) for key in ("min", "max")):
        raise UserError(f"parameter {name}: min and max of int_uniform must be whole numbers")
    if "min" in keys and not keys["min"] < keys["max"]:
        raise UserError(f"parameter {name}: min must be less than max, not {keys['min']} and {keys['max']}")
    if distribution.endswith("log_uniform_values") and keys["min"] <= 0:
        raise UserError(f"parameter {name}: min of {distribution} must be greater than 0, not {keys['min']}")
    exponents = distribution in ("log_uniform", "inv_log_uniform", "q_log_uniform")
    if exponents and (abs(keys["max"]) > 300 or 0 < keys["min"] < keys["max"] <= 1):
        raise UserError(f"parameter {name}: min and max of {distribution} are exponents of e; "
                        f"{distribution}_values takes the values themselves")  # fmt: skip
    if keys.get("sigma", 0) < 0 or keys.get("q", 1) <= 0 or min(keys.get("a", 1), keys.get("b", 1)) <= 0:
        raise UserError(f"parameter {name}: q, a and b must be greater than 0, sigma at least 0")


def _check_choices(name: str, values: Any, shares: Any) -> None:
    if not isinstance(values, list) or not values:
        raise UserError(f"the values of parameter {name} must be a list that is not empty, not {values!r}")
    if shares is None:
        return
    numbers = isinstance(shares, list) and all(isinstance(share, int | float) and share >= 0 for share in shares)
    if not numbers or len(shares) != len(values) or not math.isclose(sum(shares), 1, abs_tol=1e-8):
        raise UserError(f"parameter {name}: probabilities must be as many as the values and sum to 1, not {shares!r}")


def _is_number(value: Any) -> bool:
    try:
        return isinstance(value, str) and math.isfinite(float(value))
    except ValueError:
        return False


def _cumulated(shares: list[float]) -> list[float]:
    return [math.fsum(shares[: place + 1]) for place in range(len(shares))]


def _tidy(number: float, step: float | None = None) -> float | int:
    """Write a draw as people would: six significant digits; a multiple of a whole step as a whole number."""
    if isinstance(step, int):
        return round(number)
    return float(f"{number:.6g}" if step is None else f"{number:.12g}")
