"""A playbook as a Mermaid flowchart: its steps, where they lead and under which condition.

Called by the command line. Reads a source that compiles; conditions stand as the author wrote them.
"""

from __future__ import annotations

from typing import Final

from playbooks.arcs import ArcOutline
from playbooks.compile import compile_playbook
from playbooks.fields import items
from playbooks.loader import Mapping_, Scalar, load
from playbooks.nodes import Prepared
from playbooks.problems import Source, open_source
from playbooks.shape import Arc, Step, Task
from playbooks.spoken import spoken
from playbooks.steps import Outline, outline
from playbooks.workbook import read_workbook

_TEXT_MAX: Final = 240
#: Mermaid's own spelling of entities; `#` first, since the others are made of them.
_ENTITIES: Final = {"#": "#35;", "&": "#amp;", '"': "#quot;", "<": "#lt;", ">": "#gt;", "`": "#96;"}


def mermaid(data: bytes, file_name: str) -> str:
    """The flowchart, with a line end. Raises PlaybookRefused."""
    blueprint = compile_playbook(data, file_name)
    outlines = _outlines(data, file_name)
    lines = ["flowchart TD", f"  %% {blueprint.path}", f"  start(( )) --> s{blueprint.entry}"]
    for place, step in enumerate(blueprint.steps):
        lines.append(f"  s{place}{_box(step, final=place == blueprint.final)}")
        for arc, written in zip(step.arcs, outlines[step.name].next.arcs, strict=True):
            lines.append(f"  s{place} {_arrow(step, arc, written)} s{arc.target}")
    if blueprint.final is not None:
        lines.append(f"  rest(( )) -. at rest .-> s{blueprint.final}")
    return "\n".join(lines) + "\n"


def _outlines(data: bytes, file_name: str) -> dict[str, Outline]:
    source = open_source(data, file_name)
    assert isinstance(source, Source), "it compiled"
    root = load(source)
    assert isinstance(root, Mapping_), "it compiled"
    templates = read_workbook(source, root.get("workbook"))
    made = [
        outline(source, node, n, templates)
        for n, node in enumerate(items(source, root.get("workflow"), "`workflow`"), 1)
    ]
    return {each.name: each for each in made if each is not None}


def _box(step: Step, *, final: bool) -> str:
    """A step: its name and its tools; doubled sides for a loop, slanted ones where it may be kept waiting."""
    words = [step.name]
    if step.loop is not None:
        words.append(f"for each {step.loop.iterator}{', in parallel' if step.loop.parallel else ''}")
    words += [_tool(step, task) for task in step.tasks]
    if step.effect == "write":
        words.append("writes")
    if final:
        words.append("final")
    text = '"' + "<br/>".join(_escaped(word) for word in words) + '"'
    if step.loop is not None:
        return f"[[{text}]]"
    return f"[/{text}/]" if step.admit is not None else f"[{text}]"


def _tool(step: Step, task: Task) -> str:
    """A tool: its name in a pipeline, its kind, the playbook it runs, and where its policy may lead."""
    text = f"{task.name}: {task.kind}" if step.pipeline else task.kind
    if task.kind == "playbook" and isinstance(task.config.get("path"), Prepared):
        node = task.config["path"].node
        text += f" {node[1] if node[0] == 'const' else spoken(node)}"
    for rule in task.rules or ():
        if rule.do == "jump":
            text += f", may go to {step.tasks[rule.to].name}"
        elif rule.do in ("retry", "break"):
            text += ", may retry" if rule.do == "retry" else ", may end here"
    return text


def _arrow(step: Step, arc: Arc, written: ArcOutline) -> str:
    """An arc: dotted where only a failure takes it, thick where others may be taken beside it.

    One without a condition is taken always, or, where the first that fits is taken, when no arc before it fits.
    """
    when = written.when
    if isinstance(when, Scalar) and isinstance(when.value, str):
        text = when.value.strip().removeprefix("{{").removesuffix("}}").strip()
    else:
        text = "otherwise" if arc is not step.arcs[0] and not step.inclusive else ""
    failure_only = arc.on_failure and arc.when is not None and arc.when.node == ["const", False]
    line = "-.->" if failure_only else "==>" if step.inclusive else "-->"
    return f"{line}|{_quoted(text)}|" if text else line


def _quoted(text: str) -> str:
    return f'"{_escaped(text)}"'


def _escaped(text: str) -> str:
    """A text that stands for itself in a label: nothing in it is HTML, Markdown or the end of the label."""
    text = text if len(text) <= _TEXT_MAX else text[:_TEXT_MAX] + "…"
    for character, name in _ENTITIES.items():
        text = text.replace(character, name)
    return " ".join(text.split())
