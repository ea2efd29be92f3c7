"""The sentences of the report: what was trained on what, what differs, and what is better."""

from collections.abc import Iterable, Sequence
from typing import Any

from tlcluster import cinic10
from tlcluster.backbones import BACKBONES
from tlcluster.experiments import EXPERIMENTS, RECIPE, Experiment
from tlcluster.report.formats import listing, percent, plain, shorten
from tlcluster.report.seeds import words
from tlcluster.report.seeds.proportions import SIGNIFICANT
from tlcluster.report.study import base_of, comparable
from tlcluster.report.trained import Run

MANY_EXPERIMENTS = 6
"""The verdict on more of them is about the best one only."""


def subject(run: Run) -> str:
    """The title: `VGG16 transfer learning on CINIC-10`."""
    name = run.manifest.dataset.name
    dataset = "CINIC-10" if name == cinic10.NAME else shorten(name, 60).strip()
    bases = dict.fromkeys(base for one in run.experiments if (base := base_of(run, one)))
    titles = [BACKBONES[base].title if base in BACKBONES else base for base in bases]
    subject = f"{listing(titles)} transfer learning" if 0 < len(titles) <= 2 else ""
    return (subject or "Transfer learning") + (f" on {dataset}" if dataset else "")


def differences(run: Run) -> list[str]:
    """What is known to differ from the study, one sentence each. Empty if nothing of the run can
    be compared with it."""
    manifest = run.manifest
    study = comparable(run)
    if not study:
        return []
    ours = [one for one in run.experiments if one.name in study]
    said = []
    kinds = {weights.kind for weights in manifest.base_weights.values()}
    if "random" in kinds:
        said.append("The models start from random weights; the study's start from ImageNet's.")
    if "imagenet-8bit" in kinds:
        said.append(
            "The models start from an 8-bit copy of the ImageNet weights; the study's start from "
            "the published ones."
        )
    published = study.values()
    for split, theirs in (
        ("train", {result.train_images for result in published}),
        ("test", {result.test_images for result in published}),
    ):
        images = manifest.dataset.splits.get(split)
        if images is not None and theirs and theirs != {images}:
            said.append(
                f"The {split} split has {images:,} images; the study's has "
                f"{listing(f'{count:,}' for count in sorted(theirs))}."
            )
    origins = {origin for one in ours for origin in one.origins}
    if origins == {"cifar"}:
        said.append(
            "Every test image comes from CIFAR-10, whose images are easier than the ImageNet "
            "ones that CINIC-10 adds and the study had."
        )
    seeds = {result.seed for result in published}
    if seeds and seeds != set(manifest.all_seeds):
        ours_ = listing(str(seed) for seed in manifest.all_seeds)
        are = "seeds are" if run.several else "seed is"
        said.append(f"The {are} {ours_}; the study's is {listing(str(s) for s in sorted(seeds))}.")
    changes = list(_recipe_changes([one.config.experiment for one in ours if one.config]))
    if changes:
        said.append(f"The recipe (profile {manifest.profile}) differs: {'; '.join(changes)}.")
    return said


def _recipe_changes(experiments: Sequence[Experiment]) -> Iterable[str]:
    """`epochs at most 8 instead of 55 (frozen, augmented)`, a field and a pair of values each."""
    for field, label in RECIPE.items():
        changed: dict[tuple[Any, Any], list[str]] = {}
        for experiment in experiments:
            ours, theirs = getattr(experiment, field), getattr(EXPERIMENTS[experiment.name], field)
            if ours != theirs:
                changed.setdefault((ours, theirs), []).append(experiment.name)
        for (ours, theirs), names in changed.items():
            where = "" if len(names) == len(experiments) > 1 else f" ({', '.join(names)})"
            yield f"{label} {plain(ours)} instead of {plain(theirs)}{where}"


def limits(run: Run) -> str:
    """What intervals and tests cover, and what they cannot say. Empty if nothing was tested."""
    seeds = {one.name: len(one.tested) for one in run.experiments if one.tested}
    return words.limits(seeds) if seeds else ""


def leaked(run: Run) -> str:
    """How many test images another split has. Empty without an audit."""
    if run.leakage is None:
        return ""
    found, images = run.leakage.duplicates, len(run.leakage.leaked)
    bound = plain(run.leakage.audit.method.bound)
    if not found:
        return f"No test image is in train or valid too (an audit with the bound {bound})."
    exact = sum(one.exact for one in found)
    other = sum(one.label != one.partner_label for one in found)
    return (
        f"{len(found):,} of {images:,} test images ({percent(len(found) / images, 2)} %) are in "
        f"train or valid too, {exact:,} with the same pixels and {len(found) - exact:,} nearly "
        f"(distance up to {bound}); {other:,} of them with another class there."
    )


def replications(run: Run) -> list[str]:
    """The verdicts on the study's figures, one sentence each. Without what differs from the study:
    that is the same for all; see `differences`."""
    study = comparable(run)
    found = {one.name: one.replication for one in run.experiments if one.replication}
    unjudged = [name for name, of in found.items() if of.interval is None]
    return [
        *(
            words.replicated(name, of, study[name].test_images, [])
            for name, of in found.items()
            if name not in unjudged
        ),
        *([words.unjudged(unjudged)] if unjudged else []),
    ]


def verdict(run: Run) -> str:
    """Which experiments are better than which, over all seeds, in words."""
    compared = run.contrasts if run.several else run.comparisons
    if not compared:
        return ""
    better: dict[str, list[str]] = {}
    level: list[tuple[str, str]] = []
    for one in compared:
        if one.p_holm >= SIGNIFICANT:
            level.append((one.a, one.b))
        else:
            winner, loser = (one.a, one.b) if one.difference > 0 else (one.b, one.a)
            better.setdefault(winner, []).append(loser)
    tested = {one.name: one.accuracy.mean for one in run.experiments if one.accuracy}
    if len(tested) > MANY_EXPERIMENTS:
        best = max(tested, key=lambda name: tested[name])
        return _best_of_many(best, better.get(best, []), len(tested) - 1)
    clauses = [
        f"{winner} is better than {listing(losers)}"
        for winner, losers in sorted(better.items(), key=lambda item: -len(item[1]))
    ]
    said = f"At the 5 % level, {'; '.join(clauses)}. " if clauses else ""
    if level:
        differ = "difference" if len(level) == 1 else "differences"
        said += f"The {differ} {listing(f'between {a} and {b}' for a, b in level)} may be chance."
    return said.strip()


def _best_of_many(best: str, worse: Sequence[str], others: int) -> str:
    if len(worse) == others:
        return f"At the 5 % level, {best} is better than all {others} others."
    if not worse:
        return f"At the 5 % level, {best} is better than none of the {others} others."
    rest = others - len(worse)
    differences = "The difference to the other one" if rest == 1 else (
        f"The differences to the other {rest}"
    )  # fmt: skip
    return f"At the 5 % level, {best} is better than {listing(worse)}. {differences} may be chance."
