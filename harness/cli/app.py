"""The commands. Their order in `drill --help` is the order in which a newcomer needs them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from harness.cli.failures import Invocation, guarded, tell, wants_json
from harness.core.errors import BadInput, DrillError, ExitCode

if TYPE_CHECKING:
    from harness.core.event import Action
    from harness.core.gameday import Pick
    from harness.ports.progress import Progress
    from harness.terminal.screen import Screen
    from harness.wiring import RunOutcome, Settings

C = TypeVar("C", bound=Callable[..., Any])

CODES = (
    "Exit codes: 0 met, 1 missed, 2 undecided, 3 refused, 4 rollback incomplete, 64 bad input, 70 internal error, "
    "130 interrupted before the run began."
)
PROFILES = click.Choice(["smoke", "gameday"])
RESPONDERS = click.Choice(["autopilot", "human"])
CLUSTERS = click.Choice(["auto", "local", "kind", "context", "pod"])
OWN_CLUSTERS = click.Choice(["auto", "local", "kind"])


def main(arguments: list[str] | None = None) -> int:
    """Run one command line; its exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    known = Invocation(output="json" if wants_json(given) else "text")
    return guarded(lambda: drill.main(given, prog_name="drill", standalone_mode=False, obj=known), known)


# Options


def _output(command: C) -> C:
    return click.option(
        "--output", type=click.Choice(["text", "json"]), default="text", show_default=True,
        help="Text for people, or JSON lines for programs.",
    )(command)  # fmt: skip


def _runs(command: C) -> C:
    command = click.option(
        "--config", type=click.Path(path_type=Path), envvar="DRILL_CONFIG", show_envvar=True,
        help="What else holds where no option and no variable says it; drill.yaml of the working directory where there "
        "is one.",
    )(command)  # fmt: skip
    return click.option(
        "--runs", type=click.Path(file_okay=False, path_type=Path), default=Path("runs"), show_default=True,
        help="The folder that holds the runs.",
    )(command)  # fmt: skip


def _where(command: C) -> C:
    """Options that say which cluster."""
    options = (
        click.option(
            "--cluster", "--provider", "cluster", type=CLUSTERS, envvar="DRILL_CLUSTER", default="auto",
            show_default=True, show_envvar=True,
            help="Where to drill; auto: a named context, else in a pod its own cluster, else a local cluster that is "
            "there, else kind where Docker answers, else local.",
        ),
        click.option("--context", envvar="CONTEXT", show_envvar=True, help="An entry of the kubeconfig."),
        click.option(
            "--kubeconfig", type=click.Path(path_type=Path), envvar="KUBECONFIG", show_envvar=True,
            help="The kubeconfig of --context.",
        ),
        click.option("--name", default="drill", show_default=True, help="The name of a local or kind cluster."),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return _runs(_output(command))


def _peers(command: C) -> C:
    """Options that say where the alerting chain answers."""
    for name, what in (("pager", "the pager"), ("alertmanager", "Alertmanager"), ("prometheus", "Prometheus")):
        none = ", or none" if name == "pager" else ""
        command = click.option(
            f"--{name}", envvar=f"DRILL_{name.upper()}", show_envvar=True,
            help=f"Where {what} answers: a URL, or service:NAMESPACE/NAME:PORT{none}.",
        )(command)  # fmt: skip
    return command


def _keep(command: C) -> C:
    return click.option(
        "--keep", type=click.Choice(["folder", "cluster"]), envvar="DRILL_KEEP", default="folder", show_default=True,
        show_envvar=True, help="Where the journal is kept: in the folder, or in the drilled namespace as well.",
    )(command)  # fmt: skip


def _namespace(command: C) -> C:
    return click.option("--namespace", help="The drilled namespace, where the cluster has several.")(command)


def _settings(flags: dict[str, Any]) -> Settings:
    """The settings that options, environment and `drill.yaml` mean; what none of them says keeps its default."""
    from harness.wiring.settings import configured

    file = flags.pop("config", None)
    if os.pathsep in str(flags.get("kubeconfig") or ""):
        del flags["kubeconfig"]  # KUBECONFIG may list several files: whoever reads it merges them as kubectl does
    said = {name: value for name, value in flags.items() if value is not None and not _is_default(name)}
    settings = configured(said, file)
    known = click.get_current_context().find_object(Invocation)
    if known is not None:
        known.output, known.runs = settings.output, settings.runs
    return settings


def _is_default(name: str) -> bool:
    """Whether nobody said an option, and its value is the one that it has by itself."""
    context: click.Context | None = click.get_current_context()
    while context is not None and (source := context.get_parameter_source(name)) is None:
        context = context.parent  # `run --dry-run` hands its options on to `plan`
    return context is not None and source is click.core.ParameterSource.DEFAULT


def _screen(output: str) -> Screen:
    from harness.terminal.screen import Screen

    return Screen(sys.stdout, output)


# Commands


class _InOrder(click.Group):
    """Commands in the order in which they are declared."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(self.commands)


@click.group(cls=_InOrder, invoke_without_command=True, epilog=CODES)
@click.pass_context
def drill(context: click.Context) -> ExitCode | None:
    """Break a staging cluster on purpose, time what people must do, and put everything back.

    Without a command: what is up, what is open, and how the last run ended.
    """
    if context.invoked_subcommand is not None:
        return None
    with status.make_context("status", [], parent=context) as inner:
        return _as_code(status.invoke(inner))


@drill.command()
@click.argument("experiment")
@click.option("--profile", type=PROFILES, envvar="PROFILE", show_envvar=True, help="The pace of rules and timeouts.")
@click.option(
    "--responder", type=RESPONDERS, envvar="RESPONDER", show_envvar=True, help="Who answers the page in this run."
)
@click.option("--no-setup", is_flag=True, help="Use the cluster and the staging system as they are.")
@click.option("--dry-run", is_flag=True, help="Only show what would be changed and how it is undone, as `plan` does.")
@_keep
@_peers
@_where
@click.pass_context
def run(
    context: click.Context,
    /,
    experiment: str,
    profile: str | None,
    responder: str | None,
    *,
    no_setup: bool,
    dry_run: bool,
    **flags: Any,
) -> ExitCode:
    """Run one EXPERIMENT, from set-up to report."""
    if dry_run:
        del flags["keep"]
        return _as_code(context.invoke(plan, experiment=experiment, profile=profile, **flags))
    settings = _settings(flags)
    with _screen(settings.output) as screen:
        outcome = _drilled(screen, settings, experiment, profile=profile, responder=responder, setup=not no_setup)
    return outcome.exit_code


@drill.command()
@click.argument("experiments", nargs=-1, metavar="[EXPERIMENT]...")
@click.option("--profile", type=PROFILES, envvar="PROFILE", show_envvar=True, help="The pace of rules and timeouts.")
@click.option(
    "--responder", type=RESPONDERS, envvar="RESPONDER", show_envvar=True, help="Who answers the pages in these runs."
)
@click.option("--no-setup", is_flag=True, help="Use the cluster and the staging system as they are.")
@_peers
@_where
@click.pass_obj
def series(
    known: Invocation,
    /,
    experiments: tuple[str, ...],
    profile: str | None,
    responder: str | None,
    *,
    no_setup: bool,
    **flags: Any,
) -> ExitCode:
    """Run several EXPERIMENTS, one after another, and print one table.

    Without a name all that there are are run. The exit code is that of the worst.
    """
    settings = _settings(flags)
    from harness import wiring
    from harness.report.series import as_data

    def each(name: str, number: int, of: int, fading: Collection[str]) -> RunOutcome:
        with _screen(settings.output) as screen:
            screen.progress.say(f"experiment {number} of {of}: {name}")
            return _drilled(
                screen, settings, name, profile=profile, responder=responder, setup=not no_setup, fading=fading
            )

    def refused(error: DrillError) -> None:
        tell(error, known)

    done = wiring.run_series(experiments, profile, each, refused)
    data = {"series": as_data(done.rows), "exit_code": int(done.exit_code)}
    _screen(settings.output).answer(f"\n{done.table}", data)
    return done.exit_code


@drill.command()
@click.argument("experiments", nargs=-1, metavar="[EXPERIMENT]...")
@click.option(
    "--cluster",
    type=OWN_CLUSTERS,
    envvar="DRILL_CLUSTER",
    default="auto",
    show_default=True,
    show_envvar=True,
    help="Where the cluster is made; auto: kind where Docker answers, else local.",
)
@click.option("--name", help="The name of the cluster, which must be new.  [default: one at random]")
@click.option(
    "--results",
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder for junit.xml, summary.md and the runs.  [default: a new one below runs]",
)
@click.option("--keep", is_flag=True, help="Leave the cluster standing, to look into what went wrong.")
@_output
@click.pass_obj
def smoke(
    known: Invocation,
    /,
    experiments: tuple[str, ...],
    name: str | None,
    results: Path | None,
    *,
    keep: bool,
    **flags: Any,
) -> ExitCode:
    """Bring up a cluster, drill a few EXPERIMENTS on it, take it away.

    This is what CI runs: the smoke profile, one table, JUnit and a job summary. The exit code is that of the worst;
    what the cluster itself did is ENVIRONMENT, neither met nor missed. Without a name a short list is run.
    """
    settings = _settings(flags)
    from harness import wiring
    from harness.report.series import as_data
    from harness.terminal.screen import wall_times

    def each(where: Settings, name: str, number: int, of: int, fading: Collection[str]) -> RunOutcome:
        with _screen(settings.output) as screen:
            screen.progress.say(f"experiment {number} of {of}: {name}")
            return _drilled(screen, where, name, profile="smoke", responder=None, setup=True, fading=fading)

    def wrong(error: DrillError) -> None:
        tell(error, known)

    with _screen(settings.output) as screen:
        done = wiring.run_smoke(
            settings, experiments, name=name, results=results, keep=keep, run=each, tell=wrong,
            progress=screen.progress,
        )  # fmt: skip
        data = {
            "series": as_data(done.rows), "exit_code": int(done.exit_code), "outcome": done.word,
            "cluster": done.cluster, "fate": done.fate, "files": list(map(str, done.files)),
            "phases": {phase: round(spent, 3) for phase, spent in done.phases.items()},
            "seconds": round(done.seconds, 3),
        }  # fmt: skip
        last = f"smoke: {done.word}, exit code {int(done.exit_code)}. {done.fate}"
        times = "\n".join(wall_times(done.phases, done.seconds))
        screen.answer("\n".join(["", done.table, "", times, "", *map(str, done.files), "", last]), data)
    return done.exit_code


def _drilled(
    screen: Screen,
    settings: Settings,
    experiment: str,
    *,
    profile: str | None,
    responder: str | None,
    setup: bool,
    fading: Collection[str] = (),
) -> RunOutcome:
    """Run one experiment on a screen, and say how it ended."""
    from harness import wiring

    try:
        outcome = wiring.run_drill(
            settings,
            experiment,
            profile=profile,
            responder=responder,
            setup=setup,
            progress=screen.progress,
            on_event=screen.on_event,
            on_view=screen.on_view,
            fading=fading,
        )
    except DrillError:
        screen.broken_off(settings.runs)
        raise
    screen.outcome(
        run_id=outcome.run_id,
        folder=outcome.folder,
        summary=outcome.summary,
        exit_code=outcome.exit_code,
        phases=outcome.phases,
    )
    return outcome


@drill.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), default=Path("gameday.yaml"), metavar="[FILE]")
@click.option(
    "--pick", type=click.Choice(["least-recently-drilled", "random"]), help="How the experiment is chosen, this time."
)
@click.option("--seed", type=int, help="Draws the same experiment again, with --pick random.")
@_peers
@_where
def gameday(file: Path, pick: Pick | None, seed: int | None, **flags: Any) -> ExitCode:
    """Hold a game day: wait for its moment, announce it, run what is due.

    FILE says what is drilled, and when people may be asked for it; gameday.yaml by default. A day that the calendar
    keeps free is not held, with exit code 0. The journal is kept in the cluster as well.
    """
    settings = _settings({**flags, "keep": "cluster"})
    from harness import wiring

    def each(name: str, profile: str, responder: str) -> RunOutcome:
        with _screen(settings.output) as screen:
            return _drilled(screen, settings, name, profile=profile, responder=responder, setup=False)

    screen = _screen(settings.output)
    held = wiring.hold_gameday(settings, file, each, screen.line, how=pick, seed=seed)
    if held.run is None:
        screen.answer(f"not held: {held.why_not}", {"held": False, "why_not": held.why_not})
    return held.exit_code


@drill.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), default=Path("fleet.yaml"), metavar="[FILE]")
@click.option("--resume", "again", metavar="FLEET", help="Take up a fleet that was started before, by its id.")
@_runs
@_output
@click.pass_obj
def fleet(known: Invocation, /, file: Path, again: str | None, **flags: Any) -> ExitCode:
    """Run several drills at the same time, as Jobs where they belong.

    FILE names the targets, each an experiment and a cluster; fleet.yaml by default. Every target's drill runs as a Job
    in its own cluster and goes on where this command does not. The results are collected, and one table is printed; the
    exit code is that of the worst. Ctrl-C asks all of them to undo what they did.
    """
    settings = _settings(flags)
    from harness import wiring
    from harness.report.series import as_data
    from harness.terminal.screen import wall_times

    with _screen(settings.output) as screen:

        def wrong(target: str, error: DrillError) -> None:
            screen.progress.say(f"{target}: {error.slug}")
            tell(error, known)

        telling = wiring.Telling(screen.of, lambda target, text: screen.progress.say(f"{target}: {text}"), wrong)
        if again is not None:
            done = wiring.resume_fleet(settings, again, telling, screen.progress)
        else:
            done = wiring.run_fleet(settings, file, telling, screen.progress)
        data = {
            "fleet": done.fleet, "targets": as_data(done.rows), "exit_code": int(done.exit_code), "outcome": done.word,
            "open": list(done.open_), "files": list(map(str, done.files)), "seconds": round(done.seconds, 3),
            "phases": {phase: round(spent, 3) for phase, spent in done.phases.items()},
        }  # fmt: skip
        more = [f"there is more to fetch: drill fleet --resume {done.fleet}"] if done.open_ else []
        last = f"fleet: {done.word}, exit code {int(done.exit_code)}"
        times = wall_times(done.phases, done.seconds)
        screen.answer("\n".join(["", done.table, "", *times, "", *map(str, done.files), "", *more, last]), data)
    return done.exit_code


@drill.command()
@click.argument("experiment")
@click.option("--profile", type=PROFILES, envvar="PROFILE", show_envvar=True, help="The pace of rules and timeouts.")
@_peers
@_where
def plan(experiment: str, profile: str | None, **flags: Any) -> ExitCode:
    """Show what EXPERIMENT would change, and its undo.

    Nothing is changed: the API server is asked for a dry run.
    """
    settings = _settings(flags)
    from harness import wiring

    text = wiring.plan_drill(settings, experiment, profile)
    _screen(settings.output).answer(text, {"plan": text})
    return ExitCode.MET


@drill.command()
@click.argument("experiments", nargs=-1, metavar="[EXPERIMENT]...")
@click.option("--profile", type=PROFILES, envvar="PROFILE", show_envvar=True, help="The pace of rules and timeouts.")
@_peers
@_namespace
@_where
def doctor(experiments: tuple[str, ...], profile: str | None, **flags: Any) -> ExitCode:
    """Look at everything that a drill needs, and change nothing.

    One table of what was found, what is missing and the remedy: the cluster, the alerting chain, the namespaces that
    opted in, and what each EXPERIMENT needs. It goes on after a failure. The exit code is 3 where something is missing.
    """
    settings = _settings(flags)
    with _screen(settings.output) as screen:
        from harness import wiring

        found = wiring.examine(settings, experiments, profile, screen.progress)
        screen.answer(found.text, found.data)
    return found.exit_code


@drill.command()
@click.argument("experiments", nargs=-1, metavar="[EXPERIMENT]...")
@_output
@click.pass_obj
def validate(known: Invocation, experiments: tuple[str, ...], output: str) -> ExitCode:
    """Say everything that is wrong with experiments.

    Without a name all that there are are checked.
    """
    known.output = output
    from harness import loading
    from harness.wiring.settings import ROOT

    screen, code = _screen(output), ExitCode.MET
    for name in experiments or loading.names(ROOT):
        try:
            loaded = loading.load(loading.find(name, ROOT))
        except BadInput as error:
            code = ExitCode(tell(error, known))
            continue
        profiles = ", ".join(loaded.experiment.profiles)
        screen.answer(
            f"{name}: valid (profiles {profiles})",
            {"experiment": loaded.experiment.name, "valid": True, "digest": loaded.experiment.digest()},
        )
    return code


@drill.command("list")
@_output
def list_(output: str) -> ExitCode:
    """List the experiments that there are."""
    from harness import loading
    from harness.wiring.settings import ROOT

    screen, names = _screen(output), loading.names(ROOT)
    width = max(map(len, names), default=0)
    for name in names:
        try:
            title = loading.load(loading.find(name, ROOT)).experiment.title
        except BadInput:
            title = f"cannot be read; `drill validate {name}` says why"
        screen.answer(f"{name:<{width}}  {title}", {"experiment": name, "title": title})
    return ExitCode.MET


@drill.command()
@click.argument("run", metavar="RUN")
@_output
@_runs
def judge(run: str, **flags: Any) -> ExitCode:
    """Judge RUN again from its journal.

    RUN is a folder, a run id or `latest`; its reports are written again, and the same journal gives the same bytes.
    """
    settings = _settings(flags)
    from harness import wiring

    outcome = wiring.judge_run(_run_folder(run, settings.runs))
    _screen(settings.output).outcome(
        run_id=outcome.run_id, folder=outcome.folder, summary=outcome.summary, exit_code=outcome.exit_code
    )
    return outcome.exit_code


@drill.command()
@_namespace
@_where
def runs(**flags: Any) -> ExitCode:
    """List the runs of this machine and those that the cluster keeps."""
    settings = _settings(flags)
    from harness import wiring

    found = wiring.list_runs(settings)
    _screen(settings.output).answer(found.table(), found.as_data())
    return ExitCode.MET


@drill.command()
@click.argument("run", metavar="RUN")
@_namespace
@_where
def report(run: str, **flags: Any) -> ExitCode:
    """Write the reports of RUN, wherever its journal is.

    RUN is a run id as `drill runs` lists them. A journal that only the cluster has is fetched.
    """
    settings = _settings(flags)
    from harness import wiring

    outcome = wiring.report_run(settings, run)
    _screen(settings.output).outcome(
        run_id=outcome.run_id, folder=outcome.folder, summary=outcome.summary, exit_code=outcome.exit_code
    )
    return ExitCode.MET


@drill.command()
@_namespace
@click.option("--force", is_flag=True, help="Also overwrite what somebody else changed since.")
@_where
def recover(*, force: bool, **flags: Any) -> ExitCode:
    """Undo what a run that died has left in the cluster."""
    settings = _settings(flags)
    with _screen(settings.output) as screen:
        from harness import wiring

        outcome = wiring.recover(settings, force=force, progress=screen.progress)
        code = outcome.exit_code
        screen.answer("\n".join(outcome.lines), {"recovered": outcome.lines, "exit_code": int(code)})
    return code


@drill.command()
@click.argument("reason", required=False, default="")
@_where
def halt(reason: str, **flags: Any) -> ExitCode:
    """Stop all drills on the cluster, for REASON.

    Running ones end with everything undone, new ones are refused, until `drill resume`.
    """
    settings = _settings(flags)
    from harness import wiring

    answer = wiring.halt(settings, reason)
    _screen(settings.output).answer(answer, {"halted": True, "told": answer})
    return ExitCode.MET


@drill.command()
@_where
def resume(**flags: Any) -> ExitCode:
    """Allow drills again after `drill halt`."""
    settings = _settings(flags)
    from harness import wiring

    answer = wiring.resume(settings)
    _screen(settings.output).answer(answer, {"halted": False, "told": answer})
    return ExitCode.MET


@drill.command()
@click.option("--once", is_flag=True, help="Look once, waiting out the lock of a run that died, and end.")
@_namespace
@_where
def sweep(*, once: bool, **flags: Any) -> ExitCode:
    """Undo what dead or overdue runs left, as long as it runs.

    This is what the sweeper in the cluster does; in a pod it acts as the pod's ServiceAccount.
    """
    settings = _settings(flags)
    from harness import wiring

    return wiring.sweep(settings, _screen(settings.output).line, once=once)


@drill.command()
@_namespace
@_where
def status(**flags: Any) -> ExitCode:
    """Show what is up, what is open and how the last run ended."""
    settings = _settings(flags)
    from harness import wiring

    report = wiring.status(settings)
    _screen(settings.output).answer("\n".join(report.lines), {**report.data, "exit_code": int(report.exit_code)})
    return report.exit_code


@drill.group(cls=_InOrder)
def cluster() -> None:
    """Start, stop or look at the cluster that drills run in."""


@cluster.command("up")
@_where
def cluster_up(**flags: Any) -> ExitCode:
    """Bring the cluster up, and the staging system on it; nothing happens where both are."""
    from harness import wiring

    return _about_cluster(flags, wiring.cluster_up)


@cluster.command("down")
@_where
def cluster_down(**flags: Any) -> ExitCode:
    """Take the cluster down and leave nothing behind."""
    from harness import wiring

    return _about_cluster(flags, wiring.cluster_down)


@cluster.command("status")
@_where
def cluster_status(**flags: Any) -> ExitCode:
    """Say whether the cluster is up, and how to reach it."""
    from harness import wiring

    return _about_cluster(flags, wiring.cluster_status)


def _about_cluster(flags: dict[str, Any], act: Callable[[Settings, Progress], str]) -> ExitCode:
    settings = _settings(flags)
    with _screen(settings.output) as screen:
        answer = act(settings, screen.progress)
        screen.answer(answer, {"cluster": answer})
    return ExitCode.MET


def _responder_command(
    name: str,
    action: Action,
    text: str,
    arguments: Iterable[str] = (),
    *,
    about_role: bool = False,
    names_alert: bool = False,
) -> None:
    """A command that sends one message to the drill. Who sends it is for the API server to say, so no option is."""

    def act(namespace: str | None, alert: str, **flags: Any) -> ExitCode:
        said = [str(flags.pop(argument)) for argument in arguments]
        settings = _settings({**flags, "namespace": namespace})
        from harness import wiring

        if about_role:
            answer = wiring.respond(settings, action, role=said[0], alert=alert)
        else:
            answer = wiring.respond(settings, action, text=": ".join(said), alert=alert)
        _screen(settings.output).answer(answer, {"message": answer})
        return ExitCode.MET

    text_of = "Which alert it is about, where several fire. An all clear without it is for all."
    about = click.option("--alert", default="", metavar="ALERT", help=text_of)
    if names_alert:
        about = click.argument("alert", default="", metavar="[ALERT]")
    command: Callable[..., Any] = _namespace(_where(about(act)))
    for argument in reversed(list(arguments)):
        kind = click.Choice(["P1", "P2", "P3", "P4"]) if argument == "severity" else None
        command = click.argument(argument, type=kind, metavar=argument.upper())(command)
    drill.command(name, help=text)(command)


_responder_command(
    "ack",
    "acknowledged",
    "Acknowledge the alert: it is yours now.\n\nALERT says which, where several fire.",
    names_alert=True,
)
_responder_command("assess", "assessed", "Declare the SEVERITY: P1, P2, P3 or P4.", ["severity"])
_responder_command("escalate", "escalated", "Call ROLE, like l2.", ["role"], about_role=True)
_responder_command("join", "joined", "Say that you join as ROLE.", ["role"], about_role=True)
_responder_command("notify", "notified", "Record what the client was told: TEXT.", ["text"])
_responder_command(
    "root-cause",
    "root_cause",
    "Declare the root cause.\n\nOBJECT is its place, like deployment/worker; REASON says what is wrong with it.",
    ["object", "reason"],
)
_responder_command("all-clear", "all_clear", "Give the all clear.")
_responder_command("note", "note", "Put TEXT on the record.", ["text"])


@drill.command()
@click.argument("of", type=click.Choice(["experiment", "configuration", "gameday", "fleet"]), default="experiment")
def schema(of: str) -> ExitCode:
    """Print the JSON Schema of experiment files, of drill.yaml (the configuration), of gameday.yaml or fleet.yaml."""
    from harness import catalog

    texts = {
        "experiment": catalog.schema_text, "configuration": catalog.configuration_schema_text,
        "gameday": catalog.gameday_schema_text, "fleet": catalog.fleet_schema_text,
    }  # fmt: skip
    click.echo(texts[of](), nl=False)
    return ExitCode.MET


@drill.command()
def version() -> ExitCode:
    """Print the version of the harness."""
    from harness.wiring.settings import version as installed

    click.echo(f"drill {installed()}")
    return ExitCode.MET


def _run_folder(run: str, runs: Path) -> Path:
    """The folder that a person means by RUN: its path, or the name of one of `runs`. Whatever the text, it is one."""
    named = os.path.isdir(runs / run) and not os.path.isdir(run)  # noqa: PTH112 - Path.is_dir raises where a name is too long
    return runs / run if named else Path(run)


def _as_code(value: object) -> ExitCode:
    return ExitCode(value) if isinstance(value, int) else ExitCode.MET
