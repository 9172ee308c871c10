"""The texts of settings that are ranked by another metric than accuracy: those that would otherwise name accuracy.

python -c "from analysis.wording.texts import ranked_by, text
with ranked_by('val/macro_f1'): print(text('has the highest validation accuracy'))"
"""

from analysis.wording.catalogue import mark

METRICS = {
    "val/acc": mark("validation accuracy"),
    "val/loss": mark("validation likelihood"),
    "val/macro_f1": mark("validation macro F1"),
    "val/balanced_acc": mark("validation balanced accuracy"),
    "val/top2": mark("validation top-2 accuracy"),
    "val/top5": mark("validation top-5 accuracy"),
}
"""What settings are ranked by; a metric without a row is called by its key."""

RANKED = {
    # headers and titles
    "Best val acc (%)": mark("Best {metric} (%)"),
    "Test acc (%)": mark("Same metric on test images (%)"),
    "Val acc at the last epoch (%)": mark("Last {metric} (%)"),
    "Test accuracy": mark("Same metric on test images"),
    "Accuracy of each setting: {name}": mark("Ranking of the settings by {metric}: {name}"),
    "Accuracy by {option}: {name}": mark("Ranking by {metric}, by {option}: {name}"),
    "Validation accuracy over two options: {name}": mark("Two options, by {metric}: {name}"),
    "Accuracy against costs: {name}": mark("Ranking by {metric}, against costs: {name}"),
    "Accuracy and costs: {name}": mark("Ranking by {metric}, and costs: {name}"),
    "Accuracy against {cost}": mark("Ranking by {metric}, against {cost}"),
    # what a run has reached
    "stopped by its sweep after epoch {epoch:.0f}, best val acc {val:.2f} %": mark(
        "stopped by its sweep after epoch {epoch:.0f}, best {metric} {val:.2f} %"
    ),
    "Dashed grey lines are runs that their sweep stopped, at the best accuracy reached until then.": mark(
        "Dashed grey lines are runs that their sweep stopped, at the best {metric} reached until then."
    ),
    "Gap: accuracy on training images (at most as many as there are validation images) minus accuracy on validation "
    "images, both without dropout or augmentation, at the epoch with the best validation accuracy and at the last "
    "epoch. Loss gap: validation minus training. The wider the gap, the more of what was learned holds for the "
    "training images only.": mark(
        "Gap: accuracy on training images (at most as many as there are validation images) minus accuracy on "
        "validation images, both without dropout or augmentation, at the epoch with the best {metric} and at the last "
        "epoch. Loss gap: validation minus training. The wider the gap, the more of what was learned holds for the "
        "training images only."
    ),
    # the recommendation
    "No recommendation: {best} has the highest mean, but over the seeds that both have, it is clearly less accurate "
    "than {others}.": mark(
        "No recommendation: {best} has the highest mean, but over the seeds that both have, it is clearly worse than "
        "{others}."
    ),
    "No recommendation: {setting} has the highest accuracy, but {lost} of its {all} runs diverged or failed.": mark(
        "No recommendation: {setting} is best by {metric}, but {lost} of its {all} runs diverged or failed."
    ),
    "Use **{setting}**: it is clearly more accurate than the only setting that can be compared with it, by "
    "{lead}{besides}.": mark(
        "Use **{setting}**: by {metric}, it is clearly better than the only setting that can be compared with it, by "
        "{lead}{besides}."
    ),
    "Use **{setting}**: it is clearly more accurate than the {n} settings that can be compared with it "
    "(smallest lead: {lead}){besides}.": mark(
        "Use **{setting}**: by {metric}, it is clearly better than the {n} settings that can be compared with it "
        "(smallest lead: {lead}){besides}."
    ),
    "Use **{setting}**: it is clearly more accurate than the other setting, by {lead}{besides}.": mark(
        "Use **{setting}**: by {metric}, it is clearly better than the other setting, by {lead}{besides}."
    ),
    "Use **{setting}**: it is clearly more accurate than the {n} others (smallest lead: {lead}){besides}.": mark(
        "Use **{setting}**: by {metric}, it is clearly better than the {n} others (smallest lead: {lead}){besides}."
    ),
    "Use **{setting}**: no setting is clearly more accurate, and {why}.": mark(
        "Use **{setting}**: no setting is clearly better by {metric}, and {why}."
    ),
    "Use **{setting}**: its accuracy is not clearly below the highest ({points:.2f} ± {spread:.2f} points "
    "less than {best}), and {why}.": mark(
        "Use **{setting}**: by {metric}, it is not clearly below the best ({points:.2f} ± {spread:.2f} points less "
        "than {best}), and {why}."
    ),
    "Accuracy does not decide: **{setting}** has the highest mean, but is not clearly better than {settings}.": mark(
        "The metric ({metric}) does not decide: **{setting}** has the highest mean, but is not clearly better than "
        "{settings}."
    ),
    "Accuracy does not decide: of the settings that can be compared, **{setting}** has the highest mean, but is not "
    "clearly better than {settings}.": mark(
        "The metric ({metric}) does not decide: of the settings that can be compared, **{setting}** is best, but not "
        "clearly better than {settings}."
    ),
    "Accuracy does not decide: the mean of **{setting}** is not clearly higher than that of {settings}.": mark(
        "The metric ({metric}) does not decide: **{setting}** is not clearly better than {settings}."
    ),
    "Clearly less accurate: {settings}.": mark("Clearly worse: {settings}."),
    # the answer
    "Accuracy": mark("Ranking"),
    "Clearly worse than {setting} (p < 0.05): {others}.": mark(
        "Clearly worse than {setting} by {metric} (p < 0.05): {others}."
    ),
    "Lower than {setting} on average, but neither shown to be worse nor to be as good (to within {smallest:g} points): "
    "{others}.": mark(
        "Lower than {setting} by {metric} on average, but neither shown to be worse nor to be as good (to within "
        "{smallest:g} points): {others}."
    ),
    "**{setting}** reached a validation accuracy of {val} and, on the test images, {test} ({n} seed). There is no "
    "other setting to compare it with.": mark(
        "**{setting}** reached {val} ({metric}) and, on the test images, {test} ({n} seed). There is no other setting "
        "to compare it with."
    ),
    "**{setting}** reached a validation accuracy of {val} and, on the test images, {test} ({n} seeds). There is "
    "no other setting to compare it with.": mark(
        "**{setting}** reached {val} ({metric}) and, on the test images, {test} ({n} seeds). There is no other setting "
        "to compare it with."
    ),
    "has the highest validation accuracy": mark("is best by {metric}"),
    "has the highest validation accuracy, together with {others}": mark("is best by {metric}, together with {others}"),
    "has the highest validation accuracy of the settings that can be compared": mark(
        "is best by {metric} of the settings that can be compared"
    ),
    "The other setting has the same mean validation accuracy as **{setting}**, {val} over {seeds} seeds.": mark(
        "By {metric}, the other setting is equal to **{setting}**, {val} over {seeds} seeds."
    ),
    "All {n} other settings have the same mean validation accuracy as **{setting}**, {val} over {seeds} seeds.": mark(
        "By {metric}, all {n} other settings are equal to **{setting}**, {val} over {seeds} seeds."
    ),
    "Over the seeds that both have, it is clearly less accurate than {others}.": mark(
        "Over the seeds that both have, it is clearly worse than {others}."
    ),
    "**{setting}** is ahead: its validation accuracy is {val} ({n} seed), {points:.2f} points above {other}; "
    "on the test images it reaches {test}. No two settings have several seeds and learn with all of them, so "
    "it is not known whether this is more than luck.": mark(
        "**{setting}** is ahead by {metric}: {val} ({n} seed), {points:.2f} points above {other}; on the test images "
        "it reaches {test}. No two settings have several seeds and learn with all of them, so it is not known whether "
        "this is more than luck."
    ),
    "**{setting}** is ahead: its validation accuracy is {val} ({n} seeds), {points:.2f} points above {other}; "
    "on the test images it reaches {test}. No two settings have several seeds and learn with all of them, so "
    "it is not known whether this is more than luck.": mark(
        "**{setting}** is ahead by {metric}: {val} ({n} seeds), {points:.2f} points above {other}; on the test images "
        "it reaches {test}. No two settings have several seeds and learn with all of them, so it is not known whether "
        "this is more than luck."
    ),
    "With one seed each, **{setting}** is ahead: its validation accuracy is {val}, {points:.2f} points above "
    "{other}; on the test images it reaches {test}. It is not known whether this is more than the luck of a "
    "seed.": mark(
        "With one seed each, **{setting}** is ahead by {metric}: {val}, {points:.2f} points above {other}; on the test "
        "images it reaches {test}. It is not known whether this is more than the luck of a seed."
    ),
    "With one seed each, **{settings}** share the highest validation accuracy, {val}; on the test images "
    "{setting} reaches {test}. It is not known whether this is more than the luck of a seed.": mark(
        "With one seed each, **{settings}** share the best value by {metric}, {val}; on the test images {setting} "
        "reaches {test}. It is not known whether this is more than the luck of a seed."
    ),
    "Higher on average on the test images, which may be noise: {other}.": mark(
        "Better on average on the test images, which may be noise: {other}."
    ),
    # the comparison
    "Best validation accuracy: the mean over seeds with its 95 % interval (Student t); single seeds are drawn pale. "
    "The diamond is the mean test accuracy of the same weights.": mark(
        "Best {metric}: the mean over seeds with its 95 % interval (Student t); single seeds are drawn pale. The "
        "diamond is the mean of the same metric on the test images, with the same weights."
    ),
    "Best validation accuracy, one seed per setting. The diamond is the test accuracy of the same weights.": mark(
        "Best {metric}, one seed per setting. The diamond is the same metric on the test images, for these weights."
    ),
    "Mean ± half the 95 % interval over seeds (Student t), for each setting alone: how much results vary between "
    "repeats. The ± is never smaller than rounding to whole images allows. Settings are ranked by best validation "
    "accuracy; it is the best of all epochs and so a little optimistic; the test accuracy is not.": mark(
        "Mean ± half the 95 % interval over seeds (Student t), for each setting alone: how much results vary between "
        "repeats. The ± is never smaller than rounding to whole images allows. The best epoch and the ranking follow "
        "{metric}; it is that of the best epoch and so a little optimistic; the test is not."
    ),
    "Test accuracy: ± over seeds; in brackets, the 95 % sampling interval of the test images (Wilson). p test "
    "compares it with that of the best setting, in the same way and corrected for all pairs too; it is another family, "
    "which checks the choice but does not make it.": mark(
        "Same metric on test images: ± over seeds. p test compares it with that of the best setting, in the same way "
        "and corrected for all pairs too; it is another family, which checks the choice but does not make it."
    ),
    "A single seed says nothing about the spread between seeds, so there is no ± and no p over seeds; the brackets "
    "hold the 95 % sampling interval of the test images (Wilson).": mark(
        "A single seed says nothing about the spread between seeds, so there is no ± and no p over seeds."
    ),
    # options, changes and costs
    "{value} instead of {first} changes the validation accuracy by {change:+.2f} ± {spread:.2f} points": mark(
        "{value} instead of {first} changes the {metric} by {change:+.2f} ± {spread:.2f} points"
    ),
    "Averaged over the other options, there is no clear evidence of an effect on the accuracy or the gap: "
    "{options}.": mark(
        "Averaged over the other options, there is no clear evidence of an effect on the {metric} or the gap: "
        "{options}."
    ),
    "No clear evidence of an effect on the accuracy, on average: {options}.": mark(
        "No clear evidence of an effect on the {metric}, on average: {options}."
    ),
    "± is half the interval over seeds, paired by seed where the values start from the same weights and see the images "
    "in the same order, otherwise Welch's, with moderated variances. ± and p (Holm) are corrected for all changes in "
    "this table, of the accuracy and of the gap: the risk of a false claim is about 5 % for the whole table. A change "
    "in a single combination is a difference between two settings; its ± and p are those of the comparison.": mark(
        "± is half the interval over seeds, paired by seed where the values start from the same weights and see the "
        "images in the same order, otherwise Welch's, with moderated variances. ± and p (Holm) are corrected for all "
        "changes in this table, of the {metric} and of the gap: the risk of a false claim is about 5 % for the whole "
        "table. A change in a single combination is a difference between two settings; its ± and p are those of the "
        "comparison."
    ),
    "Differences are in the best validation accuracy. Test accuracy is that of the best epoch. Linear probe and "
    "silhouette measure how separable the classes are in the features themselves ({layer}) of the best run of each "
    "setting. Seconds are those of a whole training with its validation; those of an SVM include the extraction of its "
    "features, even if other runs share them.": mark(
        "Differences are in the best {metric}. The test is that of the best epoch. Linear probe and silhouette measure "
        "how separable the classes are in the features themselves ({layer}) of the best run of each setting. Seconds "
        "are those of a whole training with its validation; those of an SVM include the extraction of its features, "
        "even if other runs share them."
    ),
    "Each row changes one option of a setting, other than the network: by how many points the best validation accuracy "
    "changes, and the gap between training and validation at the end.": mark(
        "Each row changes one option of a setting, other than the network: by how many points the best {metric} "
        "changes, and the gap between training and validation accuracy at the end."
    ),
    "For {n} of the {all} changes there is no clear evidence of an effect on the accuracy (p ≥ 0.05).": mark(
        "For {n} of the {all} changes there is no clear evidence of an effect on the {metric} (p ≥ 0.05)."
    ),
    "There is no clear evidence of an effect on the accuracy of the one change (p ≥ 0.05).": mark(
        "There is no clear evidence of an effect on the {metric} of the one change (p ≥ 0.05)."
    ),
    "There is no clear evidence of an effect on the accuracy of any of the {n} changes on its own (p ≥ 0.05).": mark(
        "There is no clear evidence of an effect on the {metric} of any of the {n} changes on its own (p ≥ 0.05)."
    ),
    "Best validation accuracy of each setting (mean over seeds) against its cost. The dashed line and black rings mark "
    "the Pareto front of the means (may be noise): no setting is more accurate at the same cost or less.": mark(
        "Best {metric} of each setting (mean over seeds) against its cost. The dashed line and black rings mark the "
        "Pareto front of the means (may be noise): no setting is better at the same cost or less."
    ),
    "{setting} is on average both the most accurate setting and the cheapest in {cost}.": mark(
        "{setting} is on average both the best setting by {metric} and the cheapest in {cost}."
    ),
    "Measured in {cost}, no cheaper setting is on average as accurate as {settings} (the Pareto front). On it, "
    "{dearest} is {points:.2f} points more accurate than {cheapest}, for {times:,.1f} times its cost in {cost}.": mark(
        "Measured in {cost}, no cheaper setting is on average as good by {metric} as {settings} (the Pareto front). On "
        "it, {dearest} is {points:.2f} points better than {cheapest}, for {times:,.1f} times its cost in {cost}."
    ),
    "Best validation accuracy: the mean over seeds with its 95 % interval (Student t); single seeds are drawn "
    "pale.": mark(
        "Best {metric}: the mean over seeds with its 95 % interval (Student t); single seeds are drawn pale."
    ),
    "Best val acc, test acc": mark("Best {metric}, same metric on test images"),
    "The best validation accuracy of all epochs, by which settings are ranked; it is a little optimistic. The test "
    "accuracy is that of the same weights on images used only once.": mark(
        "The best {metric} of all epochs, by which settings are ranked; it is a little optimistic. The test is that of "
        "the same weights on images used only once."
    ),
    "Best validation accuracy of one seed.": mark("Best {metric} of one seed."),
    "Best validation accuracy in percent: mean over seeds ± half the 95 % interval. Cells without a result are "
    "empty.": mark(
        "Best {metric} in percent: mean over seeds ± half the 95 % interval. Cells without a result are empty."
    ),
    "Best validation accuracy of one seed, in percent. Cells without a result are empty.": mark(
        "Best {metric} of one seed, in percent. Cells without a result are empty."
    ),
    "One line per setting, coloured by its best validation accuracy, which has a linear scale. Values of options are "
    "evenly spaced; numbers that were drawn at random, or have many values, are placed by size, on a logarithmic scale "
    "if the largest is at least {span} times the smallest.": mark(
        "One line per setting, coloured by its best {metric}, which has a linear scale. Values of options are evenly "
        "spaced; numbers that were drawn at random, or have many values, are placed by size, on a logarithmic scale if "
        "the largest is at least {span} times the smallest."
    ),
    "Share of each option alone in the variance of the best validation accuracy between {settings} settings: "
    "functional ANOVA of a random forest (Optuna); the rest up to 100 % is interaction. For settings that it has not "
    "seen, the forest explains {fit:.0f} % of the variance (R², cross-validated).": mark(
        "Share of each option alone in the variance of the best {metric} between {settings} settings: functional ANOVA "
        "of a random forest (Optuna); the rest up to 100 % is interaction. For settings that it has not seen, the "
        "forest explains {fit:.0f} % of the variance (R², cross-validated)."
    ),
}
"""The texts that name accuracy where settings are ranked by it, each with the one for any other metric.

A text that is about accuracy whatever the ranking, such as the gap to the training images, is not among them.
"""
