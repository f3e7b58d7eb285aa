"""Train the same network with weight decay on other gammas, and tell what moved: the evidence for the guidelines.

    python recipes/gamma_ablation.py run --quick                       # two minutes, scikit-learn's digits, no download
    python recipes/gamma_ablation.py run digits
    python recipes/gamma_ablation.py run resnet_small_data --data-dir path/to/cifar10 --output-dir runs/resnet18
    python recipes/gamma_ablation.py report runs/resnet18              # tables and plots anew, from the JSON lines
    python recipes/gamma_ablation.py rerun runs/resnet18 all-init1-decay0.005-seed3

Everything but the arm is in one file of settings (`recipes/ablation/configs`), which is kept with the results.
"""

import os
import sys
from pathlib import Path
from typing import Annotated

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import common.passive_threads  # noqa: F401  # isort: skip

import typer
from ablation.arms import runs
from ablation.card import card_text
from ablation.config import CONFIG_NAME, read_config
from ablation.plots import plot_all
from ablation.results import against, headline, read_results, with_headline, write_or_compare
from ablation.runs import RUNS_NAME, be_quiet, do_run, do_runs, read_network, read_runs, start
from ablation.tables import role_table
from common.launch import run as run_recipe
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from hf_gammareg import GammaRegError

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__, rich_markup_mode=None)

DataDir = Annotated[str | None, typer.Option(help="A folder with the data set, in place of the Hub's.")]
Device = Annotated[str, typer.Option(help="Where to train: cpu, cuda, ...")]


@app.command()
def run(
    settings: Annotated[
        str, typer.Argument(help="A file of settings, or the name of one in recipes/ablation/configs.")
    ] = "digits",
    output_dir: Annotated[Path | None, typer.Option(help="Where results go. Default: runs/ablation/NAME.")] = None,
    data_dir: DataDir = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Runs at a time. Default: one for each CPU core, or one on a GPU.")
    ] = None,
    device: Device = "cpu",
    quick: Annotated[bool, typer.Option(help="Three seeds, one strength, one initialisation.")] = False,
) -> None:
    """Train all arms; runs that are in the output folder are kept."""
    be_quiet()
    config, text = read_config(settings)
    folder = output_dir or Path("runs/ablation") / (Path(settings).stem + "_quick" * quick)
    network = start(folder, text, config, data_dir)
    planned = runs(config, network.arms)
    if quick:
        main = (config.main_gamma_weight_decay, 0.0)
        planned = [
            one
            for one in planned
            if one.seed in config.seeds[:3]
            and one.gamma_weight_decay in main
            and one.last_init == next(iter(config.last_inits), None)
        ]
    done = read_runs(folder / RUNS_NAME)
    todo = [one for one in planned if one.name not in done]
    jobs = jobs or (1 if device != "cpu" else os.cpu_count() or 1)
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task("runs", total=len(planned), completed=len(planned) - len(todo))
        for record in do_runs(folder / RUNS_NAME, config, todo, jobs=jobs, data_dir=data_dir, device=device):
            progress.update(task, advance=1, description=f"{record['run']}: {record['eval_accuracy']:.1%}")
    report([folder])
    results = read_results(folder)
    console = Console(width=max(120, Console().width))
    console.print(Markdown(f"# {config.title}\n\n{role_table(results)}\n\n{against(results)}"))
    console.print(f"Tables and plots: {folder / 'README.md'}")


@app.command()
def report(
    folders: Annotated[list[Path], typer.Argument(help="Folders of results.")],
    readme: Annotated[Path | None, typer.Option(help="A README whose table is to be written anew, too.")] = None,
    check: Annotated[bool, typer.Option(help="Write nothing; status 1 if a text is not what the runs say.")] = False,
) -> None:
    """Write cards and plots, and a README's table, from the JSON lines alone."""
    texts = {folder / "README.md": card_text(read_results(folder), folder) for folder in folders}
    if readme is not None:
        texts[readme] = with_headline(readme.read_text(encoding="utf-8"), headline(folders, readme.parent))
    wrong = [str(path) for path, text in texts.items() if not write_or_compare(path, text, check)]
    for path in wrong:
        print(f"{path}: not what the runs say")
    if check:
        print(f"{len(texts) - len(wrong)} of {len(texts)} texts are what the runs say")
        sys.exit(1 if wrong else 0)
    for folder in folders:
        plot_all(read_results(folder), folder)


@app.command()
def rerun(
    folder: Annotated[Path, typer.Argument(help="A folder of results.")],
    name: Annotated[str, typer.Argument(help="A run, as runs.jsonl calls it.")],
    data_dir: DataDir = None,
    device: Device = "cpu",
) -> None:
    """Do one run again from the settings that were kept, and compare; nothing is written. Status 1 if it differs."""
    be_quiet()
    config, _ = read_config(folder / CONFIG_NAME)
    kept = read_runs(folder / RUNS_NAME).get(name)
    one = next((one for one in runs(config, read_network(folder, config).arms) if one.name == name), None)
    if kept is None or one is None:
        raise GammaRegError(f"Expected the name of a run in {str(folder / RUNS_NAME)!r}, found {name!r}.")
    now = do_run(config, one, data_dir, device)
    for key in ("eval_accuracy", "eval_loss", "train_loss"):
        print(f"{key}: {kept[key]} kept, {now[key]} now")
    differs = [key for key in kept if key not in ("seconds", "machine") and kept[key] != now[key]]
    if not differs:
        print(f"{name}: the same in every number")
        return
    print(f"{name}: not the same in {', '.join(differs)}")
    if kept["machine"] != now["machine"]:
        print(f"kept on {kept['machine']}, now on {now['machine']}")
    sys.exit(1)


if __name__ == "__main__":
    sys.exit(run_recipe(app))
