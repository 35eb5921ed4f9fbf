"""The command `charlm`: flags are parsed here and nowhere else in the client."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from charlm_client.api.long_text import DEFAULT_STREAM_TIMEOUT_S
from charlm_client.cli import (
    admin,
    bench,
    commands,
    compare,
    compress,
    fill_and_top,
    plugins,
    state,
    tokenizer,
)
from charlm_client.cli.exit_codes import EXIT_ERROR, ended_in_a_sentence
from charlm_client.cli.generate_flags import DEFAULT_MODE, bias_of, constraint_of
from charlm_client.cli.options import (
    SERVER_DEFAULT,
    TIMEOUT_DEFAULT,
    AsJson,
    Color,
    Model,
    ReplaceUnknown,
    Server,
    Timeout,
)
from charlm_client.cli.rendering import console
from charlm_client.cli.score_file import FileQuestion, is_short, score_file
from charlm_client.cli.score_lines import LinesQuestion, score_lines
from charlm_client.cli.session import SECURITY, ask, read, read_file
from charlm_client.security import Security
from charlm_client.types import Sampling, Stopping

_SAMPLING, _STOPPING = "How tokens are drawn", "When the output ends"
_LANGUAGE = "What the output may be"

app = typer.Typer(
    name="charlm",
    help="Train, serve and ask character-level language models.",
    epilog="Start with: charlm train builtin:python-docs --out model --budget 1m, "
    "then charlm serve model, then charlm generate 'The '",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
)


@app.callback()
def connection_flags(
    tls: Annotated[
        bool, typer.Option(envvar="CHARLM_TLS", help="Encrypt; trust the system's authorities.")
    ] = False,
    tls_ca: Annotated[
        Path | None, typer.Option(envvar="CHARLM_TLS_CA", help="Encrypt; trust these, PEM.")
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option(envvar="CHARLM_TLS_CERT", help="Certificate to show, PEM.")
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(envvar="CHARLM_TLS_KEY", help="Its key, PEM.")
    ] = None,
    token: Annotated[
        str, typer.Option(envvar="CHARLM_TOKEN", help="Token to show; only over encryption.")
    ] = "",
) -> None:
    is_secure = tls or tls_ca or tls_cert or tls_key or token
    SECURITY.set(
        Security(ca=tls_ca, cert=tls_cert, key=tls_key, token=token) if is_secure else None
    )


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="What to continue; - reads it from stdin.")] = "",
    model: Model = "",
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Most tokens.", rich_help_panel=_STOPPING)
    ] = None,
    stop: Annotated[
        list[str] | None,
        typer.Option(help="Text that ends the output; repeatable.", rich_help_panel=_STOPPING),
    ] = None,
    include_stop: Annotated[
        bool,
        typer.Option("--include-stop", help="Keep the text of --stop.", rich_help_panel=_STOPPING),
    ] = False,
    ignore_end_of_text: Annotated[
        bool,
        typer.Option(
            "--ignore-end-of-text", help="Go on into the next text.", rich_help_panel=_STOPPING
        ),
    ] = False,
    max_time: Annotated[
        float | None, typer.Option(help="Most seconds.", rich_help_panel=_STOPPING)
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(
            "--temperature", "-t", help="0 takes the best token.", rich_help_panel=_SAMPLING
        ),
    ] = None,
    top_k: Annotated[
        int | None, typer.Option(help="Keep the k best.", rich_help_panel=_SAMPLING)
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(help="Keep the fewest that reach p.", rich_help_panel=_SAMPLING),
    ] = None,
    min_p: Annotated[
        float | None,
        typer.Option(
            help="Keep those as probable as this share of the best.", rich_help_panel=_SAMPLING
        ),
    ] = None,
    typical_p: Annotated[
        float | None,
        typer.Option(help="Keep those nearest the entropy.", rich_help_panel=_SAMPLING),
    ] = None,
    repetition_penalty: Annotated[
        float | None, typer.Option(help="Over 1 repeats less.", rich_help_panel=_SAMPLING)
    ] = None,
    presence_penalty: Annotated[
        float | None, typer.Option(help="Nats off for having occurred.", rich_help_panel=_SAMPLING)
    ] = None,
    frequency_penalty: Annotated[
        float | None, typer.Option(help="Nats off for each time.", rich_help_panel=_SAMPLING)
    ] = None,
    penalty_window: Annotated[
        int | None,
        typer.Option(min=0, help="How far back penalties look.", rich_help_panel=_SAMPLING),
    ] = None,
    bias: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID=NATS",
            help="Add to one token's log-prob; repeatable.",
            rich_help_panel=_SAMPLING,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Same seed, same text.", rich_help_panel=_SAMPLING),
    ] = None,
    regex: Annotated[
        str | None,
        typer.Option(help="Pattern that the whole output must match.", rich_help_panel=_LANGUAGE),
    ] = None,
    choice: Annotated[
        list[str] | None,
        typer.Option(help="Text that the output may be; repeatable.", rich_help_panel=_LANGUAGE),
    ] = None,
    allowed: Annotated[
        str | None,
        typer.Option(help="Characters that the output may have.", rich_help_panel=_LANGUAGE),
    ] = None,
    constraint_mode: Annotated[
        str,
        typer.Option(
            help="local_mask: token by token; rejection, smc: the model's own distribution.",
            rich_help_panel=_LANGUAGE,
        ),
    ] = DEFAULT_MODE,
    num_outputs: Annotated[
        int, typer.Option("--num-outputs", "-n", min=1, help="Outputs for one prompt.")
    ] = 1,
    replace_unknown: ReplaceUnknown = False,
    as_json: AsJson = False,
    color: Color = "auto",
    server: Server = SERVER_DEFAULT,
    timeout: Timeout = TIMEOUT_DEFAULT,
) -> None:
    """Continue a text, character by character as they are sampled.

    What no flag says is the model's default.

    [dim]charlm generate "To be" -t 0.7 --seed 1
    printf "To be" | charlm generate - --max-tokens 1000 > out.txt
    charlm generate "ROMEO:" --stop $'\\n\\n' -n 3 --json
    charlm generate "It was in " --regex '1[89][0-9]{2}'[/dim]
    """
    sampling = Sampling(
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        typical_p=typical_p,
        repetition_penalty=repetition_penalty,
        presence_penalty=presence_penalty,
        frequency_penalty=frequency_penalty,
        penalty_window=penalty_window,
        logit_bias=dict(map(bias_of, bias or ())),
        seed=seed,
        constraint=constraint_of(regex, choice, allowed, constraint_mode),
    )
    stopping = Stopping(
        max_new_tokens=max_tokens,
        stop_sequences=tuple(stop or ()),
        include_stop_sequence=include_stop or None,
        ignore_end_of_text=ignore_end_of_text or None,
        max_time_s=max_time,
    )
    wish = commands.Wish(
        prompt=read(prompt),
        model=model,
        sampling=sampling,
        stopping=stopping,
        num_outputs=num_outputs,
        replace_unknown=replace_unknown,
    )
    ask(
        server,
        timeout,
        lambda client: commands.generate(client, wish, as_json=as_json, console=console(color)),
    )


@app.command()
def score(
    text: Annotated[
        str | None, typer.Argument(help="What to score; - reads it from stdin.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="Score this file instead, of any size; - is stdin.")
    ] = None,
    lines: Annotated[
        bool, typer.Option("--lines", help="Every line of the file is a text of its own.")
    ] = False,
    total: Annotated[bool, typer.Option("--total", help="Print the total only.")] = False,
    model: Model = "",
    context: Annotated[str, typer.Option(help="What comes before the text.")] = "",
    replace_unknown: ReplaceUnknown = False,
    as_json: AsJson = False,
    color: Color = "auto",
    server: Server = SERVER_DEFAULT,
    timeout: Timeout = TIMEOUT_DEFAULT,
) -> None:
    """Show how much each character of a text surprises the model.

    [dim]charlm score "To be or not to bee"
    charlm score --file draft.txt > surprisals.tsv
    charlm score --file large.txt --total
    charlm score --file names.txt --lines[/dim]
    """
    if text is not None and file is not None:
        raise typer.BadParameter(
            f"A text and --file {file} were both given, but one is scored; give one of them."
        )
    if lines:
        if file is None:
            raise typer.BadParameter("--lines needs --file FILE: a file, or - for stdin.")
        of_lines = LinesQuestion(
            path=file,
            model=model,
            context=context,
            replace_unknown=replace_unknown,
            total_only=total,
            as_json=as_json,
        )
        ask(server, timeout, lambda client: score_lines(client, of_lines), may_repeat=False)
        return
    if text is None and file is None:
        raise typer.BadParameter("Nothing to score: give a TEXT, - for stdin, or --file FILE.")
    shown = console(color)
    is_for_eyes = shown.is_terminal and not total and not as_json
    if file and not (is_for_eyes and is_short(file)):
        reading = FileQuestion(
            path=file,
            model=model,
            context=context,
            replace_unknown=replace_unknown,
            timeout_s=DEFAULT_STREAM_TIMEOUT_S if timeout == TIMEOUT_DEFAULT else timeout,
            total_only=total or is_for_eyes,
            as_json=as_json,
        )
        ask(server, timeout, lambda client: score_file(client, reading), may_repeat=False)
        return
    question = commands.Question(
        text=read_file(file) if file else read(text or ""),
        model=model,
        context=context,
        total_only=total,
        replace_unknown=replace_unknown,
    )
    ask(
        server,
        timeout,
        lambda client: commands.score(client, question, as_json=as_json, console=shown),
    )


@app.command(name="next")
def next_token(
    prompt: Annotated[str, typer.Argument(help="What comes before; - reads it from stdin.")] = "",
    model: Model = "",
    top_k: Annotated[int, typer.Option(min=1, help="How many to show.")] = 10,
    replace_unknown: ReplaceUnknown = False,
    as_json: AsJson = False,
    color: Color = "auto",
    server: Server = SERVER_DEFAULT,
    timeout: Timeout = TIMEOUT_DEFAULT,
) -> None:
    """Show the most probable next characters.

    [dim]charlm next "To be or not to b"[/dim]
    """
    question = commands.Question(
        text=read(prompt), model=model, top_k=top_k, replace_unknown=replace_unknown
    )
    ask(
        server,
        timeout,
        lambda client: commands.next_token(
            client, question, as_json=as_json, console=console(color)
        ),
    )


@app.command()
def models(
    as_json: AsJson = False,
    color: Color = "auto",
    server: Server = SERVER_DEFAULT,
    timeout: Timeout = TIMEOUT_DEFAULT,
) -> None:
    """List the models that a server has loaded."""
    ask(
        server,
        timeout,
        lambda client: commands.models(client, as_json=as_json, console=console(color)),
    )


@app.command()
def health(
    service: Annotated[str, typer.Argument(help="A service or model; empty: the server.")] = "",
    as_json: AsJson = False,
    server: Server = SERVER_DEFAULT,
    timeout: Timeout = 3.0,
) -> None:
    """Say whether a server is serving; exits with 1 when it is not."""
    is_serving = ask(
        server, timeout, lambda client: commands.health(client, service, as_json=as_json)
    )
    if not is_serving:
        raise typer.Exit(EXIT_ERROR)


app.command()(compare.compare)
app.command()(compress.compress)
app.command()(compress.decompress)
app.command()(fill_and_top.fill)
app.command()(fill_and_top.top)
app.command()(tokenizer.encode)
app.command()(tokenizer.decode)
app.command()(tokenizer.vocabulary)
app.add_typer(admin.app, name="admin")
app.add_typer(bench.app, name="bench")
app.add_typer(state.app, name="state")
plugins.list_in(app)


def main() -> None:
    """The console script.

    Exit codes: 0 done, 1 an error, 2 wrong usage, 3 restored in part, 130 interrupted.
    """
    with ended_in_a_sentence():
        name = sys.argv[1] if len(sys.argv) > 1 else ""
        if name in plugins.PLUGINS:
            plugins.load(name)(args=sys.argv[2:], prog_name=f"charlm {name}")
        else:
            app(prog_name="charlm")
