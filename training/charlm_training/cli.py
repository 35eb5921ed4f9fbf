"""The commands `charlm train` and `charlm evaluate`."""

# torch takes a second to import, so modules that import it are imported inside the commands:
# `charlm train --help` must answer at once.

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from charlm_training.flags import (
    INTERRUPTED,
    AsJson,
    Corpus,
    Measured,
    clear_errors,
    shorten_spinning,
)


def train(
    corpus: Corpus,
    out: Annotated[Path, typer.Option(help="Directory of the checkpoint.")],
    family: Annotated[
        str, typer.Option(help="Model family: ngram, rnn, gru, lstm or transformer.")
    ] = "lstm",
    budget: Annotated[
        str | None,
        typer.Option(
            help="Wall-clock time after the corpus is read: 90s, 3m, 1h30m. Unset: 3m, unless "
            "--steps or --epochs is given."
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(help="cpu, cuda, cuda:N, or auto (a GPU if there is one).")
    ] = "cpu",
    steps: Annotated[int | None, typer.Option(help="Train for this many optimizer steps.")] = None,
    epochs: Annotated[
        float | None, typer.Option(help="Train for this many passes over the training text.")
    ] = None,
    unit: Annotated[
        str, typer.Option(help="stream: one long text. line: each line is a text of its own.")
    ] = "stream",
    vocabulary: Annotated[
        str, typer.Option(help="char, byte or sentencepiece, built from the training part only.")
    ] = "char",
    vocab_size: Annotated[
        int | None, typer.Option(help="Size of the sentencepiece vocabulary.")
    ] = None,
    validation_fraction: Annotated[
        float, typer.Option(help="Share of the text, at its end, held out for validation.")
    ] = 0.1,
    seed: Annotated[int, typer.Option(help="Seed of every random generator.")] = 0,
    hidden_size: Annotated[
        int | None, typer.Option(help="Width of the layers; unset: chosen by measuring speed.")
    ] = None,
    num_layers: Annotated[int | None, typer.Option(help="Number of layers.")] = None,
    num_heads: Annotated[
        int | None, typer.Option(help="Number of attention heads (transformer).")
    ] = None,
    embedding_size: Annotated[int | None, typer.Option(help="Width of token embeddings.")] = None,
    context_length: Annotated[
        int | None, typer.Option(help="Attention window in tokens, or the order of the n-gram.")
    ] = None,
    dropout: Annotated[
        float | None, typer.Option(help="Dropout probability, from 0 to below 1.")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Peak of the learning rate schedule.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Number of rows in a batch.")] = None,
    window_length: Annotated[
        int | None, typer.Option(help="Tokens of a window of truncated BPTT.")
    ] = None,
    kernel_size: Annotated[
        int | None,
        typer.Option(help="Latest tokens that form one input; 1: only the newest."),
    ] = None,
    tensorboard: Annotated[bool, typer.Option(help="Also write TensorBoard event files.")] = False,
    as_json: AsJson = False,
    resume: Annotated[
        bool, typer.Option(help="Continue the same command after it was stopped or killed.")
    ] = False,
    save_interval: Annotated[
        float, typer.Option(help="Seconds between saves of the training state.")
    ] = 30.0,
    force: Annotated[bool, typer.Option(help="Replace an existing checkpoint.")] = False,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Train on a Ray cluster: HOST:PORT, auto (one on this host) or local.",
        ),
    ] = None,
    ray_workers: Annotated[
        int | None, typer.Option(help="Number of worker processes on Ray; unset: one per host.")
    ] = None,
    ray_restarts: Annotated[
        int | None,
        typer.Option(help="How often Ray may restart after losing a worker; unset: 3."),
    ] = None,
) -> None:
    """Train a model on a text and report how good it is.

    [dim]charlm train book.txt --out book --budget 3m
    charlm train names.txt --out names --unit line --family transformer --steps 2000
    charlm train book.txt --out book --budget 3m --resume[/dim]
    """
    shorten_spinning()
    from charlm_training.corpus.dataset import DataOptions
    from charlm_training.planning.options import SizeOptions, TrainOptions
    from charlm_training.planning.size_flags import refuse_unused
    from charlm_training.process_group import process_group_from
    from charlm_training.ray_train import RayOptions, train_on_ray
    from charlm_training.report.report import print_lines, training_lines
    from charlm_training.run.session import train_in_terminal
    from charlm_training.run.workspace import Workspace

    with clear_errors(), process_group_from(os.environ) as group:
        options = TrainOptions(
            corpus=corpus,
            out=out,
            family=family,
            device=device,
            budget=budget,
            steps=steps,
            epochs=epochs,
            seed=seed,
            data=DataOptions(
                unit=unit,
                vocabulary=vocabulary,
                vocab_size=vocab_size,
                validation_fraction=validation_fraction,
            ),
            size=SizeOptions(
                hidden_size=hidden_size,
                num_layers=num_layers,
                num_heads=num_heads,
                embedding_size=embedding_size,
                context_length=context_length,
                dropout=dropout,
                learning_rate=learning_rate,
                batch_size=batch_size,
                window_length=window_length,
                kernel_size=kernel_size,
            ),
            force=force,
            resume=resume,
            save_interval_s=save_interval,
            command=shlex.join([*group.command, "charlm", *sys.argv[1:]]),
        )
        refuse_unused(options.family, options.size)
        where = RayOptions.of_flags(ray, workers=ray_workers, restarts=ray_restarts)
        if where is None:
            outcome = train_in_terminal(options, tensorboard=tensorboard, group=group)
        else:
            outcome = train_on_ray(options, where, tensorboard=tensorboard)
        if group.is_first:
            lines = training_lines(outcome.report, out, Workspace(out).page)
            print_lines(lines, outcome.report, as_json=as_json)
    if outcome.stopped_by == "interrupted":
        raise typer.Exit(INTERRUPTED)


def evaluate(
    checkpoint: Annotated[Path, typer.Argument(metavar="DIR", help="A trained checkpoint.")],
    corpus: Measured,
    exact: Annotated[
        bool,
        typer.Option(
            "--exact",
            help="Evaluate in one pass with the arithmetic of the server: the same bits as "
            "charlm score --file --total and the lm-evaluation-harness for the same text, except "
            "for the text it was trained on. Slower.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Evaluate a checkpoint on a text, with the protocols of training.

    [dim]charlm evaluate book book.txt
    charlm evaluate book other.txt --exact
    charlm score --file other.txt --total --model book[/dim]
    """
    shorten_spinning()
    from charlm_training.evaluation.checkpoint_evaluation import evaluate_checkpoint
    from charlm_training.report.report import evaluation_report_lines, print_lines

    with clear_errors():
        report = evaluate_checkpoint(checkpoint, corpus, exact=exact)
        print_lines(evaluation_report_lines(report), report, as_json=as_json)
