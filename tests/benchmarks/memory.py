"""A long sweep of trivial trials: does trial 1,000 cost what trial 100 did, in seconds and in memory?

    python tests/benchmarks/memory.py [--trials 1000] [--peer-trials 30]

The whole of `bothways tune` but its screen: Tune, Optuna, hub, two lanes, record and MLflow, on a model of 10,000
parameters that trains for two steps, so that what is left is the platform. Seconds a trial are means over a hundred
trials; memory is what a process has to itself plus its share of the rest (Pss). The peer is the plain recipe for such
trials: a Tune function trainable that loads the same model and takes the same steps, two at a time.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from measuring import row

ROOT = Path(__file__).parents[2]
STEPS, LANES = 2, 2
SPACE = "optim.lr: {log: [1e-5, 1e-2]}\ncontrol: {optim.lr: 1e-3}\n"


def pipeline(folder: Path, trials: int) -> Path:
    """A pipeline file with rows and a model of its own."""
    from tests import tiny

    (folder / "space.yaml").write_text(SPACE)
    (folder / "pipeline.yaml").write_text(
        f"""
name: trivial
experiment:
  data: {{source: {tiny.rows_file(folder, 120)}, splits: {{train: 40, selection: 20, test: 20}}}}
  model: {{source: {tiny.model_dir()}, max_length: 24}}
  optim: {{steps: {STEPS}, batch_size: 8, lr: 1e-3, evaluate_every: {STEPS}}}
search: {{space: space.yaml, trials: {trials}, grace_steps: {STEPS}, confirm_seeds: 1}}
run: {{storage: {folder / "runs"}, lanes: {LANES}}}
"""
    )
    return folder / "pipeline.yaml"


def pss(pid: int) -> float:
    """MB of a process; 0 when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def family(pid: int) -> dict[int, str]:
    """This process and all that came of it, with their names."""
    parents, names = {}, {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            name, _, rest = (entry / "stat").read_text().partition("(")[2].rpartition(")")
            title = (entry / "cmdline").read_bytes().partition(b"\0")[0].decode()
        except OSError:
            continue
        parents[int(entry.name)], names[int(entry.name)] = int(rest.split()[1]), title or name
    found = [pid]
    for member in found:
        found += [child for child, parent in parents.items() if parent == member]
    return {member: names[member] for member in found}


class Watch(threading.Thread):
    """Looks at this process' memory every two seconds, and now and then at that of all it has started."""

    def __init__(self, ended: list[float]) -> None:
        super().__init__(daemon=True)
        self.driver: list[tuple[int, float]] = []
        self.whole: dict[str, float] = {}
        self._ended = ended
        self._over = threading.Event()

    def run(self) -> None:
        for look in itertools.count():
            if self._over.wait(2.0):
                return
            self.driver.append((len(self._ended), pss(os.getpid())))
            if look % 15 == 10:
                sizes: dict[str, float] = {}
                for member, name in family(os.getpid()).items():
                    sizes[name] = sizes.get(name, 0.0) + pss(member)
                if sum(sizes.values()) > sum(self.whole.values()):
                    self.whole = sizes

    def stop(self) -> None:
        self._over.set()
        self.join()

    def at(self, trials: int) -> float:
        """MB of this process when so many trials had ended."""
        return next((size for ended, size in self.driver if ended >= trials), self.driver[-1][1])


def ours(trials: int) -> float:
    """Prints the rows of our sweep; returns its seconds a trial."""
    from bothways.cli.tune import quiet_ray
    from bothways.config import yaml_io

    quiet_ray()
    from bothways.edges import sweep

    ended: list[float] = []

    def count(event: Any) -> None:
        if event.kind == "end":
            ended.append(event.at)

    with tempfile.TemporaryDirectory() as folder:
        file = pipeline(Path(folder), trials)
        loaded = yaml_io.load_pipeline(file, [])
        plan = sweep.plan(loaded, yaml_io.space_file(file, loaded), resume=False)
        watch = Watch(ended)
        watch.start()
        result = sweep.tune(plan, count)
        watch.stop()
        assert result.trials == trials, result
        assert not result.problems, result.problems
    part = min(100, trials // 4)
    each = [b - a for a, b in itertools.pairwise(sorted(ended[:trials]))]
    early, late = statistics.mean(each[part : 2 * part]), statistics.mean(each[-part:])
    row(what=f"s/trial: {part} to {2 * part}, last {part}", unit="s", early=early, late=late, ratio=late / early)
    before, after = watch.at(2 * part), watch.at(trials - 1)
    row(what=f"driver at {2 * part}, at the end", unit="MB", early=before, late=after, ratio=after / before, limit=1000)
    largest = sorted(watch.whole.items(), key=lambda item: -item[1])[:6]
    row(what="resident memory of the sweep", unit="MB", ours=sum(watch.whole.values()), largest=dict(largest))
    return statistics.mean(each)


def trivial(config: dict[str, Any]) -> None:
    """The peer's trial: the same model, as many steps on as many rows, one report."""
    import torch
    from ray import tune
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = AutoModelForSequenceClassification.from_pretrained(config["model"], num_labels=2)
    optimiser = torch.optim.AdamW(model.parameters(), config["lr"])
    for _ in range(STEPS):
        tokens = torch.randint(5, 30, (8, 10))
        model(input_ids=tokens, labels=tokens[:, 0] % 2).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    tune.report({"accuracy": 0.5})


def peer(trials: int) -> float:
    """Seconds a trial of the plain recipe, once its cluster is up."""
    import ray
    from ray import tune
    from ray.tune.search.optuna import OptunaSearch

    from bothways.config import Run
    from bothways.edges.ray_cluster import start_ray
    from tests import tiny

    start_ray(Run())
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        found = tune.Tuner(
            tune.with_resources(trivial, {"cpu": 1}),
            param_space={"lr": tune.loguniform(1e-5, 1e-2), "model": tiny.model_dir()},
            tune_config=tune.TuneConfig(
                search_alg=OptunaSearch(metric="accuracy", mode="max", seed=0),
                num_samples=trials,
                max_concurrent_trials=LANES,
            ),
            run_config=tune.RunConfig(storage_path=folder, name="peer", verbose=0),
        ).fit()
        seconds = time.monotonic() - began
    ray.shutdown()
    assert found.num_errors == 0
    return seconds / trials


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--trials", type=int, default=1000)
    options.add_argument("--peer-trials", type=int, default=30)
    chosen = options.parse_args()
    sys.path.insert(0, str(ROOT))  # tests/tiny.py makes the model and the rows
    mine = ours(chosen.trials)
    theirs = peer(chosen.peer_trials)
    row(what="seconds a trivial trial", ours=mine, peer=theirs, ratio=theirs / mine, unit="s")


if __name__ == "__main__":
    main()
