"""All that a run needs, checked before anything is written: settings, data, weights, cluster."""

import contextlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from tlcluster.backbones import BACKBONES
from tlcluster.cinic10 import SPLITS
from tlcluster.dataset.sample import fill_with_sample
from tlcluster.dataset.shards import Index, check_complete, read_index
from tlcluster.errors import StoreUnavailable, UserError
from tlcluster.experiments import Experiment
from tlcluster.orchestration.admission import Admission, admit
from tlcluster.orchestration.cluster import given_address, local_nodes, ray_cluster
from tlcluster.orchestration.environment import refuse_passwords
from tlcluster.orchestration.replicates import Replicate, replicates
from tlcluster.paths import typed
from tlcluster.recipes import Recipe
from tlcluster.records import NodeRecord, RunManifest
from tlcluster.settings import EMBEDDED, MOST_THREADS, RunSettings, worker_range
from tlcluster.storage.cache import NodeCache
from tlcluster.storage.embedded import embedded_store
from tlcluster.storage.open import open_store
from tlcluster.storage.protocol import Store
from tlcluster.storage.scratch import scratch_folder
from tlcluster.training.weights import Weights, find_weights

PUBLISHED_WEIGHTS_ONLY = ("paper",)
"""Profiles whose results are compared with others': they take no 8-bit copy unless it is named."""

JOB_FOLDERS = "working_dir_files"
"""Where Ray keeps the folders of jobs that were submitted to it, on every node."""


@dataclass(frozen=True)
class Ready:
    """What a run needs, all of it checked."""

    settings: RunSettings
    """With a run name."""
    recipe: Recipe
    store: Store
    index: Index
    index_sha256: str
    weights: dict[str, Weights]
    """Base → its weights, the first experiment's base first."""
    nodes: tuple[NodeRecord, ...]
    admission: Admission
    counts: Mapping[str, int] = field(default_factory=dict)
    """Experiment → how many seeds it has after a look of `--resolve`. Before the first look it is
    empty: all have those of `--seeds`."""

    @property
    def seeds(self) -> tuple[int, ...]:
        """All seeds of the run as it is now, the first of them first."""
        settings = self.settings
        return settings.possible_seeds[: max([len(settings.all_seeds), *self.counts.values()])]

    @property
    def experiments(self) -> tuple[Experiment, ...]:
        """The experiments to train, in the order of the report."""
        return self.recipe.chosen

    @property
    def replicates(self) -> tuple[Replicate, ...]:
        """What is trained now: each experiment with each seed, in the order of the report."""
        only = self.settings.only_seed
        return replicates(self.experiments, self.seeds, only, self.counts)

    @property
    def possible_keys(self) -> frozenset[str]:
        """The keys of all that may be trained, also after further looks of `--resolve`."""
        settings = self.settings
        found = replicates(self.experiments, settings.possible_seeds, settings.only_seed)
        return frozenset(one.key for one in found)

    def going_on(self, old: RunManifest | None) -> "Ready":
        """The same for a run that exists: with its number of threads, unless another is asked for.

        Runs of version 0.1.0 did not record it.
        """
        known = old.settings.get("threads") if old else None
        if self.settings.threads is not None or not isinstance(known, int):
            return self
        if not 1 <= known <= MOST_THREADS:
            return self  # nobody's record; it is refused as another setting
        return replace(self, admission=self.admission._replace(threads=known))

    @property
    def shown_store(self) -> str:
        """The embedded store's address is another one every time; its name says more."""
        return EMBEDDED if self.settings.store == EMBEDDED else self.store.url


def made_ready(
    settings: RunSettings, stack: contextlib.ExitStack, *, download: bool = True
) -> Ready:
    """Check everything that is given; start the embedded store and Ray where they are asked for.

    A dry run starts neither, and downloads no weights.

    Args:
        settings: of the run.
        stack: ends what is started.
        download: whether weights that are on no disk are downloaded.
    """
    settings = settings.named()
    refuse_passwords()
    refuse_to_lose(settings.output)
    if "://" in settings.output:
        # Also for a dry run, which would otherwise show what it does not look at.
        open_store(settings.output, check=False)
    recipe = settings.recipe()
    store = stack.enter_context(opened_store(settings))
    index, index_sha256 = checked_index(store, recipe.chosen)
    weights = find_weights(
        dict.fromkeys(experiment.base for experiment in recipe.chosen),
        settings.weights,
        store,
        download=download and not settings.dry_run,
        fall_back=settings.profile not in PUBLISHED_WEIGHTS_ONLY,
    )
    address = given_address(settings.address)
    if address is None and not settings.dry_run:
        settings = with_cache(settings, store, stack)
    if settings.dry_run and address is None:
        nodes = local_nodes()
    else:
        nodes = stack.enter_context(ray_cluster(address))
    if settings.store == EMBEDDED and len(nodes) > 1:
        raise UserError(
            f"--store {EMBEDDED}: this cluster has {len(nodes)} nodes, and the embedded store "
            f"is on one; fill a store that all nodes reach with {typed('ingest')} and name it"
        )
    admission = admit(
        nodes,
        len(replicates(recipe.chosen, settings.all_seeds, settings.only_seed)),
        worker_range(settings.workers),
        settings.cpus_per_worker,
        settings.gpus_per_worker,
        settings.threads,
    )
    return Ready(
        settings,
        recipe,
        store,
        index,
        index_sha256,
        weights,
        nodes,
        admission,
    )


def refuse_to_lose(output: str) -> None:
    """A job that is submitted to Ray works in a copy of a folder that is deleted after it.

    Raises:
        UserError: the output would be in there, where no other node sees it either.
    """
    if "://" not in output and JOB_FOLDERS in Path(output).absolute().parts:
        raise UserError(
            f"--output {output}: a job's working directory is deleted when the job is over; name "
            "s3://BUCKET/PREFIX, or a directory that all nodes reach by its absolute path"
        )


def with_cache(settings: RunSettings, store: Store, stack: contextlib.ExitStack) -> RunSettings:
    """The settings with a cache folder that this account can write here, if one is needed.

    Containers and batch systems often have a home that cannot be written, or none. The default
    folder is then a temporary one, which goes with the run.

    Raises:
        UserError: `--cache` names a folder that cannot be written.
    """
    if "://" not in store.url:
        return settings
    try:
        NodeCache(Path(settings.cache) if settings.cache else None).check()
    except (UserError, StoreUnavailable):
        if settings.cache:
            raise
        temporary = Path(tempfile.gettempdir())
        folder = stack.enter_context(scratch_folder("cache", temporary))
        return settings.model_copy(update={"cache": str(folder)})
    return settings


@contextlib.contextmanager
def opened_store(settings: RunSettings) -> Iterator[Store]:
    """The store of the run. The embedded one is started, filled, and stopped at the end.

    A dry run looks at the same sample in a directory.
    """
    if settings.store != EMBEDDED:
        yield open_store(settings.store)
        return
    if "://" in settings.output:
        raise UserError(
            f"--output {settings.output}: with the embedded store the output is a directory, since "
            "both would ask one endpoint; name a directory, or a store in S3 as well"
        )
    if settings.dry_run:
        with tempfile.TemporaryDirectory(prefix="tlcluster-sample-") as folder:
            store = open_store(folder)
            fill_with_sample(store)
            yield store
        return
    with embedded_store() as embedded:
        store = open_store(embedded.url)
        fill_with_sample(store)
        yield store


def checked_index(store: Store, experiments: Iterable[Experiment]) -> tuple[Index, str]:
    """The index of a store that the experiments can be trained on, and its sha256.

    Raises:
        UserError: the store has no index, lacks a split or shard, or its images are not for
            the bases of the experiments.
    """
    index, sha256 = read_index(store)
    for split in SPLITS:
        index.shards(split)
    if len(index.classes) < 2:
        raise UserError(
            f"{store.url}: its only class is {index.classes[0]}; ingest a data set of at least 2 "
            "classes into another place"
        )
    height, width, channels = index.image_shape
    if channels != 3:
        raise UserError(
            f"{store.url}: its images have {channels} channels, and the bases take 3 (RGB); ingest "
            "the images again with this version into another place"
        )
    for experiment in experiments:
        name, base, size = experiment.name, experiment.base, experiment.input_size
        side = BACKBONES[base].smallest_side
        if 0 < size < min(height, width):
            raise UserError(
                f"{name}.input_size {size}: the images of {store.url} are {width}×{height}, and "
                f"they are only made larger; give {min(height, width)} or more, or 0 to leave them"
            )
        if 0 < size < side:
            raise UserError(
                f"{name}.input_size {size}: the base {base} takes {side} pixels a side and more; "
                f"give {side} or more"
            )
        if not size and min(height, width) < side:
            raise UserError(
                f"{store.url}: its images are {width}×{height}, and the base {base} takes {side} "
                f"pixels a side and more; set input_size to {side} or more, ingest them again with "
                f"--image-size {side} into another place, or choose experiments with another base"
            )
    check_complete(store, index)
    return index, sha256
