"""Texts of bundles in Markdown: quick start, rules, format."""

from __future__ import annotations

from avsbench_harness.host.definition import Definition
from avsbench_harness.tasks import MASK_SIZE, get_task

_COUNTS = {
    "best": "The submission with the best public score counts.",
    "last": "The last submission counts.",
    "selected": "Up to two submissions that the team selects count; without a selection, the one with the "
    "best public score.",
}
_TIES = {
    "interval": "A team shares the rank of the first team of that rank if its score lies within that team's "
    "95 % interval.",
    "date": "Of equal scores the earlier submission is ranked first.",
}


def rules_text(definition: Definition) -> str:
    """The rules: phases, limits, ranking, required fields, and the text of the host."""
    limits = definition.limits
    lines = [f"# Rules of {definition.title}", "", "| phase | start (UTC) | end (UTC) |", "|---|---|---|"]
    lines += [
        f"| {_cell(phase.name)} | {phase.start:%Y-%m-%d %H:%M} | {phase.end:%Y-%m-%d %H:%M} |"
        for phase in definition.phases
    ]
    metrics = ", ".join(definition.metrics)
    required = ", ".join(definition.required) or "none"
    late = "are refused" if definition.late == "refuse" else "are scored, but not ranked"
    rename = "may" if definition.teams.rename else "may not"
    lines += [
        "",
        f"- Task {definition.task}, split {definition.split}, protocol {definition.protocol}; metrics: "
        f"{metrics}. {definition.metrics[0]} ranks, {_direction(definition)} is better.",
        f"- A team makes at most {limits.per_day} submissions per day (UTC) and {limits.total} in all, of at "
        f"most {limits.megabytes} MB. Invalid files do not count.",
        f"- {_COUNTS[definition.counts]}",
        f"- {_TIES[definition.ties]}",
        "- Scores on the public board come from a part of the clips. The scores of the other part decide, "
        "and are published after the end.",
        f"- Required fields of a submission: {required}.",
        f"- Late submissions {late}. Teams {rename} be renamed. Duplicates and copies are refused.",
    ]
    return "\n".join([*lines, "", definition.rules.strip(), ""]).rstrip() + "\n"


def format_text(definition: Definition, fingerprint: str, clips: int) -> str:
    """The format of a submission."""
    task = get_task(definition.task)
    if task.semantic:
        content = "class indices 0 to 70 of AVSBench-semantic"
        encoding = "labels"
    else:
        content = "threshold codes; `avsbench_harness.submission.encode` computes them from probabilities"
        encoding = "threshold-codes"
    return f"""# Format of a submission

One `.npz` file with one array per clip of the {definition.split} split, {clips} clips: the name of the array
is the clip's id, its shape (T, {MASK_SIZE}, {MASK_SIZE}) without padded frames, its type uint8. Values:
{content}.

The array `header` holds UTF-8 JSON as uint8 bytes:

```json
{{"format": 1, "kind": "submission", "encoding": "{encoding}", "task": "{definition.task}",
 "split": "{definition.split}", "solution": "{fingerprint}",
 "method": "NAME", "run": "", "note": "", "size": [{MASK_SIZE}, {MASK_SIZE}]}}
```

`solution` is the fingerprint of the ground truth; a submission with another one is refused.
`sample_submission.npz` is a valid submission that predicts background everywhere.
"""


def quick_start(definition: Definition, fingerprint: str) -> str:
    """The guide of participants."""
    fields = " ".join(f"--field {name}=TEXT" for name in definition.required)
    call = " ".join(filter(None, ["avsb challenge submit mine.npz --team NAME --inbox INBOX", fields]))
    return f"""# {definition.title}

{definition.description.strip()}

| file | content |
|---|---|
| `data/` | frames and sound of all clips, masks without those of {definition.split} |
| `sample_submission.npz` | a valid submission: background everywhere |
| `FORMAT.md`, `RULES.md` | format of submissions, rules |
| `challenge.json` | the competition for programs |

Check a submission, here the sample:

```sh
avsb submit check sample_submission.npz
```

Train a method and predict the {definition.split} split; the header carries the fingerprint
`{fingerprint[:12]}...`:

```sh
avsb train --method avsegformer --task {definition.task} --data data
avsb predict --method avsegformer --task {definition.task} --data data --split {definition.split}
```

Or write the file with a program of your own:

```python
from pathlib import Path
from avsbench_harness.submission import Header, SubmissionWriter

header = Header("{definition.task}", "{definition.split}", "{fingerprint}", "my method")
with SubmissionWriter(Path("mine.npz"), header) as writer:
    for clip, prediction in predictions:  # (T,224,224) without padded frames
        writer.add(clip, prediction)
```

Hand it in with the token of your team in the environment variable `AVSB_CHALLENGE_TOKEN`:

```sh
{call}
```
"""


def _direction(definition: Definition) -> str:
    return "higher" if definition.higher_is_better else "lower"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
