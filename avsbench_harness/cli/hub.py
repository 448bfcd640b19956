"""``avsb hub``: trained weights on the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from avsbench_harness.cli.common import JsonOption, print_json

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Upload and download trained weights with their record (Hugging Face Hub; extra hub).",
)


@app.command()
def push(
    run: Annotated[str, typer.Argument(help="A scored run: its id, a unique prefix of it, or its folder.")],
    repository: Annotated[str, typer.Argument(help="OWNER/NAME; created if it does not exist.")],
    licence: Annotated[
        str | None, typer.Option("--license", help="License of the weights for the model card.")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Create a private repository.")] = False,
    out: Annotated[Path, typer.Option("--out", help="Folder with runs/ and results/.")] = Path(),
    json: JsonOption = False,
) -> None:
    """Upload weights, spec, record and model card of a run, in one commit; never data.

    The token is that of `hf auth login` or of the variable HF_TOKEN.

    \b
    Examples:
      avsb hub push RUN-ID me/avsegformer-ms3
      avsb hub push RUN-ID me/avsegformer-ms3 --license apache-2.0 --private
    """
    from avsbench_harness.launch import hub
    from avsbench_harness.run_names import find_run

    folder = find_run(run, out)
    pushed = hub.push(folder, repository, out / "results", licence=licence, private=private)
    if json:
        print_json({"url": pushed.url, "files": list(pushed.files)})
    else:
        typer.echo(f"uploaded: {pushed.url} ({', '.join(pushed.files)})")


@app.command()
def pull(
    repository: Annotated[str, typer.Argument(help="OWNER/NAME of a repository that `avsb hub push` wrote.")],
    revision: Annotated[
        str | None, typer.Option("--revision", help="Branch, tag or commit; defaults to the main branch.")
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", help="Folder in which the folder OWNER--NAME is written.")
    ] = Path(),
    json: JsonOption = False,
) -> None:
    """Download weights, spec and record of a run; sizes, hashes and formats are checked.

    \b
    Examples:
      avsb hub pull me/avsegformer-ms3
    """
    from avsbench_harness.launch import hub

    pulled = hub.pull(repository, out, revision=revision)
    spec = pulled.spec
    if json:
        print_json(
            {"folder": str(pulled.folder), "commit": pulled.commit, "spec": spec.model_dump(mode="json")}
        )
        return
    typer.echo(f"downloaded: {pulled.folder} (commit {pulled.commit[:12]})")
    typer.echo(
        f"next: avsb predict --method {spec.method} --variant {spec.variant} --backbone {spec.backbone} "
        f"--task {spec.task} --preset {spec.preset} --weights {pulled.folder}"
    )
