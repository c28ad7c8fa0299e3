"""The live demo: a local page on which a model writes from a prompt, from a product, or for a small catalog."""

from __future__ import annotations

import html
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any

from enrich.errors import ConfigError, EnrichError
from enrich.workbench import Draft, Workbench

_MOST_ROWS = 200
_MOST_ATTEMPTS = 3
_EXAMPLES = (
    ("Handwoven Jute Rug, 5 x 8 ft", "Home & Kitchen > Rugs", "Color: Natural\nMaterial: jute\nShape: Rectangular"),
    ("Ceramic Table Lamp, 22 in", "Home & Kitchen > Lighting", "Color: Sage Green\nMaterial: ceramic\nStyle: Modern"),
    ("3-Tier Bamboo Shelf", "Home & Kitchen > Storage", "Color: Brown\nMaterial: bamboo\nFeature: no tools needed"),
)  # fmt: skip
_STYLE = """
.gradio-container { max-width: 1200px !important; margin: 0 auto !important; }
footer { display: none !important; }
.draft { overflow-wrap: anywhere; white-space: pre-wrap; unicode-bidi: plaintext; }
.draft mark { color: inherit; border-radius: 3px; padding: 0 2px; background: #d5efdf; }
.draft mark.unstated { background: #fbe3c8; text-decoration: underline dotted; text-underline-offset: 3px; }
.dark .draft mark { background: #1d4a33; } .dark .draft mark.unstated { background: #5a3d16; }
.verdict { font-size: .85rem; opacity: .85; margin-top: 8px; }
.verdict b.good { color: #1f7a4d; } .verdict b.bad { color: #b4414f; }
.dark .verdict b.good { color: #69c797; } .dark .verdict b.bad { color: #e57f8b; }
"""
_FOLLOW_THE_SYSTEM = """
() => {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const follow = () => document.body.classList.toggle("dark", dark.matches);
  follow();
  dark.addEventListener("change", follow);
}
"""


def check_available() -> None:
    """Raise ConfigError if Gradio is not installed."""
    # Before Gradio is imported: it reads them then, and would report each start to its makers.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise ConfigError("`enrich demo` needs Gradio: pip install 'enrich[demo]'") from error


def serve(bench: Workbench, *, host: str, port: int, say: Callable[[str], None]) -> None:
    """Serve the demo until the process is interrupted. Raises ConfigError if the port is taken."""
    check_available()
    with tempfile.TemporaryDirectory(prefix="enrich-demo-") as directory:
        page = build(bench, Path(directory))
        try:
            _, address, _ = page.queue(default_concurrency_limit=1).launch(
                server_name=host, server_port=port or _free_port(host), share=False, inbrowser=False, ssr_mode=False,
                prevent_thread_lock=True, quiet=True, footer_links=[], allowed_paths=[str(directory)],
                max_file_size="20mb", theme=_theme(), css=_STYLE, js=_FOLLOW_THE_SYSTEM,
            )  # fmt: skip
        except OSError as error:
            raise ConfigError(f"--port {port}: {error}") from error
        say(f"the demo of {bench.files.name} is at {address} (Ctrl-C ends it)")
        page.block_thread()


def _free_port(host: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as one:
        one.bind((host, 0))
        return int(one.getsockname()[1])


def _theme() -> Any:
    import gradio as gr

    # Fonts of the machine: the page asks nobody else for any.
    return gr.themes.Default(
        primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
    )


def build(bench: Workbench, directory: Path) -> Any:
    """Build the page; the files of uploaded catalogs are written into `directory`."""
    import gradio as gr

    params = bench.params
    with gr.Blocks(title=f"enrich: {bench.files.name}", analytics_enabled=False) as page:
        gr.Markdown(
            f"# enrich\n{_plain(bench.files.name)} writes product descriptions here, on this machine. Nothing that you"
            " type leaves it."
        )
        with gr.Accordion("Sampling", open=False), gr.Row():
            settings = [
                gr.Slider(8, 256, params.max_new_tokens, step=1, label="Most new tokens"),
                gr.Slider(0, 2, params.temperature, step=0.05, label="Temperature", info="0: the likeliest token"),
                gr.Slider(0, 200, params.top_k, step=1, label="Top k", info="0: all tokens"),
                gr.Slider(0.05, 1, params.top_p, step=0.05, label="Top p"),
                gr.Slider(0.5, 2, params.repetition_penalty, step=0.05, label="Repetition penalty", info="1: none"),
                gr.Number(0, label="Seed", precision=0, minimum=0),
            ]
        with gr.Tab("One text"):
            with gr.Row():
                with gr.Column():
                    title = gr.Textbox(label="Title", value=_EXAMPLES[0][0], elem_id="title")
                    category = gr.Textbox(label="Category", value=_EXAMPLES[0][1], elem_id="category")
                    attributes = gr.Textbox(
                        label="Attributes, one a line", value=_EXAMPLES[0][2], lines=4, elem_id="attributes"
                    )
                    product = [title, category, attributes]
                    prompt = gr.Textbox(
                        label="Prompt", lines=5, elem_id="prompt", info="Follows the form above; or type your own.",
                        value=bench.prompt(bench.product(*_EXAMPLES[0])),
                    )  # fmt: skip
                    with gr.Row():
                        write = gr.Button("Write", variant="primary", elem_id="write")
                        three = gr.Button("Three attempts", elem_id="three")
                with gr.Column():
                    raw = gr.Textbox(label="As the model writes it", lines=6, elem_id="raw", interactive=False)
                    cleaned = gr.HTML(elem_id="cleaned")
            drafts = []
            with gr.Row():
                for number in range(_MOST_ATTEMPTS):
                    with gr.Column(min_width=260):
                        drafts.append(gr.HTML(elem_id=f"attempt-{number + 1}"))
            gr.Examples([list(example) for example in _EXAMPLES], product, example_labels=[one[0] for one in _EXAMPLES])
        with gr.Tab("A catalog"):
            gr.Markdown(
                f"A CSV, JSON Lines or Parquet file of products. The first {_MOST_ROWS} rows get their descriptions;"
                " what comes back is the Parquet file that `enrich run` writes."
            )
            upload = gr.File(
                label="Catalog", file_types=[".csv", ".tsv", ".jsonl", ".parquet"], type="filepath", elem_id="upload"
            )
            run = gr.Button("Enrich", variant="primary", elem_id="run")
            told = gr.Markdown(elem_id="told")
            download = gr.File(label="Enriched catalog", interactive=False, elem_id="download")
            table = gr.Dataframe(
                headers=["title", "description"], label="Some of the texts", wrap=True, interactive=False,
                column_widths=["30%", "70%"],
                datatype=["str", "str"], elem_id="texts",
            )  # fmt: skip

        @_told
        def render(*fields: str) -> str:
            return bench.prompt(bench.product(*fields))

        @_told
        def write_one(text: str, *values: Any) -> Iterator[tuple[str, str]]:
            fields, numbers = values[:3], values[3:]
            row = bench.product(*fields)
            wanted, seed = _sampling(bench, numbers)
            for step in bench.write(text, row, wanted, seed=seed):
                yield (step.raw, _shown(step)) if isinstance(step, Draft) else (step, "")

        @_told
        def write_three(text: str, *values: Any) -> list[str]:
            fields, numbers = values[:3], values[3:]
            wanted, seed = _sampling(bench, numbers)
            found = bench.attempts(text, bench.product(*fields), wanted, seed=seed, count=_MOST_ATTEMPTS)
            return [_shown(draft) for draft in found]

        @_told
        def enrich_file(path: str | None, *numbers: Any) -> tuple[str, str, list[list[str]]]:
            return _enriched(bench, directory, path, numbers)

        for field in product:
            field.change(render, product, prompt, show_progress="hidden", api_visibility="private")
        inputs = [prompt, *product, *settings]
        write.click(write_one, inputs, [raw, cleaned], api_visibility="private")
        three.click(write_three, inputs, drafts, api_visibility="private")
        run.click(enrich_file, [upload, *settings], [told, download, table], api_visibility="private")
    return page


def _told(function: Callable[..., Any]) -> Callable[..., Any]:
    """Show a user's error as a message on the page."""
    import inspect

    import gradio as gr

    if inspect.isgeneratorfunction(function):

        @wraps(function)
        def generating(*values: Any) -> Iterator[Any]:
            try:
                yield from function(*values)
            except EnrichError as error:
                raise gr.Error(_plain(str(error))) from error

        return generating

    @wraps(function)
    def calling(*values: Any) -> Any:
        try:
            return function(*values)
        except EnrichError as error:
            raise gr.Error(_plain(str(error))) from error

    return calling


def _sampling(bench: Workbench, numbers: tuple[Any, ...]) -> tuple[Any, int]:
    new_tokens, temperature, top_k, top_p, penalty, seed = numbers
    wanted = bench.sampling(
        max_new_tokens=int(new_tokens), temperature=float(temperature), top_k=int(top_k), top_p=float(top_p),
        repetition_penalty=float(penalty),
    )  # fmt: skip
    return wanted, int(seed or 0)


def _enriched(
    bench: Workbench, directory: Path, path: str | None, numbers: tuple[Any, ...]
) -> tuple[str, str, list[list[str]]]:
    from enrich.output import read_texts

    if path is None:
        raise ConfigError("choose a file first")
    wanted, seed = _sampling(bench, numbers)
    source = Path(path)
    output = Path(tempfile.mkdtemp(dir=directory)) / f"{source.stem}.enriched.parquet"
    summary = bench.enrich(source, output, wanted, seed=seed, limit=_MOST_ROWS)
    told = (
        f"{summary.rows:,} rows: {summary.generated:,} generated, {summary.kept:,} kept, {summary.quarantined:,}"
        f" without a usable text; {summary.seconds:.1f} s"
    )
    return told, str(output), [list(one) for one in read_texts(output, 10)]


def _shown(draft: Draft) -> str:
    """Return a draft as HTML: its facts marked, and below what the rules say of it."""
    marked = "".join(
        f'<mark class="{piece.kind}">{html.escape(piece.text)}</mark>' if piece.kind else html.escape(piece.text)
        for piece in draft.pieces
    )
    verdict = '<b class="good">✓ would be published</b>' if draft.accepted else '<b class="bad">✗ would be withheld</b>'
    notes = "".join(f"<br>{html.escape(note)}" for note in (*draft.flags, *draft.findings))
    count = f"attempt {draft.attempt} · {draft.num_tokens} tokens · {html.escape(draft.finish_reason)}"
    body = marked or "<i>nothing is left of it</i>"
    return f'<div class="draft" dir="auto">{body}</div><div class="verdict">{verdict} · {count}{notes}</div>'


def _plain(text: str) -> str:
    """Return a text as Markdown and HTML that shows its characters."""
    return html.escape(text).replace("`", "&#96;").replace("*", "&#42;").replace("_", "&#95;").replace("[", "&#91;")
