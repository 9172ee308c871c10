"""What curves of known shape are said to show: overfitting, trends at the end, speed, costs."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.frames import contrasts, endings
from analysis.frames.runs import IDENTITY, Frames
from analysis.frames.sections import Section, best_of_settings
from analysis.page.blocks import Paragraph, Table
from analysis.themes import (
    answers,
    brief,
    changes,
    comparison,
    costs,
    effects,
    pareto,
    space,
    speed,
    training,
    transfer,
)
from analysis.wording import texts as wording
from analysis.wording.texts import language, shown, shown_value
from study.config.setting import Listed, Setting
from study.record.directory import RunDirectory

EPOCHS = 20


def section(curves, epochs=EPOCHS, lr=None, train=0.95, **columns):
    """Make a section of runs whose curves are known.

    `curves` maps each setting to a list of (accuracy, loss) functions of the epoch, one for each seed.
    """
    rows, histories = [], []
    for setting, seeds in curves.items():
        for seed, (accuracy, loss) in enumerate(seeds):
            run, epoch = f"{setting}-{seed}", np.arange(1, epochs + 1)
            history = pd.DataFrame(
                {
                    "run": run, "setting": setting, "seed": seed, "epoch": epoch, "val/acc": accuracy(epoch),
                    "val/loss": loss(epoch), "train/acc": train, "train/loss": 0.1,
                    "lr": lr(epoch) if lr else 0.01, "time/epoch": np.where(epoch == 1, 50.0, 2.0),
                    "time/images_per_second": 500.0, "memory/peak_mb": 100.0 + epoch,
                }
            )  # fmt: skip
            best, last = history.loc[history["val/acc"].idxmax()], history.iloc[-1]
            rows.append(
                dict.fromkeys(IDENTITY) | {
                    "run": run, "setting": setting, "seed": seed, "group": setting, "fingerprint": run,
                    "dataset": "digits", "state": "finished", "stopped_by": None, "device_shared_by": 1,
                    "data_digest": None, "device": "cpu", "host": "here", "cpu": "Fast", "cores": 2, "threads": 1,
                    "precision": "float32",
                    "val_images": 10_000, "test_images": 10_000,
                    "best/epoch": best.epoch, "best/val_acc": best["val/acc"],
                    "best/val_loss": best["val/loss"], "best/train_acc": train, "best/train_loss": 0.1,
                    "last/epoch": float(epochs), "last/val_acc": last["val/acc"], "last/val_loss": last["val/loss"],
                    "last/train_acc": train, "last/train_loss": 0.1, "test/acc": best["val/acc"] - 0.01,
                    "iterations": 100.0 * epochs, "params": 1000.0, "params_logits": np.nan, "param_bytes": 4000.0,
                    "flops": 5e6, "train_seconds": 90.0, "energy_joules": np.nan,
                } | {name: values[setting] for name, values in columns.items()}
            )  # fmt: skip
            histories.append(history)
    runs = pd.DataFrame(rows).set_index("run")
    points = runs[["setting", "seed", "fingerprint", "state"]].reset_index(drop=True)
    return Section("made", "", [], runs, pd.concat(histories, ignore_index=True), points, {"finished": len(runs)})


def line(start, slope, noise=0.0, seed=0):
    random = np.random.default_rng(seed)
    return lambda epoch: start + slope * epoch + random.normal(0, noise, len(epoch))


def rising_then_flat(epoch):
    return 0.5 + 0.3 * np.minimum(epoch, 8) / 8 - 1e-6 * epoch


FALLING, FLAT, RISING = (0.5, -0.01), (0.3, 0.0), (0.3, 0.01)
CASES = {
    "rises": ((0.5, 0.01), FALLING), "mixed": ((0.5, 0.01), RISING), "perhaps": ((0.7, 0.0), FALLING),
    "unclear": ((0.7, 0.0), FLAT), "overfits": ((0.7, 0.0), RISING), "falls": ((0.7, -0.01), RISING),
}  # fmt: skip


@pytest.mark.parametrize("seeds", [1, 4])
@pytest.mark.parametrize("verdict", CASES)
def test_the_trend_at_the_end_says_whether_more_epochs_help(verdict, seeds):
    (accuracy, acc_slope), (loss, loss_slope) = CASES[verdict]
    noisy = [(line(accuracy, acc_slope, 2e-3, 40 + s), line(loss, loss_slope, 2e-3, 70 + s)) for s in range(seeds)]
    made = section({"a": noisy})
    row = endings.verdicts(made).iloc[0]
    assert row.verdict == verdict
    assert row.acc_slope == pytest.approx(100 * acc_slope, abs=0.3) and row.window == 6
    assert row.n == seeds


def test_what_rises_fast_enough_at_the_end_may_become_the_best():
    """A setting below the best one is named if twice its epochs could make it as good, and no other."""
    curves = {"flat": (0.8, 0.0), "near": (0.4, 0.019), "far": (0.1, 0.004)}
    made = section({name: [(line(*curve, 1e-3, seed), line(*FALLING, 1e-3, seed)) for seed in range(3)]
                    for name, curve in curves.items()})  # fmt: skip
    score = made.runs.groupby("setting")["best/val_acc"].mean() * 100
    assert endings.overtaking(made, score, "flat") == ["near"]
    assert endings.overtaking(made, score, "near") == []
    assert endings.overtaking(made, score.replace(score["near"], score["flat"] + 1), "flat") == [], "it is above"
    said = brief.recommendation(None, made)
    assert "near is still rising" in said and "far" not in said.rpartition("may change")[2]


def test_no_trend_is_read_where_the_schedule_ends_or_epochs_are_few():
    rising = {"a": [(line(0.5, 0.01, 1e-3, seed), line(*FALLING, 1e-3, seed)) for seed in range(3)]}
    decayed = section(rising, lr=lambda epoch: 0.01 * np.cos(np.pi / 2 * epoch / (EPOCHS + 1)) ** 2)
    few = section(rising, epochs=3)
    early = section(rising, stopped_by={"a": "early stopping"})
    for made, verdict in ((decayed, "decayed"), (few, "few"), (early, "early")):
        assert list(endings.verdicts(made).verdict) == [verdict]
    made = section(rising)
    once = replace(made, runs=made.runs.assign(stopped_by=["early stopping", None, None]))
    assert list(endings.verdicts(once).verdict) == ["rises"]


def test_many_settings_without_a_trend_are_not_said_to_have_one():
    made = section({f"s{place}": [(line(0.7, 0, 2e-3, 50 * place + s), line(*FLAT, 2e-3, 50 * place + s + 25))
                                  for s in range(3)] for place in range(40)})  # fmt: skip
    frame = endings.verdicts(made)
    assert set(frame.verdict) == {"unclear"}
    assert (frame.acc_slope.abs() < frame.acc_slope_ci95).all(), "the intervals are simultaneous"
    paragraphs = (block.text for block in training.blocks(None, made, {}) if isinstance(block, Paragraph))
    top = frame.loc[(frame.gain + frame.gain_ci95).idxmax()]
    gain = f"{top.gain:.2f} ± {top.gain_ci95:.2f} points"
    assert any(str(top.setting) in text and gain in text for text in paragraphs)
    assert frame.acc_slope_ci95.max() < 2 * frame.acc_slope_ci95.min(), "variances are moderated"


@pytest.mark.parametrize("exponent", [0.3, 0.7, 1.5])
def test_the_gain_from_twice_the_epochs_is_that_of_the_whole_curve(exponent):
    """Noise hides a trend of the last epochs; the whole curve shows what twice the epochs bring."""
    curve = lambda epoch: 0.8 - 0.3 * epoch**-exponent  # noqa: E731
    runs = [(lambda epoch, s=s: curve(epoch) + line(0, 0, 2e-3, s)(epoch), line(*FLAT)) for s in range(4)]
    made = section({"a": runs})
    row = endings.verdicts(made).iloc[0]
    truth = 100 * (curve(2.0 * EPOCHS) - curve(1.0 * EPOCHS))
    assert row.gain - row.gain_ci95 < truth < row.gain + row.gain_ci95 and row.gain_ci95 < 2
    falling = section({"a": [(line(0.8, -0.005, 1e-3, s), line(*FLAT)) for s in range(3)]})
    assert endings.verdicts(falling).gain.iloc[0] == 0


def test_a_rising_loss_and_the_gap_are_named():
    loss = lambda epoch: np.abs(epoch - 5) / 10 + 0.4  # noqa: E731
    made = section({"a": [(line(0.8, 0.001), loss)] * 2, "b": [(line(0.7, 0.001), line(*FLAT))] * 2})
    table = training.overfitting(made)
    row = table.frame.set_index("setting").loc["a"]
    assert (row.val_loss_min, row.val_loss_min_epoch, row.val_loss_last) == pytest.approx((0.4, 5, 1.9))
    assert row.gap_last == pytest.approx(95 - 82)
    said = " ".join(text for block in training.blocks(None, made, {}) for text in getattr(block, "texts", []))
    assert "widest for b (23.00 points) and narrowest for a (13.00)" in said
    assert "a from 0.400 at epoch 5 to 1.900 at the end" in said and "b from" not in said
    zigzag = lambda epoch: (0.4 - 0.003 * epoch) * np.where(epoch % 2, 0.9, 1.1)  # noqa: E731
    noisy = section({"a": [(line(0.8, 0.001), zigzag)]})
    found = endings.measure(noisy)
    assert (found.val_loss_last > 1.1 * found.val_loss_min).all(), "the last epoch is no good one"
    said = " ".join(text for block in training.blocks(None, noisy, {}) for text in getattr(block, "texts", []))
    assert "rises again" not in said


@pytest.mark.parametrize(("train", "why"), [((0.95, 0.86), "lower training accuracy"), ((0.90, 0.89), "wider gap")])
def test_a_difference_is_divided_into_what_is_not_learned_and_what_is_overfitted(train, why):
    seeds = [line(0.8, 0, 1e-3, seed) for seed in range(4)], [line(0.7, 0, 1e-3, seed) for seed in range(4)]
    made = section(
        {name: [(accuracy, line(*FLAT)) for accuracy in found] for name, found in zip("ab", seeds, strict=True)},
        **{"best/train_acc": dict(zip("ab", train, strict=True))},
    )
    (cause,) = (text for block in training.blocks(None, made, {}) for text in getattr(block, "texts", [])
                if "points are a lower" in text)  # fmt: skip
    frame = endings.gaps(made).set_index("setting")
    below = contrasts.compare(made).set_index("setting").below["b"]
    parts = frame.train_acc_best["a"] - frame.train_acc_best["b"], frame.gap_best["b"] - frame.gap_best["a"]
    assert sum(parts) == pytest.approx(below), "they add up to the difference"
    assert f"{parts[0]:.2f} points are a lower training accuracy" in cause and cause.endswith(
        f"; the {why} is the larger part."
    )


def test_speed_counts_the_first_epoch_that_is_good_enough():
    slow = lambda epoch: 0.5 + 0.3 * epoch / EPOCHS  # noqa: E731
    never = line(0.5, 0.001)
    made = section({"fast": [(rising_then_flat, line(*FLAT))] * 2, "slow": [(slow, line(*FLAT))] * 2,
                    "half": [(rising_then_flat, line(*FLAT)), (never, line(*FLAT))]})  # fmt: skip
    table = speed.table(made)
    assert speed.thresholds(made) == [65, 70, 78]
    frame = table.frame.set_index("setting")
    assert (frame.epochs_70["fast"], frame.epochs_70["slow"]) == (6, 14)
    assert (frame.epochs["fast"], frame.iterations_all["fast"]) == (EPOCHS, 100 * EPOCHS), "of the whole training"
    assert frame.iterations_70["fast"] == 600 and frame.seconds_70["fast"] == 12, "the first epoch is left out"
    assert np.isnan(frame.epochs_70["half"]) and frame.reached_70["half"] == 1
    cells = {row[0].text: row for row in table.rows}
    assert cells["half"][table.header.index("Epochs to 70 %")].text == "1 of 2 seeds"


def test_costs_and_the_front_that_nothing_cheaper_beats():
    curves = {name: [(line(top, 0), line(*FLAT))] * 2 for name, top in zip("abcd", (0.7, 0.8, 0.75, 0.7), strict=True)}
    names = dict(zip("abcd", (1e3, 5e3, 9e3, 1e3), strict=True))
    joules = dict.fromkeys("abcd", 7200.0) | {"b": np.nan}
    made = section(curves, params=names, energy_joules=joules)
    frame = costs.measure(made).set_index("setting")
    assert frame.params.to_dict() == names
    assert frame.epoch_seconds["a"] == 2 and frame.peak_mb["a"] == 120 and frame.energy_wh["a"] == 2
    assert np.isnan(frame.energy_wh["b"]) and frame.mflops["a"] == 5
    best = pareto.front(frame.reset_index(), "params")
    assert sorted(best.setting) == ["a", "b", "d"], "c is dearer and worse than b"
    shared = costs.measure(section(curves, device_shared_by=dict.fromkeys("abcd", 2)))
    assert shared[["epoch_seconds", "images_per_second", "train_seconds", "peak_mb"]].isna().all(axis=None)


def test_of_two_points_that_nearly_touch_the_names_stand_as_the_points_do():
    names = [f"{model}, dropout {rate}" for model in ("all-conv", "two-block", "mlp") for rate in (0.5, 0.0)]
    frame = pd.DataFrame(
        {
            "setting": names,
            "params": np.repeat([93_962.0, 45_526.0, 7_510.0], 2),
            "mflops": np.repeat([1.22, 0.68, 0.015], 2),
            "score": [98.54, 98.12, 98.05, 97.98, 96.79, 96.45],
        }
    )
    for cost, axes in zip(("params", "mflops"), pareto.draw(frame, ["params", "mflops"], "costs").axes, strict=True):
        height = {words.get_text(): words.get_position()[1] for words in axes.texts}
        assert sorted(height, key=height.get, reverse=True) == names
        ends = [line.get_xydata()[1] for line in axes.lines[1 + len(names) :]]
        points = frame[[cost, "score"]].to_numpy()
        np.testing.assert_allclose(sorted(map(tuple, ends)), sorted(map(tuple, points)), err_msg="a line per point")


@pytest.mark.parametrize("option", ["momentum", "model"])
def test_what_costs_the_same_by_construction_is_not_said_to_be_faster(option):
    """Times differ by noise between momenta, and by construction between networks."""
    tops = {"a": 0.7, "b": 0.8, "c": 0.75}
    made = section(
        {name: [(line(top - 0.05, 0.05 / EPOCHS), line(*FLAT))] * 2 for name, top in tops.items()},
        energy_joules={"a": 1e4, "b": 2e4, "c": 4e4},
        device=dict.fromkeys(tops, "H100"),
        **{option: {name: name for name in tops}},
    )
    factors = made.history.setting.map({"a": 1.0, "b": 2.0, "c": 4.0})
    times = {name: made.history[name] * factors for name in ("time/epoch", "memory/peak_mb")}
    made = replace(made, history=made.history.assign(**times))
    table = next(block for block in costs.blocks(None, made, {}) if hasattr(block, "frame"))
    assert table.frame.set_index("setting").epoch_seconds.to_dict() == {"a": 2, "b": 4, "c": 8}, "as they were measured"
    assert table.frame.power_w.round().tolist() == [222, 444, 111]
    said = " ".join(text for block in costs.blocks(None, made, {}) for text in getattr(block, "texts", []))
    wanted = ["(the Pareto front). On it, b is", "An epoch takes longest with c: 8.00 s, 2.00 times",
              "Most memory is needed by c", "Most energy is needed by c: 11.111 Wh"]  # fmt: skip
    assert [text in said for text in wanted] == [option == "model"] * 4
    assert any("should cost about the same" in note for note in table.notes) == (option == "momentum")
    assert ("In time," in speed.blocks(None, made, {})[1].text) == (option == "model")


def test_the_answer_names_what_is_shown_what_is_open_and_what_is_noise():
    tops = {"best": (0.8, 0.801, 0.802, 0.803), "near": (0.803, 0.799, 0.802, 0.8006), "far": (0.5, 0.51, 0.5, 0.506)}
    made = section({name: [(line(top, 0), line(*FLAT)) for top in found] for name, found in tops.items()})
    said = answers.sentences(None, made)
    assert said[0].startswith("**best** has the highest validation accuracy, 80.15 ± 0.21 % over 4 seeds")
    assert "1 is clearly worse (p < 0.05); 1 is undecided" in said[0]
    assert any(text.startswith("Clearly worse than best (p < 0.05): far by 29.75 points [") for text in said)
    assert any("neither shown to be worse" in text and "near by 0.04 points [" in text for text in said)
    assert any("To show a difference of 0.5 points, about" in text for text in said)
    two = section({name: [(line(top, 0), line(*FLAT)) for top in tops[name]] for name in ("best", "far")})
    assert "clearly above far by 29.75 points" in answers.sentences(None, two)[0]
    mixed = section({name: [(line(top, 0), line(*FLAT)) for top in found[: 1 if name == "near" else 4]]
                     for name, found in tops.items()})  # fmt: skip
    said = answers.sentences(None, mixed)
    assert "**best** has the highest validation accuracy of the settings that can be compared" in said[0]
    assert "Not compared, because it has only one seed: near." in said
    alone = section({"best": [(line(top, 0), line(*FLAT)) for top in tops["best"]]})
    assert "no other setting to compare it with" in answers.sentences(None, alone)[0]


@pytest.mark.parametrize("smallest", [0.5, 0.05, 20])
def test_bold_words_p_and_interval_say_the_same(smallest):
    """Worse, as good, undecided: each follows from p and the interval, and bold is what is not worse."""
    random = np.random.default_rng(1)
    tops = dict(zip("abcdefg", (0.8, 0.799, 0.7985, 0.795, 0.792, 0.78, 0.6), strict=True))
    made = section({name: [(line(top + random.normal(0, 0.001), 0), line(*FLAT)) for _ in range(5)]
                    for name, top in tops.items()})  # fmt: skip
    made = replace(made, smallest=smallest)
    table = comparison.table(made)
    bold = {row[0].text for row in table.rows if row[2].bold}
    said = answers.sentences(None, made)
    frame = contrasts.compare(made).set_index("setting")
    best, others = frame.index[0], frame[1:]
    contains = others.below_ci95 > others.below
    assert bold == {best, *others.index[others.p_holm >= 0.05]} == {best, *others.index[contains]}
    equal = {*others.index[contains & (others.below + others.below_ci95 < smallest)]}
    open_ = bold - equal - {best}
    wanted = {"Clearly worse than": {*frame.index} - bold, "As good as": equal, "Lower than": open_}
    for start, names in wanted.items():
        texts = [text for text in said if text.startswith(start)]
        assert [{*re.findall(r"(?:: |; )(\w) by", text)} for text in texts] == [names] * bool(names) or len(names) > 4
    assert any("To show a difference of" in text for text in said) == bool(open_)
    if smallest == 20:
        assert not open_ and equal


def settings_of(tops):
    """Make a section of settings with these best accuracies, one for each seed."""
    return section({name: [(line(top, 0), line(*FLAT)) for top in found] for name, found in tops.items()})


def test_runs_that_failed_among_good_ones_are_counted_and_not_compared():
    tops = {"good": (0.9, 0.91, 0.9, 0.905), "worse": (0.7, 0.71, 0.7, 0.705), "part": (0.95, 0.94, 0.1, 0.945)}
    made = settings_of(tops)
    lost = (made.history.setting == "part") & (made.history.seed == 2)
    made.history.loc[lost, ["train/acc", "train/loss"]] = 0.1, 2.3
    row = {cells[0].text: [cell.text for cell in cells] for cells in comparison.table(made).rows}["part"]
    frame = contrasts.compare(made).set_index("setting")
    assert frame.failed.to_dict() == {"good": 0, "part": 1, "worse": 0} and not frame.tied["part"]
    assert row[2] == "73.38" and row[4:6] == ["17.00", ""], "a mean without an interval, and no p"
    said = answers.sentences(None, made)
    assert said[0].startswith("**good** has the highest") and "above worse" in said[0] and "part" not in said[0]
    assert any("part (1 of 4 runs failed to learn)" in text for text in said)
    alone = answers.sentences(None, settings_of({name: tops[name] for name in ("good", "worse")}))
    assert alone[0] == said[0] and not any("failed to learn" in text for text in alone)


def test_validation_above_training_is_no_overfitting():
    made = settings_of({"a": (0.97, 0.96), "b": (0.98, 0.99)})
    (said, *_) = (block.texts[0] for block in training.blocks(None, made, {}) if hasattr(block, "texts"))
    assert said.startswith("At the end, no setting is more accurate on training images") and "widest" not in said
    (said, *_) = (block.texts[0] for block in training.blocks(None, settings_of({"a": (0.97, 0.96)}), {})
                  if hasattr(block, "texts"))  # fmt: skip
    assert said.startswith("At the end, a is 1.50 points less accurate on training images")


def test_trainings_that_all_failed_do_not_hide_the_differences_of_others():
    random = np.random.default_rng(3)
    tops = {
        name: top + random.normal(0, 0.004, 3) for name, top in zip("abcdef", np.linspace(0.9, 0.85, 6), strict=True)
    }
    dead = {name: 0.1 + random.normal(0, 1e-4, 3) for name in ("dead", "died")}
    without, made = (settings_of(tops | extra) for extra in ({}, dead))
    lost = made.history.setting.isin([*dead])
    made.history.loc[lost, ["train/acc", "train/loss"]] = 0.1, 2.3
    found, alone = (contrasts.pairwise(one).deviation["a", "b"] for one in (made, without))
    assert found == pytest.approx(alone), "the spread of the others is as before"
    assert contrasts.pairwise(made).holm["a", "dead"] < 0.05


def test_repeats_that_never_vary_and_equal_settings_get_words_of_their_own():
    said = answers.sentences(None, settings_of({"a": (0.9, 0.9, 0.9), "b": (0.8, 0.8, 0.8)}))
    assert "the seeds do not show whether a difference is more than noise" in said[0]
    assert not any("± 0.00 points" in text or "nan" in text for text in said)
    said = answers.sentences(None, settings_of({"a": (0.9, 0.91, 0.9), "b": (0.8, 0.81, 0.82), "c": (0.7, 0.7, 0.7),
                                                "d": (0.9, 0.9, 0.9)}))  # fmt: skip
    assert not any("nan" in text for text in said)
    said = answers.sentences(None, settings_of(dict.fromkeys("abc", (0.9, 0.91, 0.92))))
    assert said[0].startswith("All 2 other settings have the same mean validation accuracy as **a**, 91.00")
    assert not any("0.00 points" in text for text in said)


def test_a_single_seed_above_the_best_is_no_negative_distance():
    made = settings_of({"one": (0.95,), "a": (0.9, 0.91, 0.9), "b": (0.8, 0.81, 0.82)})
    rows = {cells[0].text: [cell.text for cell in cells] for cells in comparison.table(made).rows}
    assert rows["one"][4] == ""
    assert "one is 4.67 points above a, but with its only seed" in " ".join(answers.sentences(None, made))


def test_of_settings_alike_the_answer_names_the_one_that_overfits_less():
    tops = (0.8, 0.801, 0.802, 0.803)
    curves = {
        name: [(line(top, 0), line(loss + top / 100, 0)) for top in tops]
        for name, loss in (("plain", 0.9), ("dropout", 0.5))
    }
    made = section(curves)
    plain = made.runs.setting == "plain"
    made.runs["last/train_acc"] = np.where(plain, 0.99, 0.85) + 0.01 * made.runs.seed % 0.02
    made.runs.loc[plain, "test/acc"] -= 0.02
    made.runs.loc[plain, "best/val_acc"] += 1e-4 * made.runs.seed
    said = " ".join(answers.sentences(None, made))
    assert (
        "Overfit less than plain, judged by the gap between training and validation accuracy at the end: dropout by 14"
        in said
    )
    assert "Lower validation loss at the end than plain: dropout by 0.400 ± " in said
    assert "The test images show the opposite: there, another setting is better: dropout by 2.00 points [" in said


def test_a_training_whose_accuracy_rises_has_learned_though_its_loss_hardly_falls():
    made = section({"slow": [(line(0.2, 0.03), line(*FLAT))] * 2}, epochs=2)
    for gain, has_failed in ((0.04, True), (0.09, False)):
        made.history["train/loss"] = np.where(made.history.epoch == 1, 2.30, 2.29)
        made.history["train/acc"] = np.where(made.history.epoch == 1, 0.11, 0.11 + gain)
        assert contrasts.collapsed(made).all() == has_failed
        assert contrasts.collapsed(made).any() == has_failed


def test_a_training_that_collapses_is_not_called_overfitted():
    def dies(epoch):
        return np.where(epoch < 8, 0.3 + 0.05 * epoch, 0.1)

    made = section({"dead": [(dies, lambda epoch: np.where(epoch < 8, 1.0, 2.303))] * 2,
                    "alive": [(line(0.5, 0.01), line(*FALLING))] * 2})  # fmt: skip
    dead = made.history.setting == "dead"
    made.history["train/acc"] = np.where(dead, made.history["val/acc"], 0.95)
    made.history["train/loss"] = np.where(dead, np.where(made.history.epoch < 8, 2.0 / made.history.epoch, 2.39), 0.1)
    made.runs.loc[made.runs.setting == "dead", "last/train_loss"] = 2.39
    said = " ".join(text for block in training.blocks(None, made, {}) for text in getattr(block, "texts", []))
    assert "dead from" not in said and "Training collapsed, or never started, in all runs of dead:" in said
    verdicts = endings.verdicts(made).set_index("setting").verdict
    assert verdicts.to_dict() == {"alive": "rises", "dead": "collapsed"}


def test_settings_that_are_level_are_both_named_and_those_without_a_result_too(tmp_path):
    made = section({name: [(line(top, 0), line(*FLAT))] for name, top in {"a": 0.8, "b": 0.8, "c": 0.7}.items()})
    guessed = {"test_targets": [0, 1], "test_predictions": [0, 0], "test_probabilities": np.eye(2)}
    for run in made.runs.index:
        (tmp_path / run).mkdir()
        np.savez(tmp_path / run / "evaluation.npz", **guessed)
    frames = Frames(made.runs, made.history, {}, {run: RunDirectory(tmp_path / run) for run in made.runs.index})
    assert "**a; b** share the highest validation accuracy, 80.00 %" in answers.sentences(frames, made)[0]
    lost = pd.DataFrame({"setting": ["d"], "seed": [0], "fingerprint": ["d-0"], "state": ["diverged"]})
    made = replace(made, points=pd.concat([made.points, lost]))
    assert "1 more setting has no result: d." in answers.sentences(frames, made)[0]


@pytest.mark.slow
def test_advice_on_seeds_holds_what_it_promises():
    """Of studies with as many seeds as advised, four of five show a difference of that size."""
    random = np.random.default_rng(0)
    enough, too_many = [], []
    for _ in range(40):
        made = section({f"{place}": [(line(0.8 + random.normal(0, 0.003), 0), line(*FLAT)) for _ in range(3)]
                        for place in range(8)}, epochs=1)  # fmt: skip
        said = " ".join(answers.sentences(None, made))
        fewest, most = map(
            int, re.search(r"To show a difference of 0.5 points, about (\d+) to (\d+) seeds", said).groups()
        )
        for seeds, powers in ((most, enough), (fewest - 1, too_many)):
            draws = random.normal([0.5, 0], 0.3, (400, seeds, 2))
            p = stats.ttest_rel(draws[..., 0], draws[..., 1], axis=1).pvalue
            powers.append((p < 0.05 / 28).mean())
    assert np.mean(np.array(enough) > 0.75) > 0.8, "the larger number is enough, though the spread is estimated"
    assert np.mean(np.array(too_many) < 0.8) > 0.8, "and fewer than the smaller one are not"


def test_two_settings_of_three_seeds_get_no_number_of_seeds():
    made = section({name: [(line(top, 0), line(*FLAT)) for top in tops]
                    for name, tops in {"a": (0.8, 0.81, 0.79), "b": (0.795, 0.8, 0.81)}.items()})  # fmt: skip
    said = " ".join(answers.sentences(None, made))
    assert "too few seeds to estimate" in said and "five or more" in said and "To show" not in said


@pytest.mark.parametrize(("seeds", "n"), [((4, 4, 2, 3), 2), ((4, 4, 0, 2), 4), ((4, 3, 2, 2), 2)])
def test_the_values_of_an_option_are_averaged_over_the_same_runs(seeds, n):
    """Where runs are missing, an option that does nothing still does nothing, though networks differ."""
    settings = [("a", "0.0"), ("a", "0.5"), ("b", "0.0"), ("b", "0.5")]
    tops = {"a": 0.9, "b": 0.5}
    made = section({f"{model}, {dropout}": [(line(tops[model] + seed / 100, 0), line(*FLAT)) for seed in range(count)]
                    for (model, dropout), count in zip(settings, seeds, strict=True) if count})  # fmt: skip
    options = pd.DataFrame(made.points.setting.str.split(", ").tolist(), columns=["model", "dropout"])
    runs = made.runs.assign(**{name: options[name].to_numpy() for name in options})
    made = replace(made, varied=["model", "dropout"], runs=runs, points=made.points.join(options))
    effect = effects.measure(made).set_index(["option", "value"]).loc["dropout"]
    assert effect.score_change["0.5"] == pytest.approx(0) and effect.n["0.5"] == n
    of_both = made.runs.setting.isin(["a, 0.0", "a, 0.5"])
    one = replace(made, runs=made.runs[of_both], points=made.points[made.points.model == "a"])
    half_width = effects.measure(one).set_index(["option", "value"]).score_change_ci95["dropout", "0.5"]
    if seeds[0] == seeds[1]:
        pair = contrasts.pairwise(one).loc["a, 0.5", "a, 0.0"]
        row = effects.measure(one).set_index(["option", "value"]).loc["dropout", "0.5"]
        assert (half_width, row.score_change_p) == pytest.approx((pair.half_width, pair.holm)), "as in the comparison"


def test_single_changes_are_compared_with_what_they_change():
    mlp, cnn = ("model", "mlp"), ("model", "cnn")
    dropout, rate, norm = ("dropout", 0.5), ("lr", 0.1), ("batch_norm", True)
    tops = {
        Setting((mlp,)): 0.7, Setting((mlp, dropout)): 0.8, Setting((mlp, rate)): 0.5,
        Setting((mlp, dropout, rate)): 0.7001, Setting((cnn, norm)): 0.9, Setting((cnn, ("batch_norm", False))): 0.8,
        Setting((cnn, norm, rate)): 0.9,
    }  # fmt: skip
    made = section(
        {pairs: [(line(top, 0, 1e-3, 9 * place + s), line(*FLAT)) for s in range(4)]
         for place, (pairs, top) in enumerate(tops.items())},
        pairs={name: name for name in tops},
    )  # fmt: skip
    points = made.points.assign(pairs=made.points.setting)
    frame = changes.one_at_a_time(replace(made, varied=["pairs"], points=points))
    found = [(row.setting, row.option, row.before, row.after) for row in frame.itertuples()]
    assert found == [
        (Setting((mlp,)), "dropout", "", 0.5), (Setting((mlp,)), "lr", "", 0.1),
        (Setting((mlp, dropout)), "lr", "", 0.1), (Setting((mlp, rate)), "dropout", "", 0.5),
        (Setting((cnn, norm)), "batch_norm", True, False), (Setting((cnn, norm)), "lr", "", 0.1),
    ]  # fmt: skip
    assert list(frame.score_change.round()) == [10, -20, -10, 20, -10, 0]
    assert list(frame.p_holm < 0.05) == [True] * 5 + [False]
    (said,) = (block.text for block in changes.blocks(None, replace(made, varied=["pairs"], points=points), {})
               if hasattr(block, "text") and "help" in block.text)  # fmt: skip
    assert (
        "2 changes help (p < 0.05): dropout 0.5 for mlp (+" in said
        and "For 1 of the 6 changes there is no clear evidence" in said
    )
    assert changes.one_at_a_time(made).empty, "a product of options has no such changes"


def product(tops, names, noise=1e-3):
    """Make a section of a product; `tops` maps values of its options, which have these names, to the accuracy there."""
    settings = {Setting(tuple(zip(names, values, strict=True))): values for values in tops}
    made = section({setting: [(line(tops[values], 0, noise, 9 * place + s), line(*FLAT)) for s in range(4)]
                    for place, (setting, values) in enumerate(settings.items())})  # fmt: skip
    columns = zip(*(settings[setting] for setting in made.runs.setting), strict=True)
    given = {
        name: pd.Series(list(column), dtype=object).to_numpy() for name, column in zip(names, columns, strict=True)
    }
    return replace(made, varied=names, runs=made.runs.assign(**given), points=made.points.assign(**given))


def fails(made, *runs):
    """Let runs of a section learn nothing."""
    made.history.loc[made.history.run.isin(runs), "train/acc"] = 0.1
    made.runs.loc[made.runs.index.isin(runs), ["best/val_acc", "last/val_acc"]] = 0.1
    return replace(made)


def test_a_value_without_a_result_does_not_hide_the_effect_of_the_others():
    tops = {(rate, model): 0.7 + 0.1 * (rate == 0.1) for rate in (0.01, 0.1, 1.0) for model in ("mlp", "cnn")}
    made = product(tops, ["lr", "model"])
    of_one = made.runs.lr == 1.0
    points = made.points.assign(state=made.points.state.where(made.points.lr != 1.0, "diverged"))
    made = replace(made, runs=made.runs[~of_one], history=made.history[~made.history.run.isin(of_one[of_one].index)],
                   points=points)  # fmt: skip
    effect = effects.measure(made).set_index(["option", "value"])
    assert set(effect.loc["lr"].index) == {0.01, 0.1} and effect.score_change_p["lr", 0.1] < 0.05
    assert any("lr 1" in note for note in effects.table(made, effects.measure(made)).notes)


def test_effects_are_of_settings_of_which_all_runs_learned():
    tops = {(rate, model): 0.7 + 0.1 * (rate == 0.1) for rate in (0.01, 0.1, 1.0) for model in ("mlp", "cnn")}
    made = product(tops, ["lr", "model"])
    (failed, *_) = made.runs.index[(made.runs.lr == 1.0) & (made.runs.model == "cnn")]
    effect = effects.measure(fails(made, failed)).set_index(["option", "value"])
    assert effect.score_change["lr", 1.0] == pytest.approx(0, abs=1) and (effect.loc["lr"].settings == 1).all()
    notes = effects.table(made, effects.measure(made)).notes
    assert any("only some runs learned: " in note for note in notes)
    (other, *_) = made.runs.index[(made.runs.lr == 1.0) & (made.runs.model == "mlp")]
    both = fails(made, other)  # so lr 1 has results, but is not compared
    assert not any("Values without a result" in note for note in effects.table(both, effects.measure(both)).notes)


def test_the_best_that_can_be_compared_is_not_called_the_best_with_several_seeds():
    """The setting above it has as many; some of its runs did not learn."""
    tops = {"above": (0.9, 0.9, 0.9, 0.9), "best": (0.6,) * 4, "next": (0.5,) * 4}
    made = section({name: [(line(top, 0, 1e-3, 7 * place + seed), line(*FLAT)) for seed, top in enumerate(of_one)]
                    for place, (name, of_one) in enumerate(tops.items())})  # fmt: skip
    made = fails(made, "above-0")
    frame = contrasts.compare(made)
    assert contrasts.reference(frame.set_index("setting")) == "best" and frame.setting[0] == "above"
    said = " ".join(answers.sentences(None, made))
    assert "**best** has the highest validation accuracy of the settings that can be compared" in said
    assert "only some of their runs learned" in comparison.reference_note("best")
    assert brief.recommendation(None, made).startswith("Train more seeds of **above** first: ")
    lost = made.points[made.points.setting == "above"].assign(state="diverged", fingerprint="lost")
    unsafe = replace(made, points=pd.concat([made.points, lost], ignore_index=True))
    assert "Train more seeds" not in brief.recommendation(None, unsafe), "of what diverges half of the time"
    made = fails(made, "above-1")  # now its mean is below that of the others, though not that of the runs that learned
    assert contrasts.compare(made).setting[0] == "best"
    assert "above" in brief.recommendation(None, made)


def test_what_decides_between_equal_settings_does_not_lead_to_one_whose_runs_failed():
    """A smaller network is chosen among equals, but not if half of its runs diverged; the best one is then."""
    made = section({name: [(line(0.7 - place / 1e3, 0, 1e-3, 7 * place + seed), line(*FLAT)) for seed in range(5)]
                    for place, name in enumerate(("large", "small"))}, params={"large": 9e6, "small": 1e6})  # fmt: skip
    assert "Use **small**" in brief.recommendation(None, made)
    lost = made.points[made.points.setting == "small"].assign(state="diverged", fingerprint="lost")
    half = replace(made, points=pd.concat([made.points, lost], ignore_index=True))
    said = brief.recommendation(None, half)
    assert "small has the highest accuracy" not in said and "large" in said
    lost = made.points[made.points.setting == "large"].assign(state="diverged", fingerprint="lost")
    half = replace(made, points=pd.concat([made.points, lost], ignore_index=True))
    assert "Use **small**" in brief.recommendation(None, half), "the one that is chosen lost none"


def test_seconds_to_an_accuracy_are_those_of_its_epochs_whoever_was_timed():
    """Runs of the same work have one time per epoch, also those whose own time does not count."""
    made = section({"a": [(line(0.5, slope), line(*FALLING)) for slope in (0.02, 0.01)],
                    "b": [(line(0.4, 0.012), line(*FALLING))] * 2})  # fmt: skip
    shared = np.where(made.runs.index == "a-0", 1, 2)
    made = replace(made, runs=made.runs.assign(device_shared_by=shared))
    frame = speed.table(made).frame.set_index("setting")
    for setting in "ab":
        for name in (column.removeprefix("reached_") for column in frame if column.startswith("reached_")):
            if frame[f"reached_{name}"][setting] == 2:
                assert frame[f"seconds_{name}"][setting] == pytest.approx(2 * frame[f"epochs_{name}"][setting])


def test_a_run_without_epochs_has_no_trend():
    made = section({"network": [(line(0.5, 0.01), line(*FALLING))] * 2, "svm": [(line(0.7, 0.0), line(*FLAT))] * 2})
    made.runs.loc[made.runs.setting == "svm", ["iterations", "last/epoch"]] = np.nan, 1
    made = replace(made, history=made.history[(made.history.setting != "svm") | (made.history.epoch == 1)])
    assert list(endings.verdicts(made).setting) == ["network"]


@pytest.mark.parametrize("seeds", [1, 3])
def test_one_seed_is_given_as_the_reason_only_where_there_is_one(seeds):
    """Without a pair that can be compared, nothing is answered; that there is one seed is said where it is so."""
    curves = {name: [(line(top, 0, 1e-3, seed), line(*FLAT)) for seed in range(seeds)]
              for name, top in {"low": 0.7, "high": 0.8}.items()}  # fmt: skip
    ways = {"pretrained": {"low": True, "high": True}, "augment": {"low": "", "high": ""}}
    assert transfer.answers(section(curves, **ways, finetune={"low": "all", "high": "all"})) == [], "one way"
    two = section(curves, **ways, finetune={"low": "head", "high": "all"})
    assert any("With one seed" in said for said in transfer.answers(two)) == (seeds == 1)
    if seeds > 1:
        failed = fails(two, "low-0", "high-0")
        assert not any("With one seed" in said for said in transfer.answers(failed)) and transfer.answers(failed)

    made = product({(0.01, "mlp"): 0.7, (0.1, "mlp"): 0.8}, ["lr", "model"])
    made = replace(made, runs=made.runs[made.runs.seed < seeds], points=made.points[made.points.seed < seeds])
    made = fails(made, *made.runs.index[made.runs.seed == 1])
    (said,) = (block.text for block in changes.blocks(None, made, {}) if isinstance(block, Paragraph))
    assert ("With one seed" in said) == (seeds == 1)


def test_values_are_in_the_order_of_numbers_and_others_as_they_come():
    mixed = pd.Series([Listed([200]), 50, Listed([100, 30]), None, 100.0, 50], dtype=object)
    assert effects.ordered(mixed) == [50, 100.0, (100, 30), (200,), None]
    assert effects.ordered(pd.Series(["relu", "elu", "tanh"])) == ["relu", "elu", "tanh"]
    assert effects.ordered(pd.Series([True, False], dtype=object)) == [True, False]


def test_all_single_changes_of_a_product_are_listed():
    tops = {(hidden, lr, model): 0.7 + 0.1 * (lr == 0.1) + 0.01 * (model == "cnn")
            for hidden in (Listed([50]), Listed([200]), Listed([20]))
            for lr in (0.1, 0.01) for model in ("mlp", "cnn")}  # fmt: skip
    made = product(tops, ["hidden", "lr", "model"])
    frame = changes.one_at_a_time(made)
    assert frame.option.value_counts().to_dict() == {"hidden": 12, "lr": 6}, "every pair, the network apart"
    assert set(zip(frame.before, frame.after, strict=True)) == {
        ((20,), (50,)), ((20,), (200,)), ((50,), (200,)), (0.01, 0.1),
    }, "from low to high, as in the table of effects"  # fmt: skip
    assert (frame.p_holm[frame.option == "lr"] < 0.05).all() and (frame.p_holm[frame.option == "hidden"] > 0.05).all()
    (said,) = (block.text for block in changes.blocks(None, made, {}) if isinstance(block, Paragraph))
    assert "6 changes help (p < 0.05)" in said and "12 of the 18 changes" in said and "averaged over the others" in said
    larger = {(*values, batch): top for values, top in tops.items() for batch in (32, 64)}
    assert changes.one_at_a_time(product(larger, ["hidden", "lr", "model", "batch_size"])).empty, "48 of them"


def test_values_are_shown_as_they_are_in_tables():
    tops = {(batch, stop): 0.7 for batch in (32, 64) for stop in (None, 5)}
    made = product(tops, ["batch_size", "early_stopping"])
    table = effects.table(made, effects.measure(made))
    assert [row[1].text for row in table.rows] == ["32", "64", "5", "none"]
    (table,) = (block for block in changes.blocks(None, made, {}) if isinstance(block, Table))
    texts = {cell.text for row in table.rows for cell in row}
    assert {"batch size 64 (instead of 32)", "early stopping none (instead of 5)"} <= texts
    made = product({(name,): top for name, top in (("none", 0.7), ("cosine", 0.8), ("step", 0.6))}, ["schedule"])
    with language("es"):
        assert shown_value("schedule", "none") == "ninguno"
        assert shown(Setting((("schedule", "none"),))) == "tasa de aprendizaje constante"


@pytest.mark.parametrize(
    ("better", "said"),
    [
        (0.1, "One change helps (p < 0.05): lr 0.1 (instead of 0.01) for lr 0.01, mlp"),
        (0.0, "There is no clear evidence of an effect on the accuracy of the one change"),
    ],
)
def test_a_single_change_is_one(better, said):
    made = product({(0.01, "mlp"): 0.7, (0.1, "mlp"): 0.7 + better, (0.1, "cnn"): 0.8}, ["lr", "model"])
    (text,) = (block.text for block in changes.blocks(None, made, {}) if isinstance(block, Paragraph))
    assert text.startswith(said) and "averaged over the others" not in text
    with language("es"):
        (text,) = (block.text for block in changes.blocks(None, made, {}) if isinstance(block, Paragraph))
        assert text.startswith("Un cambio ayuda (p < 0,05): tasa" if better else "No hay indicios claros de un efecto")


def test_key_value_pairs_are_written_as_words():
    sgd = Setting((("optimizer", "sgd"), ("lr", 0.005), ("momentum", 0.5)))
    tops = {sgd: 0.7, Setting((("optimizer", "adam"), ("lr", 0.005))): 0.9}
    made = product({(pairs, rate): top for pairs, top in tops.items() for rate in (0.0, 0.5)}, ["pairs", "dropout"])
    (said,) = effects.answer(made)
    assert ": optimizer adam, lr 0.005 instead of optimizer sgd, lr 0.005, momentum 0.5 changes the valid" in said
    table = effects.table(made, effects.measure(made))
    assert [row[1].text for row in table.rows][:2] == [
        "optimizer sgd, lr 0.005, momentum 0.5",
        "optimizer adam, lr 0.005",
    ]
    with language("es"):
        assert (
            ": optimizador adam · tasa de aprendizaje 0,005 en vez de optimizador sgd · tasa" in effects.answer(made)[0]
        )
    axes = space.heat_map(contrasts.compare(made), made.varied, "Title").axes[0]
    assert "=" not in "".join(text.get_text() for text in axes.get_xticklabels() + axes.get_yticklabels())


@pytest.mark.parametrize(
    ("train", "said"), [((0.95, 0.80), "and learns less"), ((0.90, 0.95), "its gap to validation is wider")]
)
def test_a_part_that_is_more_than_the_whole_is_said_in_other_words(train, said):
    seeds = [line(0.8, 0, 1e-3, seed) for seed in range(4)], [line(0.7, 0, 1e-3, seed) for seed in range(4)]
    made = section(
        {name: [(accuracy, line(*FLAT)) for accuracy in found] for name, found in zip("ab", seeds, strict=True)},
        **{"best/train_acc": dict(zip("ab", train, strict=True))},
    )
    texts = [text for block in training.blocks(None, made, {}) for text in getattr(block, "texts", [])]
    assert any(said in text for text in texts)


def test_times_of_other_machines_are_left_out_and_said_to_be():
    curves = {name: [(line(0.7, 0), line(*FLAT))] * 2 for name in "abc"}
    device = {"a": "cpu", "b": "NVIDIA H100", "c": "NVIDIA H100"}
    made = section(curves, device=device, host={"a": "x", "b": "y", "c": "z"})
    frame = costs.measure(made).set_index("setting")
    assert np.isnan(frame.epoch_seconds["a"]) and frame.epoch_seconds["b"] == frame.epoch_seconds["c"] == 2
    (table,) = (block for block in costs.blocks(None, made, {}) if hasattr(block, "notes"))
    assert "runs on NVIDIA H100" in table.notes[1] and "runs on Fast (2 cores) of host x" in table.notes[2]


def test_what_diverged_is_said_beside_what_is_best():
    a, b = (Setting((("model", name),)) for name in "ab")
    tops = {a: (0.8, 0.801), b: (0.7, 0.7, 0.7)}
    made = section({name: [(line(top, 0), line(*FLAT)) for top in found] for name, found in tops.items()})
    lost = pd.DataFrame({"setting": [a], "seed": [2], "fingerprint": ["a-2"], "state": ["diverged"]})
    made = replace(made, points=pd.concat([made.points, lost]))
    assert "1 of the 3 runs of a diverged" in answers.sentences(None, made)[0]
    assert made.missing == ["a, seed 2 (diverged)"]
    assert comparison.table(made).rows[0][1].text == "2 of 3"
    more = pd.DataFrame(
        {
            "setting": [a, b, b],
            "seed": [3, 3, 4],
            "fingerprint": ["a-3", "b-3", "b-4"],
            "state": ["diverged"] * 3,
        }
    )
    made = replace(made, points=pd.concat([made.points, more]))
    for lang, words in (
        ("en", ("2 of the 4 runs of a diverged: its mean is only that of the others", "b (2 of 5)")),
        ("es", ("2 de las 4 ejecuciones de «a» divergieron: su media es solo la de las demás", "b (2 de 5)")),
    ):
        with wording.language(lang):
            assert all(part in answers.headline(None, made) for part in words)


def test_the_best_setting_is_that_of_the_best_mean():
    tops = {"lucky": (0.9, 0.5), "good": (0.8, 0.8)}
    made = section({name: [(line(top, 0), line(*FLAT)) for top in found] for name, found in tops.items()})
    assert list(best_of_settings(made).setting) == ["good", "lucky"] == list(contrasts.compare(made).setting)
