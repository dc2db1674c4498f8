"""One evaluation: what is asked where, which processes judge, what is written."""

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import ray

from data import storage
from data.errors import InputError
from data.manifest import read_manifest
from data.store import TokenStore
from eval.asking import ask_all, save_audio
from eval.corpus import EvalCorpus
from eval.judging import JudgeFolders, VocoderFolders, locate
from eval.tasks import TASKS
from eval.tasks.base import ENDPOINT_FORMS, Answer, Evidence, Listening, Task, Verdict
from ray_jobs.eval_endpoint import EvaluatedModel, evaluated_model, open_endpoint
from ray_jobs.eval_report import write_report
from ray_jobs.eval_worker import identify, judge, resynthesise
from ray_jobs.job import Run
from ray_jobs.recipe import Recipe, speech_rate_hz
from ray_jobs.session import start_ray

CHUNK = 12  # utterances of one Ray task: about 3 s of judging, little beside a task's own cost


def evaluate(run: Run) -> None:
    """Ask the endpoint, let the judges listen, write the report into the run's folder."""
    started = time.monotonic()
    start_ray()
    tasks = _tasks(run.recipe)
    model = evaluated_model(run)
    corpus = load_corpus(run, model)
    answers, verdicts = _collect(run, corpus, tasks, model)
    evidence = Evidence(answers, verdicts, _judges(run, tasks, corpus))
    samples = [sample for task in tasks for sample in task.samples(corpus, evidence)]
    if not samples:
        raise InputError(
            f"nothing to evaluate: {len(corpus.utterances)} test utterances and "
            f"eval.tasks={list(run.recipe.eval.tasks)} give no sample; hold out some with "
            "corpus.test, give the test split transcripts, or call tasks of the grammar as benchmarks do (asr, tts, "
            f"s2t, …; this recipe's are {', '.join(sorted(corpus.tasks))})"
        )
    write_report(run, corpus, samples, evidence.judges, model, started)


def _tasks(recipe: Recipe) -> list[Task]:
    unknown = sorted(set(recipe.eval.tasks) - set(TASKS))
    if unknown:
        raise InputError(f"eval.tasks names {unknown}: choose from {sorted(TASKS)}")
    return [TASKS[name] for name in recipe.eval.tasks]


def load_corpus(run: Run, model: EvaluatedModel) -> EvalCorpus:
    """The test split with its codes, and what the recipe's model can be asked."""
    manifest = storage.join(run.inputs["prepare"], "manifest.jsonl")
    everything = list(read_manifest(manifest))
    test = {utterance.id: utterance for utterance in everything if utterance.split == "test"}
    records = TokenStore.open(run.inputs["tokenize_speech"]).records
    return EvalCorpus(
        manifest=manifest,
        utterances=test,
        codes={record.id: record.streams for record in records if record.id in test},
        tasks=frozenset(run.recipe.grammar.tasks),
        models=model.names,
        voices=frozenset(u.speaker for u in everything if u.split == "train" and u.speaker),
        has_vocoder=run.recipe.vocoder is not None,
        seed=run.recipe.seed,
        max_utterances=run.recipe.eval.max_utterances,
    )


def _collect(
    run: Run, corpus: EvalCorpus, tasks: Sequence[Task], model: EvaluatedModel
) -> tuple[dict[str, Answer], dict[str, Verdict]]:
    """All answers and verdicts. What needs no answer is judged while the endpoint is busy."""
    requests = [request for task in tasks for request in task.requests(corpus)]
    listenings = [listening for task in tasks for listening in task.listenings(corpus)]
    save = partial(save_audio, run.folder.path)
    config = run.recipe.eval
    with ChunkPool(config.num_workers) as pool:
        hear = partial(_submit_listenings, pool, run, corpus)
        with open_endpoint(run, model) as endpoint:
            # Only now: judges that came first could keep the endpoint's replica from getting its CPU.
            local = [request for request in requests if request.form not in ENDPOINT_FORMS]
            made = pool.submit(resynthesise, _vocoders(run), local, save)
            early = hear([item for item in listenings if item.answer is None], {})
            answers = ask_all(
                endpoint,
                [request for request in requests if request.form in ENDPOINT_FORMS],
                corpus,
                save=save,
                sample_rate=speech_rate_hz(run.recipe),
                concurrency=config.concurrency,
            )
        answers.update(pool.collect(made))
        late = hear([item for item in listenings if item.answer is not None], answers)
        return answers, dict(pool.collect(early + late))


def _submit_listenings(
    pool: "ChunkPool", run: Run, corpus: EvalCorpus, listenings: Sequence[Listening], answers: dict[str, Answer]
) -> list[Future]:
    heard = [locate(listening, corpus, answers, run.folder.path) for listening in listenings]
    return pool.submit(judge, _judge_folders(run), heard)


def _run_task(task: Any, *arguments: Any) -> Any:
    return ray.get(task.remote(*arguments))


class ChunkPool:
    """Runs Ray tasks over fixed chunks, at most `limit` at a time, in the order of submission."""

    def __init__(self, limit: int) -> None:
        self._threads = ThreadPoolExecutor(limit)

    def __enter__(self) -> "ChunkPool":
        return self

    def __exit__(self, *error: object) -> None:
        self._threads.shutdown(cancel_futures=True)

    def submit(self, task: Any, folders: Any, items: Sequence[Any], *arguments: Any) -> list[Future]:
        """One future per chunk of `items`."""
        chunks = [items[start : start + CHUNK] for start in range(0, len(items), CHUNK)]
        return [self._threads.submit(_run_task, task, chunk, folders, *arguments) for chunk in chunks]

    @staticmethod
    def collect(futures: Sequence[Future]) -> list[tuple[str, Any]]:
        """The pairs of all chunks. Raises what a task raised."""
        return [pair for future in futures for pair in future.result()]


def _judge_folders(run: Run) -> JudgeFolders:
    folder, config = run.inputs.get("fit_judges"), run.recipe.judges
    return JudgeFolders(
        recogniser=storage.join(folder, "recogniser") if folder and config.recogniser else None,
        clap=storage.join(folder, "clap") if folder and config.clap is not None else None,
    )


def _vocoders(run: Run) -> VocoderFolders:
    tokenizers = {name: storage.join(run.inputs["fit_tokenizer"], name) for name in run.recipe.tokenizers}
    vocoders = {"unit": storage.join(run.inputs["train_vocoder"], "unit")} if run.recipe.vocoder is not None else {}
    return VocoderFolders(vocoders, tokenizers)


def _judges(run: Run, tasks: Sequence[Task], corpus: EvalCorpus) -> dict[str, str]:
    kinds = frozenset(listening.kind for task in tasks for listening in task.listenings(corpus))
    return _run_task(identify, _judge_folders(run), kinds)
